//! The same answer: status, kept headers, body and trailers come back byte for byte, with a mark, and without the parts
//! that were the first answer's alone (promise 2).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use axum::routing::patch;
use bytes::Bytes;
use http::header::{HeaderName, LOCATION, SET_COOKIE, TRAILER};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use testkit::client::Raw;
use testkit::lab::{Lab, frames, keyed, layer};
use tower_http::compression::CompressionLayer;
use tower_idempotency::server::KeptHeaders;
use tower_idempotency::{IdempotencyLayer, MemoryStore};

// Row: new key → claim → run detached → record → answer. Row: same request, done → replay.

#[tokio::test]
async fn a_new_key_runs_and_its_retry_is_replayed() {
    let store = MemoryStore::new();
    let layer = IdempotencyLayer::new(store.clone());
    let answer = |n| async move { (StatusCode::CREATED, [("location", "/charges/1")], format!("effect {n}")) };
    let lab = Lab::new(layer.clone(), answer);
    let first = lab.post("k", "a").await;
    assert_eq!((first.status, first.text()), (StatusCode::CREATED, "effect 1"));
    assert!(!first.headers.contains_key("idempotent-replayed"));
    for _ in 0..3 {
        let mut retry = lab.post("k", "a").await;
        assert_eq!(retry.headers.remove("idempotent-replayed").unwrap(), "true");
        assert_eq!(retry, first);
    }
    assert_eq!((lab.effects(), store.len()), (1, 1));
    let counts = layer.stats();
    assert_eq!((counts.runs, counts.replays, counts.live), (1, 3, 0));
}

/// The bytes of a server's answers to requests sent to it one after the other, each on a connection of its own.
async fn wire(app: Router, requests: &[String]) -> Vec<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let mut answers = Vec::new();
    for request in requests {
        let mut client = Raw::connect(address).await.unwrap();
        client.say(request.as_bytes()).await.unwrap();
        answers.push(String::from_utf8(client.rest().await.unwrap()).unwrap());
    }
    server.abort();
    answers
}

/// A charge as it goes over a connection that is closed after it.
fn plain(method: &str) -> String {
    let head = format!("{method} /charges HTTP/1.1\r\nhost: pay.example\r\nidempotency-key: k\r\n");
    format!("{head}connection: close\r\ncontent-length: 1\r\n\r\na")
}

/// The header lines of an answer's head that begin with `name`.
fn lines<'a>(answer: &'a str, name: &str) -> Vec<&'a str> {
    let head = answer.split("\r\n\r\n").next().unwrap();
    head.lines().filter(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:"))).collect()
}

#[tokio::test]
async fn trap_38_all_frames_of_an_answer_are_recorded() {
    let lab = Lab::new(layer(), |_| async { frames([Ok("one "), Ok(""), Ok("two "), Ok("three")]) });
    let [first, retry] = lab.two_tries().await;
    assert_eq!(first.text(), "one two three");
    assert_eq!(retry.body, first.body);
}

#[tokio::test]
async fn trap_42_repeated_and_non_utf_8_headers_survive_in_their_order() {
    let lab = Lab::new(layer(), |_| async {
        let mut headers = HeaderMap::new();
        for value in [&b"one"[..], b"two", b"caf\xe9", b"one"] {
            headers.append("x-many", HeaderValue::from_bytes(value).unwrap());
        }
        headers.append("link", HeaderValue::from_static("</1>; rel=\"next\", </2>; rel=\"last\""));
        (headers, "done")
    });
    let [first, retry] = lab.two_tries().await;
    let many: Vec<_> = retry.headers.get_all("x-many").iter().map(HeaderValue::as_bytes).collect();
    assert_eq!(many, [&b"one"[..], b"two", b"caf\xe9", b"one"]);
    assert_eq!(retry, first);
}

#[tokio::test]
async fn trap_43_cookies_and_challenges_are_for_the_first_alone() {
    let meant_for_the_first = [
        ("set-cookie", "session=1"),
        ("www-authenticate", "Bearer"),
        ("proxy-authenticate", "Basic"),
        ("clear-site-data", "\"cookies\""),
        ("authentication-info", "nextnonce=1"),
        ("access-control-allow-origin", "https://one.example"),
    ];
    let lab = Lab::new(layer(), move |_| async move { (StatusCode::CREATED, meant_for_the_first, "done") });
    let [first, retry] = lab.two_tries().await;
    for (name, value) in meant_for_the_first {
        assert_eq!((first.header(name), retry.header(name)), (Some(value), None), "{name}");
    }
}

