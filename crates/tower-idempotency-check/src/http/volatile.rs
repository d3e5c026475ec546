//! The headers in which a replay may differ from the first answer.

use std::collections::BTreeSet;

use http::{HeaderMap, HeaderName};

/// Names that are not compared, and why. One that ends in `*` is the beginning of names.
pub(crate) const VOLATILE: &[(&str, &[&str])] = &[
    (
        "each connection has its own (RFC 9110, section 7.6.1), and those that `Connection` names",
        &["connection", "keep-alive", "proxy-*", "te", "trailer", "transfer-encoding", "upgrade", "alt-svc"],
    ),
    ("HTTP makes it for each message; the body itself is compared", &["content-length"]),
    (
        "they tell the time of this message, or count from it",
        &["date", "age", "expires", "retry-after", "server-timing", "x-runtime", "x-response-time", "x-timer"],
    ),
    (
        "they name who sends or forwards this message, and how long that took",
        &[
            "server", "via", "x-powered-by", "x-served-by", "x-cache", "x-cache-*", "cf-*", "nel", "report-to",
            "x-envoy-*", "x-kong-*", "x-vercel-*", "x-amz-cf-*",
        ],
    ),
    (
        "they are ids of one request, or of its trace",
        &[
            "request-id", "x-request-id", "x-*-request-id", "correlation-id", "x-correlation-id", "traceparent",
            "tracestate", "traceresponse", "baggage", "b3", "x-b3-*", "x-trace-id", "x-amzn-trace-id",
            "x-amzn-requestid", "x-amz-id-2", "x-amz-apigw-id", "apigw-requestid", "x-cloud-trace-context",
            "uber-trace-id", "x-azure-ref", "fly-request-id", "rndr-id", "sentry-trace", "x-datadog-*",
        ],
    ),
    ("they count requests", &["ratelimit", "ratelimit-*", "x-ratelimit-*", "x-rate-limit-*"]),
    (
        "they are for the client that asked first: `replayed-headers`, `other-account` and `other-session` look at them",
        &[
            "set-cookie", "set-cookie2", "clear-site-data", "www-authenticate", "authentication-info", "x-csrf-token",
            "mcp-session-id",
        ],
    ),
    ("they answer the `Origin` of one request", &["access-control-*"]),
    (
        "they carry a number that is made for each message",
        &["content-security-policy", "content-security-policy-report-only", "signature", "signature-input"],
    ),
    (
        "they say that an answer is a replay",
        &[
            "idempotent-replayed", "idempotency-replayed", "idempotency-replay", "x-idempotent-replayed",
            "x-idempotency-replayed", "idempotency-status", "x-idempotency-status", "idempotency-effect",
            "x-idempotency-cache", "original-request",
        ],
    ),
];

/// What a client goes on with. A server that makes one of these anew for each answer has no replay.
const OF_THE_RESULT: [&str; 11] = [
    "location", "content-location", "etag", "last-modified", "link", "content-type", "content-language",
    "content-encoding", "content-disposition", "cache-control", "vary",
];

/// Lists of values between commas. A date, for example, is none, and its comma divides nothing.
const LISTS: [&str; 6] = ["allow", "cache-control", "content-encoding", "content-language", "link", "vary"];

/// What is made of the body's bytes, which a mark in the body changes.
const OF_THE_BYTES: [&str; 5] = ["etag", "content-digest", "repr-digest", "digest", "content-md5"];

fn is_volatile(name: &str) -> bool {
    let mut names = VOLATILE.iter().flat_map(|(_, names)| *names);
    names.any(|listed| match listed.split_once('*') {
        Some((begin, end)) => name.len() >= begin.len() + end.len() && name.starts_with(begin) && name.ends_with(end),
        None => name == *listed,
    })
}

/// Whether `Connection` names this option, or this header, which makes it one of the connection.
pub(crate) fn is_of_connection(headers: &HeaderMap, name: &str) -> bool {
    let lines = headers.get_all("connection").iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|named| named.trim().eq_ignore_ascii_case(name))
}

/// A header whose lines differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) name: String,
    /// The lines of the first answer, in their order, and those of the other one.
    pub(crate) first: Vec<String>,
    pub(crate) again: Vec<String>,
}

