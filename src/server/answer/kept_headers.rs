//! Decides which headers of an answer are recorded.

use http::header::{
    AGE, CONNECTION, CONTENT_LENGTH, DATE, HeaderMap, HeaderName, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    VIA, WWW_AUTHENTICATE,
};

/// Header names that are left out of a record, in addition to those that the answer's `Connection` names.
const LEFT_OUT: [HeaderName; 30] = [
    // These are hop-by-hop (RFC 9110, section 7.6.1). `Trailer` is still kept if there are trailers.
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    // These belong to the message that is sent, not to the outcome.
    DATE,
    CONTENT_LENGTH,
    AGE,
    VIA,
    HeaderName::from_static("server-timing"),
    // These are for the client that asked first.
    SET_COOKIE,
    HeaderName::from_static("set-cookie2"),
    HeaderName::from_static("clear-site-data"),
    WWW_AUTHENTICATE,
    HeaderName::from_static("authentication-info"),
    // These belong to one request.
    HeaderName::from_static("request-id"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("correlation-id"),
    HeaderName::from_static("x-correlation-id"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("baggage"),
    HeaderName::from_static("b3"),
    HeaderName::from_static("x-trace-id"),
    HeaderName::from_static("x-amzn-trace-id"),
    HeaderName::from_static("x-amzn-requestid"),
    HeaderName::from_static("x-cloud-trace-context"),
    HeaderName::from_static("uber-trace-id"),
    HeaderName::from_static("ratelimit"),
];

/// Beginnings of header names that are left out of a record: headers for proxies, for one origin (CORS), of rate
/// limits, and of tracing.
const LEFT_OUT_PREFIXES: [&str; 5] = ["proxy-", "access-control-", "ratelimit-", "x-ratelimit-", "x-b3-"];

/// Selects the headers of an answer that are recorded and replayed. The first answer carries all of them in any case.
///
/// By default all headers are kept except hop-by-hop headers and those that `Connection` names, `Date`,
/// `Content-Length` (it is made anew), `Age`, `Via`, `Server-Timing`, `Set-Cookie`, `Clear-Site-Data`,
/// `WWW-Authenticate`, `Authentication-Info`, `Proxy-*`, `Access-Control-*`, `RateLimit-*`, and the ids of tracing
/// systems and single requests.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct KeptHeaders {
    /// Kept although they are left out by default.
    with: Vec<HeaderName>,
    /// Left out, even if they are in `with`.
    without: Vec<HeaderName>,
}

impl KeptHeaders {
    /// Keeps these headers too. Think of who may send the retry before you keep `Set-Cookie`.
    pub fn with(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.with.extend(names);
        self
    }

    /// Leaves these headers out too.
    pub fn without(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.without.extend(names);
        self
    }

    /// Returns the headers to record, in their order.
    pub(crate) fn choose<'a>(
        &'a self,
        headers: &'a HeaderMap,
        replay_header: &'a HeaderName,
        has_trailers: bool,
    ) -> impl Iterator<Item = (&'a HeaderName, &'a http::HeaderValue)> {
        let has_hops = headers.contains_key(CONNECTION);
        headers.iter().filter(move |(name, _)| {
            // HTTP/1.1 sends only the trailers that this header names.
            let announces = has_trailers && **name == TRAILER && !self.without.contains(name);
            // `shared.rs` sets the replay header anew for each replay.
            *name != replay_header && (announces || self.keeps(name)) && !(has_hops && named(headers, name))
        })
    }

    /// Returns whether the options and the lists keep a header with this name.
    fn keeps(&self, name: &HeaderName) -> bool {
        if self.without.contains(name) {
            return false;
        }
        if self.with.contains(name) {
            return true;
        }
        !LEFT_OUT.contains(name) && !LEFT_OUT_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix))
    }
}

/// Returns whether `Connection` names this header, which makes it hop-by-hop.
fn named(headers: &HeaderMap, name: &HeaderName) -> bool {
    let lines = headers.get_all(CONNECTION).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|option| option.trim().eq_ignore_ascii_case(name.as_str()))
}