#[tokio::test]
async fn trap_44_what_belongs_to_one_message_is_not_replayed() {
    let of_one_message = [
        ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("transfer-encoding", "chunked"),
        ("connection", "close, X-Hop, keep-alive"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("trailer", "x-sum"),
        ("age", "7"),
        ("via", "1.1 proxy"),
        ("server-timing", "db;dur=53"),
        ("x-request-id", "42"),
        ("request-id", "req_42"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("ratelimit-remaining", "9"),
    ];
    let lab = Lab::new(layer(), move |_| async move { (of_one_message, [("x-kept", "1")], "done") });
    let [first, retry] = lab.two_tries().await;
    for (name, value) in of_one_message {
        assert_eq!((first.header(name), retry.header(name)), (Some(value), None), "{name}");
    }
    assert_eq!(retry.header("x-kept"), Some("1"));
}

#[tokio::test]
async fn trap_44_a_replay_has_one_length_and_one_date_of_its_own() {
    // The first is chunked, for its length is not known beforehand.
    let lab =
        Lab::new(layer(), |_| async { ([("date", "Sun, 06 Nov 1994 08:49:37 GMT")], frames([Ok("do"), Ok("ne")])) });
    let answers = wire(lab.app.clone(), &[plain("POST"), plain("POST")]).await;
    let replay = &answers[1];
    assert_eq!((lines(replay, "idempotent-replayed").len(), lab.effects()), (1, 1));
    assert_eq!(lines(replay, "content-length"), ["content-length: 4"]);
    assert!(lines(replay, "transfer-encoding").is_empty());
    assert_eq!(lines(replay, "date").len(), 1);
    assert!(!replay.contains("1994"));
    assert!(replay.ends_with("\r\n\r\ndone"));
}

#[tokio::test]
async fn trap_45_a_201_stays_a_201_and_keeps_its_location() {
    let lab = Lab::new(layer(), |_| async { (StatusCode::CREATED, [("location", "/charges/1"), ("etag", "\"1\"")]) });
    let [first, retry] = lab.two_tries().await;
    assert_eq!((retry.status, retry.header("location")), (StatusCode::CREATED, Some("/charges/1")));
    assert_eq!(retry, first);
}

#[tokio::test]
async fn trap_46_a_replayed_204_or_304_has_neither_body_nor_length() {
    for status in [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED] {
        let lab = Lab::new(layer(), move |_| async move { (status, [("etag", "\"1\"")]) });
        let answers = wire(lab.app.clone(), &[plain("PATCH"), plain("PATCH")]).await;
        assert_eq!(lines(&answers[1], "idempotent-replayed").len(), 1, "{status}");
        for answer in &answers {
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
            assert!(answer.ends_with("\r\n\r\n") && answer.matches("\r\n\r\n").count() == 1, "a body: {answer}");
            assert!(lines(answer, "content-length").is_empty(), "a length: {answer}");
            assert!(lines(answer, "transfer-encoding").is_empty(), "{answer}");
            assert_eq!(lines(answer, "etag"), ["etag: \"1\""]);
        }
        assert_eq!(lab.effects(), 1);
    }
}

#[tokio::test]
async fn trap_47_trailers_are_replayed() {
    let lab = Lab::new(layer(), |_| async {
        let mut trailers = HeaderMap::new();
        trailers.append("grpc-status", HeaderValue::from_static("0"));
        trailers.append("grpc-message", HeaderValue::from_static("charged"));
        let frames = [Frame::data(Bytes::from_static(b"message")), Frame::trailers(trailers)];
        Body::new(StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, std::convert::Infallible>))))
    });
    let [first, retry] = lab.two_tries().await;
    assert_eq!((first.text(), retry.text()), ("message", "message"));
    assert_eq!(retry.trailers.as_ref().unwrap()["grpc-message"], "charged");
    assert_eq!(retry.trailers, first.trailers);
}

