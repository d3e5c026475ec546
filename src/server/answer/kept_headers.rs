//! Decides which headers of an answer are recorded.

use http::HeaderMap;
use http::header::{CONNECTION, HeaderName, TRAILER};

use crate::server::effect::Effect;
use crate::server::header::lines;

/// Defines which names are left out, as a list and as a `match`, which takes far fewer instructions than a search.
macro_rules! left_out {
    ($($name:literal)*) => {
        #[cfg(test)]
        const LEFT_OUT: &[&str] = &[$($name),*];

        /// Returns whether a header is left out of a record, in addition to those that the answer's `Connection` names.
        fn is_left_out(name: &str) -> bool {
            matches!(name, $($name)|*) || LEFT_OUT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        }
    };
}

// The names are in alphabetical order. They are hop-by-hop (RFC 9110, section 7.6.1; `Trailer` is still kept if there
// are trailers), belong to the message that is sent, are for the client that asked first, or are ids of one request.
// docs/running/security.md lists them.
#[rustfmt::skip]
left_out! {
    "age" "apigw-requestid" "authentication-info" "b3" "baggage" "cf-ray" "clear-site-data" "connection"
    "content-length" "correlation-id" "date" "elastic-apm-traceparent" "fly-request-id" "idempotency-effect"
    "keep-alive" "mcp-session-id" "ratelimit" "request-context" "request-id" "rndr-id" "sentry-trace" "server-timing"
    "set-cookie" "set-cookie2" "te" "traceparent" "traceresponse" "tracestate" "trailer" "transfer-encoding"
    "uber-trace-id" "upgrade" "via" "www-authenticate" "x-amz-apigw-id" "x-amz-cf-id" "x-amz-id-2"
    "x-amz-request-id" "x-amzn-requestid" "x-amzn-trace-id" "x-azure-ref" "x-cloud-trace-context"
    "x-correlation-id" "x-kong-request-id" "x-ms-client-request-id" "x-ms-request-id" "x-request-id" "x-span-id"
    "x-trace-id" "x-vercel-id"
}

/// Beginnings of header names that are left out of a record: headers for proxies, for one origin (CORS), of rate
/// limits, and of tracing.
const LEFT_OUT_PREFIXES: [&str; 6] = ["access-control-", "proxy-", "ratelimit-", "x-b3-", "x-datadog-", "x-ratelimit-"];

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
    /// Keeps these headers too, but for `Idempotency-Effect`. Think of who may send the retry before you keep
    /// `Set-Cookie`.
    pub fn with(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.with.extend(names);
        self
    }

    /// Leaves these headers out too.
    pub fn without(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.without.extend(names);
        self
    }

    /// Returns a function that says which of these headers are recorded.
    pub(crate) fn choice<'a>(
        &'a self,
        headers: &'a HeaderMap,
        replay_header: &'a HeaderName,
        has_trailers: bool,
    ) -> impl Fn(&HeaderName) -> bool + 'a {
        let has_hops = lines(headers, CONNECTION).next().is_some();
        move |name| {
            // HTTP/1.1 sends only the trailers that this header names.
            let announces = has_trailers && *name == TRAILER && !self.without.contains(name);
            // `layer_state.rs` sets the replay header anew for each replay.
            name != replay_header && (announces || self.keeps(name)) && !(has_hops && named(headers, name))
        }
    }

    /// Returns the trailers to record, in their order.
    pub(crate) fn choose_trailers<'a>(
        &'a self,
        trailers: &'a HeaderMap,
    ) -> impl Iterator<Item = (&'a HeaderName, &'a http::HeaderValue)> {
        trailers.iter().filter(|(name, _)| self.keeps(name))
    }

    /// Returns whether the options and the lists keep a header with this name.
    fn keeps(&self, name: &HeaderName) -> bool {
        // The layer says it anew of each replay.
        if *name == Effect::HEADER || self.without.contains(name) {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    // Seeded fault: a header is on one of the two lists only.
    #[test]
    fn the_page_lists_what_is_left_out() {
        let page = include_str!("../../../docs/running/security.md");
        let section =
            page.split("## What a replay leaves out").nth(1).and_then(|rest| rest.split("`kept_headers`").next());
        let listed = section.unwrap().split('`').skip(1).step_by(2).map(str::to_ascii_lowercase);
        let listed: BTreeSet<_> = listed.collect();
        let prefixes = LEFT_OUT_PREFIXES.iter().map(|prefix| format!("{prefix}*"));
        let left_out: BTreeSet<_> = LEFT_OUT.iter().map(|name| (*name).to_owned()).chain(prefixes).collect();
        assert_eq!(listed, left_out);
        assert!(LEFT_OUT.is_sorted());
    }
}
