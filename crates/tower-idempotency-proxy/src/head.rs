//! Heads, as a gateway passes them on (RFC 9110, section 7.6).

use std::net::IpAddr;

use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, VIA,
};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{Method, Uri, Version};

/// Headers of one connection, besides those that `Connection` names (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [&str; 9] = [
    "connection", "http2-settings", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
    "te", "transfer-encoding", "upgrade",
];

/// Who called, and how (a de-facto standard: services know these better than RFC 7239's `Forwarded`).
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Left out: this side has answered `Expect` already, and trailers themselves are left out.
const ANSWERED_HERE: [HeaderName; 2] = [EXPECT, TRAILER];

/// Written or added to here, or by the client that sends the request; HTTP/2 has no `Host`. A request with a key gets
/// another `Accept-Encoding` in `upstream.rs`.
const WRITTEN_HERE: [HeaderName; 7] =
    [ACCEPT_ENCODING, CONTENT_LENGTH, FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO, HOST, VIA];

/// For many services `x_account` and `x-account` are one variable.
const AMBIGUOUS: char = '_';

/// Returns whether the service gets this header of a request as the client, or a gateway in front, has sent it. If it
/// does not, it is of no use to tell accounts apart. The header of the key, whose value is another one there, is for
/// you to know.
#[must_use]
pub fn is_passed_on(name: &HeaderName) -> bool {
    let is_left_out = HOP_BY_HOP.contains(&name.as_str()) || ANSWERED_HERE.contains(name);
    !is_left_out && !WRITTEN_HERE.contains(name) && !name.as_str().contains(AMBIGUOUS)
}

/// Why a request can't be passed on.
pub(crate) type NotForwarded = &'static str;

const NO_PATH: NotForwarded = "it has no path that begins with /";
const NAMES_OTHERS: NotForwarded = "its Connection names a field that is not of the connection";
const HOSTS: NotForwarded = "it has more than one Host";
const CODING: NotForwarded = "its Transfer-Encoding is not chunked";

/// Makes a request's head one for the service at `origin`.
pub(crate) fn forward(
    parts: &mut Parts,
    origin: &(http::uri::Scheme, Authority),
    client: Option<IpAddr>,
    is_http2: bool,
) -> Result<(), NotForwarded> {
    let is_path = |path: &&PathAndQuery| path.as_str().starts_with('/') && parts.method != Method::CONNECT;
    let path = parts.uri.path_and_query().filter(is_path).cloned().ok_or(NO_PATH)?;
    let headers = &mut parts.headers;
    // The layer has read all fields. A client must not take one from the service that has counted here.
    if connection_names(headers).any(|name| !HOP_BY_HOP.contains(&name.as_str())) {
        return Err(NAMES_OTHERS);
    }
    if headers.get_all(HOST).iter().count() > 1 {
        return Err(HOSTS);
    }
    if headers.get_all(TRANSFER_ENCODING).iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        return Err(CODING);
    }
    let wants_trailers = headers.get(TE).is_some_and(|te| te.as_bytes() == b"trailers");
    without_hop_by_hop(headers);
    remove(headers, |name| ANSWERED_HERE.contains(name) || name.as_str().contains(AMBIGUOUS));
    with_one_length(headers);
    if wants_trailers && is_http2 {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    join_cookies(headers);
    // HTTP/2 has the host in the target.
    let host = parts.uri.authority().map(|authority| match authority.port() {
        Some(port) => format!("{}:{port}", authority.host()),
        None => authority.host().to_owned(),
    });
    if let Some(host) = host.and_then(|host| HeaderValue::from_str(&host).ok()) {
        headers.insert(HOST, host);
    }
    if let Some(host) = headers.get(HOST).cloned() {
        headers.entry(FORWARDED_HOST).or_insert(host);
    }
    if is_http2 {
        // There the origin is the authority, and another host would contradict it (RFC 9113, section 8.3.1).
        headers.remove(HOST);
    }
    headers.entry(FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
    if let Some(client) = client.and_then(|client| HeaderValue::from_str(&client.to_canonical().to_string()).ok()) {
        headers.append(FORWARDED_FOR, client);
    }
    let via = match parts.version {
        Version::HTTP_2 => "2 idem",
        Version::HTTP_10 => "1.0 idem",
        _ => "1.1 idem",
    };
    headers.append(VIA, HeaderValue::from_static(via));
    let (scheme, authority) = origin.clone();
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path);
    parts.uri = uri.build().map_err(|_| NO_PATH)?;
    parts.version = Version::HTTP_11;
    Ok(())
}