// Seeded fault: all are recorded.
#[tokio::test]
async fn trailers_that_would_be_left_out_as_headers_are_left_out() {
    let lab = Lab::new(layer(), |_| async {
        let names = ["digest", "x-request-id", "www-authenticate", "idempotency-effect", "access-control-allow-origin"];
        let trailers: HeaderMap =
            names.into_iter().map(|name| (name.parse().unwrap(), HeaderValue::from_static("a"))).collect();
        let frames = [Frame::data(Bytes::from_static(b"message")), Frame::trailers(trailers)];
        Body::new(StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, std::convert::Infallible>))))
    });
    let [first, retry] = lab.two_tries().await;
    assert_eq!(first.trailers.unwrap().len(), 5);
    let kept: Vec<_> = retry.trailers.as_ref().unwrap().keys().map(|name| name.as_str()).collect();
    assert_eq!(kept, ["digest"]);
}

#[tokio::test]
async fn trap_47_trailers_of_an_answer_without_a_body_are_replayed() {
    let lab = Lab::new(layer(), |_| async {
        let mut trailers = HeaderMap::new();
        trailers.append("grpc-status", HeaderValue::from_static("0"));
        let trailers = futures_util::future::ready(Some(Ok::<_, std::convert::Infallible>(trailers)));
        Body::new(http_body_util::BodyExt::with_trailers(Full::new(Bytes::new()), trailers))
    });
    let [first, retry] = lab.two_tries().await;
    assert_eq!(retry.trailers.as_ref().unwrap()["grpc-status"], "0");
    assert_eq!((first.trailers, retry.body.len()), (retry.trailers, 0));
}

#[tokio::test]
async fn trap_47_trailers_go_over_http1_too_as_they_do_without_the_layer() {
    let handler = async || {
        let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("42"))]);
        let frames = [Frame::data(Bytes::from_static(b"message")), Frame::trailers(trailers)];
        let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, std::convert::Infallible>)));
        http::Response::builder().header("trailer", "x-sum").body(Body::new(body)).unwrap()
    };
    let app = Router::new().fallback(axum::routing::any(handler));
    let request = plain("POST").replace("connection: close", "te: trailers\r\nconnection: close, te");
    let bare = wire(app.clone(), std::slice::from_ref(&request)).await;
    let requests = [request.clone(), request];
    let tries = wire(app.clone().layer(layer()), &requests).await;
    for answer in [&bare[0], &tries[0], &tries[1]] {
        assert!(lines(answer, "content-length").is_empty(), "{answer}");
        assert_eq!(lines(answer, "trailer"), ["trailer: x-sum"], "{answer}");
        assert!(answer.ends_with("7\r\nmessage\r\n0\r\nx-sum: 42\r\n\r\n"), "{answer}");
    }
    assert_eq!(lines(&tries[1], "idempotent-replayed"), ["idempotent-replayed: true"]);
    let without = layer().kept_headers(KeptHeaders::default().without([TRAILER]));
    let tries = wire(app.layer(without), &requests).await;
    assert!(lines(&tries[1], "trailer").is_empty(), "it was left out by name: {}", tries[1]);
}

