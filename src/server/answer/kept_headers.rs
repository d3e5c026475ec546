//! Decides which headers of an answer are recorded.

use http::HeaderMap;
use http::header::{CONNECTION, HeaderName, TRAILER};

use crate::header::lines;

/// Returns whether a header is left out of a record, in addition to those that the answer's `Connection` names.
fn is_left_out(name: &str) -> bool {
    let is_named = matches!(
        name,
        // These are hop-by-hop (RFC 9110, section 7.6.1). `Trailer` is still kept if there are trailers.
        "connection" | "keep-alive" | "te" | "trailer" | "transfer-encoding" | "upgrade"
            // These belong to the message that is sent, not to the outcome.
            | "date" | "content-length" | "age" | "via" | "server-timing" | "idempotency-effect"
            // These are for the client that asked first.
            | "set-cookie" | "set-cookie2" | "clear-site-data" | "www-authenticate" | "authentication-info"
            // These belong to one request.
            | "request-id" | "x-request-id" | "correlation-id" | "x-correlation-id" | "traceparent" | "tracestate"
            | "baggage" | "b3" | "x-trace-id" | "x-amzn-trace-id" | "x-amzn-requestid" | "x-cloud-trace-context"
            | "uber-trace-id" | "ratelimit"
    );
    is_named || LEFT_OUT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Beginnings of header names that are left out of a record: headers for proxies, for one origin (CORS), of rate
/// limits, and of tracing.
const LEFT_OUT_PREFIXES: [&str; 5] = ["proxy-", "access-control-", "ratelimit-", "x-ratelimit-", "x-b3-"];

/// Selects the headers of an answer that are recorded and replayed. The first answer carries all of them in any case.
///
/// By default all headers are kept except hop-by-hop headers and those that `Connection` names, `Date`,
/// `Content-Length` (it is made anew), `Age`, `Via`, `Server-Timing`, `Idempotency-Effect`, `Set-Cookie`,
/// `Clear-Site-Data`, `WWW-Authenticate`, `Authentication-Info`, `Proxy-*`, `Access-Control-*`, `RateLimit-*`, and the
/// ids of tracing systems and single requests.
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
        let has_hops = lines(headers, CONNECTION).next().is_some();
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
        !is_left_out(name.as_str())
    }
}

/// Returns whether `Connection` names this header, which makes it hop-by-hop.
fn named(headers: &HeaderMap, name: &HeaderName) -> bool {
    let lines = lines(headers, CONNECTION).filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|option| option.trim().eq_ignore_ascii_case(name.as_str()))
}