/// Makes one line of the cookies that a client of HTTP/2 has split (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let lines: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if lines.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
}

/// The fields that `Connection` names.
fn connection_names(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    let lines = headers.get_all(CONNECTION).iter().filter_map(|line| line.to_str().ok());
    let names = lines.flat_map(|line| line.split(',')).filter_map(|name| name.trim().parse::<HeaderName>().ok());
    // `close` is an option, and no field.
    names.filter(|name| headers.contains_key(name))
}

/// Makes one of equal lengths (RFC 9110, section 8.6): services refuse two lines, or a list. hyper has refused lengths
/// that differ.
pub(crate) fn with_one_length(headers: &mut HeaderMap) {
    let lines = || headers.get_all(CONTENT_LENGTH).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let mut lengths = lines().map(<[u8]>::trim_ascii);
    let first = lengths.next().and_then(|length| HeaderValue::from_bytes(length).ok());
    if let Some(first) = first
        && lines().count() > 1
        && lengths.all(|length| length == first.as_bytes())
    {
        headers.insert(CONTENT_LENGTH, first);
    }
}

/// Removes what belongs to one connection.
pub(crate) fn without_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<_> = connection_names(headers).collect();
    remove(headers, |name| HOP_BY_HOP.contains(&name.as_str()) || named.contains(name));
}