#[tokio::test]
async fn trap_48_with_compression_outside_each_try_gets_the_encoding_it_asked_for() {
    let mut lab = Lab::new(layer(), |_| async { "charged ".repeat(100) });
    lab.app = lab.app.layer(CompressionLayer::new());
    let asking =
        |encoding| keyed("POST", "/charges", "k").header("accept-encoding", encoding).body("a".into()).unwrap();
    let first = lab.send(asking("gzip")).await;
    assert_eq!(first.header("content-encoding"), Some("gzip"));
    assert!(first.body.starts_with(b"\x1f\x8b"));
    let retry = lab.post("k", "a").await;
    assert_eq!((retry.header("content-encoding"), retry.is_replay()), (None, true));
    assert_eq!(retry.text(), "charged ".repeat(100));
    let again = lab.send(asking("gzip")).await;
    assert_eq!((again.header("content-encoding"), again.is_replay()), (Some("gzip"), true));
    assert_eq!(again.body, first.body);
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn trap_51_the_retry_of_a_successful_patch_is_not_told_precondition_failed() {
    let version = Arc::new(AtomicU64::new(1));
    let change = move |headers: HeaderMap| async move {
        let wanted: u64 = headers["if-match"].to_str().unwrap().trim_matches('"').parse().unwrap();
        match version.compare_exchange(wanted, wanted + 1, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => ([("etag", format!("\"{}\"", wanted + 1))], "changed").into_response(),
            Err(_) => StatusCode::PRECONDITION_FAILED.into_response(),
        }
    };
    let lab = Lab::of(Router::new().route("/profile", patch(change)).layer(layer()));
    let with_key = |key| {
        let request = keyed("PATCH", "/profile", key).header("if-match", "\"1\"").body(Body::from("a")).unwrap();
        lab.send(request)
    };
    for replayed in [false, true, true] {
        let answer = with_key("k").await;
        assert_eq!((answer.status.as_u16(), answer.text(), answer.is_replay()), (200, "changed", replayed));
        assert_eq!(answer.header("etag"), Some("\"2\""));
    }
    assert_eq!(with_key("another").await.status, StatusCode::PRECONDITION_FAILED);
}

#[tokio::test]
async fn trap_52_a_replay_is_marked_and_nothing_else_is() {
    // A handler that passes on the answer of a service behind it: the replay is that service's, not ours.
    let answer = |_| async { Response::builder().header("idempotent-replayed", "true").body(Body::empty()).unwrap() };
    let lab = Lab::counting(layer());
    assert_eq!(lab.post("k", "a").await.header("idempotent-replayed"), None);
    assert_eq!(lab.post("k", "a").await.header("idempotent-replayed"), Some("true"));
    assert_eq!(lab.post("k", "b").await.header("idempotent-replayed"), None);
    assert_eq!(lab.post("a b", "a").await.header("idempotent-replayed"), None);

    let lab = Lab::new(layer(), answer);
    lab.post("k", "a").await;
    let replay = lab.post("k", "a").await;
    assert_eq!(replay.headers.get_all("idempotent-replayed").iter().count(), 1, "once, not twice");
}

#[tokio::test]
async fn replay_header_name_is_what_marks_a_replay() {
    let lab = Lab::counting(layer().replay_header_name(HeaderName::from_static("x-replayed")));
    assert_eq!(lab.post("k", "a").await.header("x-replayed"), None);
    let retry = lab.post("k", "a").await;
    assert_eq!((retry.header("x-replayed"), retry.header("idempotent-replayed")), (Some("true"), None));
}

// docs/running/security.md lists the tokens that are recorded, and the way to leave them out.
#[tokio::test]
async fn a_token_in_an_answer_is_recorded_unless_its_header_is_left_out_by_name() {
    const TOKENS: [HeaderName; 2] = [HeaderName::from_static("x-auth-token"), HeaderName::from_static("refresh-token")];
    let answer = |_| async { ([("x-auth-token", "1"), ("refresh-token", "2"), ("location", "/1")], "charged") };
    for (kept, is_replayed) in [(KeptHeaders::default(), true), (KeptHeaders::default().without(TOKENS), false)] {
        let [first, retry] = Lab::new(layer().kept_headers(kept), answer).two_tries().await;
        for token in TOKENS {
            assert!(first.headers.contains_key(&token), "the first answer carries all");
            assert_eq!(retry.headers.contains_key(&token), is_replayed, "{token}");
        }
        assert_eq!((retry.text(), retry.header("location")), ("charged", Some("/1")));
    }
}

#[tokio::test]
async fn kept_headers_says_what_is_replayed() {
    let hop = HeaderName::from_static("x-hop");
    let kept = KeptHeaders::default().with([SET_COOKIE, hop]).without([LOCATION]);
    let headers = [("set-cookie", "a=b"), ("location", "/1"), ("x-a", "1"), ("connection", "x-hop"), ("x-hop", "1")];
    let [first, retry] = Lab::new(layer().kept_headers(kept), move |_| async move { headers }).two_tries().await;
    for (name, value) in headers {
        assert_eq!(first.header(name), Some(value));
        let is_kept = ["set-cookie", "x-a"].contains(&name);
        assert_eq!(retry.header(name), Some(value).filter(|_| is_kept), "hop-by-hop is never replayed: {name}");
    }
}