impl Difference {
    /// Whether a list is divided into lines in another way, which each recipient may do (RFC 9110, section 5.3).
    pub(crate) fn is_joined(&self) -> bool {
        LISTS.contains(&self.name.as_str()) && self.first.join(", ") == self.again.join(", ")
    }

    /// Whether the other answer alone has it, and it is none that a client goes on with.
    pub(crate) fn is_addition(&self) -> bool {
        self.first.is_empty() && !OF_THE_RESULT.contains(&self.name.as_str())
    }

    /// Whether a server may make it anew for each answer.
    pub(crate) fn may_be_anew(&self) -> bool {
        !OF_THE_RESULT.contains(&self.name.as_str())
    }
}

/// The headers in which an answer differs from the first one. Those of the bytes are left out where a mark in the body
/// changes these.
pub(crate) fn differences(first: &HeaderMap, again: &HeaderMap, are_bytes_equal: bool) -> Vec<Difference> {
    let names: BTreeSet<_> = first.keys().chain(again.keys()).map(HeaderName::as_str).collect();
    let lines = |headers: &HeaderMap, name: &str| -> Vec<_> {
        headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned()).collect()
    };
    let compared = names.into_iter().filter(|name| {
        let is_of_bytes = !are_bytes_equal && OF_THE_BYTES.contains(name);
        !is_volatile(name) && !is_of_bytes && !is_of_connection(first, name) && !is_of_connection(again, name)
    });
    let compared =
        compared.map(|name| Difference { name: name.to_owned(), first: lines(first, name), again: lines(again, name) });
    compared.filter(|difference| difference.first != difference.again).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_header_is_compared_with_all_its_lines_unless_it_is_volatile() {
        let first = [("link", "a, b"), ("link", "c"), ("etag", "1"), ("date", "x"), ("connection", "X-Hop")];
        let same = headers(&[&first[..3], &[("x-hop", "2"), ("cf-ray", "3"), ("x-ms-request-id", "4")]].concat());
        assert_eq!(differences(&headers(&first), &same, true), []);
        for (again, name, is_joined, is_addition) in [
            (&[("link", "a"), ("link", "b"), ("link", "c"), ("etag", "1")][..], "link", true, false),
            (&[("link", "a, b, c"), ("etag", "1")], "link", true, false),
            (&[("link", "c"), ("link", "a, b"), ("etag", "1")], "link", false, false),
            (&[("link", "a, b"), ("etag", "1")], "link", false, false),
            (&[("link", "a, b"), ("link", "c")], "etag", false, false),
            (&[("link", "a, b"), ("link", "c"), ("etag", "2")], "etag", false, false),
            (&[("link", "a, b"), ("link", "c"), ("etag", "1"), ("location", "/")], "location", false, false),
            (
                &[("link", "a, b"), ("link", "c"), ("etag", "1"), ("last-modified", "Mon")],
                "last-modified",
                false,
                false,
            ),
            (&[("link", "a, b"), ("link", "c"), ("etag", "1"), ("x-hit", "1")], "x-hit", false, true),
        ] {
            let found = differences(&headers(&first), &headers(again), true);
            let found: Vec<_> = found.iter().map(|it| (it.name.as_str(), it.is_joined(), it.is_addition())).collect();
            assert_eq!(found, [(name, is_joined, is_addition)], "{again:?}");
        }
        assert_eq!(differences(&headers(&[("etag", "1")]), &headers(&[("etag", "2")]), false), []);
    }

    #[test]
    fn the_guide_lists_every_volatile_header() {
        let guide = include_str!("../../../../docs/check.md");
        let rows: Vec<_> = VOLATILE
            .iter()
            .map(|(why, names)| {
                let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
                format!("| {} | {why} |", names.join(", "))
            })
            .collect();
        let listed: Vec<_> = guide.lines().skip_while(|line| !line.starts_with("| not compared")).skip(2).collect();
        let listed: Vec<_> = listed.into_iter().take_while(|line| line.starts_with('|')).collect();
        assert_eq!(listed, rows);
    }
}