/// Removes the fields with these names.
pub(crate) fn remove(headers: &mut HeaderMap, is_left_out: impl Fn(&HeaderName) -> bool) {
    let names: Vec<_> = headers.keys().filter(|name| is_left_out(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http::uri::Scheme;

    use super::*;

    fn forwarded(request: http::request::Builder, is_http2: bool) -> Result<Parts, NotForwarded> {
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let origin = (Scheme::HTTP, Authority::from_static("127.0.0.1:3000"));
        forward(&mut parts, &origin, Some([10, 0, 0, 7].into()), is_http2)?;
        Ok(parts)
    }

    fn lines<'a>(parts: &'a Parts, name: &str) -> Vec<&'a str> {
        parts.headers.get_all(name).iter().map(|line| line.to_str().unwrap()).collect()
    }

    #[test]
    fn what_belongs_to_one_connection_stays_there() {
        let request = Request::post("/charges?a=b").header("connection", "close, upgrade, HTTP2-Settings");
        let request = request.header("http2-settings", "a").header("te", "trailers").header("upgrade", "h2c");
        let request = request.header("x-end", "2").header("x_end", "3").header("keep-alive", "timeout=5");
        let request = request.header("proxy-connection", "keep-alive").header("proxy-authorization", "Basic YQ==");
        let parts = forwarded(request.header("expect", "100-continue"), false).unwrap();
        for gone in [
            "connection", "http2-settings", "te", "upgrade", "expect", "x_end", "keep-alive", "proxy-connection",
            "proxy-authorization",
        ] {
            assert_eq!(lines(&parts, gone), [""; 0], "{gone}");
        }
        assert_eq!(
            (lines(&parts, "x-end"), parts.uri.to_string()),
            (vec!["2"], "http://127.0.0.1:3000/charges?a=b".into())
        );
    }

    // Seeded faults: a name is missing in a list; `is_passed_on` does not look for `_`.
    #[test]
    fn a_header_is_passed_on_if_the_service_sees_what_the_layer_has_seen() {
        for (name, expected) in [
            ("x-account", true),
            ("authorization", true),
            ("cookie", true),
            ("api-version", true),
            ("origin", true),
            ("x_account", false),
            ("te", false),
            ("keep-alive", false),
            ("upgrade", false),
            ("connection", false),
            ("proxy-authorization", false),
            ("proxy-connection", false),
            ("proxy-authenticate", false),
            ("transfer-encoding", false),
            ("http2-settings", false),
            ("trailer", false),
            ("expect", false),
            ("host", false),
            ("x-forwarded-for", false),
            ("x-forwarded-host", false),
            ("x-forwarded-proto", false),
            ("via", false),
        ] {
            let value = if name == "transfer-encoding" { "chunked" } else { "a" };
            // As HTTP/2 has the host.
            let request = || Request::post("http://b/");
            let is_seen = [false, true].iter().all(|is_http2| {
                let with = forwarded(request().header(name, value), *is_http2).unwrap();
                let without = forwarded(request(), *is_http2).unwrap();
                lines(&with, name) == [value] && lines(&without, name) == [""; 0]
            });
            assert_eq!((is_seen, is_passed_on(&name.parse().unwrap())), (expected, expected), "{name}");
        }
        // The client that sends the request writes the one, `upstream.rs` the other.
        assert!(!is_passed_on(&CONTENT_LENGTH) && !is_passed_on(&ACCEPT_ENCODING));
    }

    // Seeded faults: only the first name counts; only the first line does.
    #[test]
    fn each_field_that_an_answers_connection_names_stays_on_its_connection() {
        let named = [("connection", "close, X-One , x-two"), ("connection", "x-three"), ("x-one", "1"), ("x-two", "2")];
        let mut headers = HeaderMap::new();
        for (name, value) in named.into_iter().chain([("x-three", "3"), ("keep-alive", "timeout=5"), ("x-four", "4")]) {
            headers.append(name, HeaderValue::from_static(value));
        }
        without_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-four"]);
    }

    #[test]
    fn the_service_learns_who_has_called_and_under_which_name() {
        let request = Request::get("/").header("host", "pay.example").header("x-forwarded-for", "192.0.2.1");
        let parts = forwarded(request, false).unwrap();
        assert_eq!(lines(&parts, "host"), ["pay.example"]);
        assert_eq!(lines(&parts, "x-forwarded-host"), ["pay.example"]);
        assert_eq!(lines(&parts, "x-forwarded-for"), ["192.0.2.1", "10.0.0.7"]);
        assert_eq!(lines(&parts, "via"), ["1.1 idem"]);
        // As HTTP/2 has it.
        let request = Request::get("http://pay.example/").version(Version::HTTP_2).header("te", "trailers");
        let request = request.header("cookie", "a=1").header("cookie", "b=2");
        let parts = forwarded(request, true).unwrap();
        assert_eq!((lines(&parts, "host"), lines(&parts, "te")), (vec![""; 0], vec!["trailers"]));
        assert_eq!(lines(&parts, "x-forwarded-host"), ["pay.example"]);
        assert_eq!(lines(&parts, "cookie"), ["a=1; b=2"]);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_not_passed_on() {
        let post = || Request::post("/");
        for (request, why) in [
            (Request::connect("pay.example:443"), NO_PATH),
            (Request::connect("http://pay.example/orders"), NO_PATH),
            (Request::options("*"), NO_PATH),
            (post().header("connection", "close, Authorization").header("authorization", "a"), NAMES_OTHERS),
            (post().header("connection", "x-account").header("x-account", "a"), NAMES_OTHERS),
            (post().header("host", "a").header("host", "b"), HOSTS),
            (post().header("transfer-encoding", "gzip, chunked"), CODING),
            (post().header("transfer-encoding", "chunked").header("transfer-encoding", "gzip"), CODING),
        ] {
            assert_eq!(forwarded(request, false).unwrap_err(), why);
        }
    }

    #[test]
    fn a_field_that_connection_names_is_refused_only_if_it_is_there_and_is_not_the_connection_s() {
        for (named, there, refused) in [
            ("x-account", true, true),
            ("x-account", false, false),
            ("keep-alive", true, false),
            ("te", true, false),
            ("close", false, false),
            ("idempotency-key", true, true),
            ("keep-alive, x-account", true, true),
        ] {
            let mut request = Request::post("/").header("connection", named);
            for name in named.split(", ").filter(|_| there) {
                request = request.header(name, "a");
            }
            let found = forwarded(request, false);
            assert_eq!(found.is_err(), refused, "{named} {there}");
            assert!(found.is_err() || !found.unwrap().headers.contains_key("keep-alive"), "{named}");
        }
        // Each line of `Connection` counts.
        let lines = Request::post("/").header("connection", "close").header("connection", "x-account");
        assert_eq!(forwarded(lines.header("x-account", "a"), false).unwrap_err(), NAMES_OTHERS);
    }

    #[test]
    fn what_each_version_needs_is_there_and_what_it_forbids_is_not() {
        for (is_http2, te, expected) in [
            (false, "trailers", [""; 0].to_vec()),
            (false, "gzip", vec![]),
            (true, "trailers", vec!["trailers"]),
            (true, "gzip", vec![]),
            (true, "trailers, gzip", vec![]),
        ] {
            let parts = forwarded(Request::post("/").header("te", te), is_http2).unwrap();
            assert_eq!(lines(&parts, "te"), expected, "{is_http2} {te}");
        }
        for (version, via) in
            [(Version::HTTP_10, "1.0 idem"), (Version::HTTP_11, "1.1 idem"), (Version::HTTP_2, "2 idem")]
        {
            for is_http2 in [false, true] {
                let parts = forwarded(Request::post("/").version(version).header("via", "1.1 edge"), is_http2).unwrap();
                assert_eq!(lines(&parts, "via"), ["1.1 edge", via], "{is_http2}");
            }
        }
        // The target's host, if it has one; the head's else. What a gateway has said stays.
        for (uri, host, said, expected) in [
            ("/", Some("a"), None, (vec!["a"], vec!["a"])),
            ("http://b:1/", Some("a"), None, (vec!["b:1"], vec!["b:1"])),
            ("http://b/", None, None, (vec!["b"], vec!["b"])),
            ("/", Some("a"), Some("c"), (vec!["a"], vec!["c"])),
            ("http://b/", Some("a"), Some("c"), (vec!["b"], vec!["c"])),
            ("/", None, None, (vec![], vec![])),
            ("http://user@b/", None, None, (vec!["b"], vec!["b"])),
        ] {
            for is_http2 in [false, true] {
                let mut request = Request::post(uri);
                for (name, value) in [("host", host), ("x-forwarded-host", said)] {
                    request = value.into_iter().fold(request, |request, value| request.header(name, value));
                }
                let parts = forwarded(request, is_http2).unwrap();
                let of_host = if is_http2 { vec![] } else { expected.0.clone() };
                let found = (lines(&parts, "host"), lines(&parts, "x-forwarded-host"));
                assert_eq!(found, (of_host, expected.1.clone()), "{is_http2} {uri} {host:?} {said:?}");
            }
        }
    }

    #[test]
    fn equal_lengths_are_one_and_others_stay_as_they_are() {
        for (lengths, expected) in [
            (&["5"][..], &["5"][..]),
            (&["5", "5"], &["5"]),
            (&["5, 5"], &["5"]),
            (&["5,5", " 5"], &["5"]),
            (&[], &[]),
            (&["5", "6"], &["5", "6"]),
            (&["5, 6"], &["5, 6"]),
            (&["5,"], &["5,"]),
        ] {
            let request =
                lengths.iter().fold(Request::post("/"), |request, length| request.header("content-length", *length));
            assert_eq!(lines(&forwarded(request, false).unwrap(), "content-length"), expected, "{lengths:?}");
        }
    }

    #[test]
    fn what_a_service_answers_loses_what_its_connection_names() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("connection", "x-hop"), ("x-hop", "1"), ("x-end", "2")] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        without_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["x-end"]);
    }
}
