//! A key in the body: of a JSON-RPC call, of a form, or where the application finds it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::routing::any;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Request, StatusCode};
use testkit::lab::disk::Disk;
use testkit::lab::{Lab, at_once, layer, on_disk};
use testkit::on_both;
use tower_idempotency::server::{KeyFrom, Replay};
use tower_idempotency::store::Store;
use tower_idempotency::{
    FingerprintBody, IdempotencyContext, IdempotencyLayer, Key, MemoryStore, Rejection, RejectionKind, Scope,
};

const JSON: &str = "application/json";

fn in_meta() -> KeyFrom {
    KeyFrom::json_pointer("/params/_meta/key").unwrap()
}

/// A request with this body, and the key in its header, if it has one.
fn request(header: Option<&str>, content_type: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::post("/rpc").header(CONTENT_TYPE, content_type);
    let request = header.into_iter().fold(request, |request, key| request.header("idempotency-key", key));
    request.body(body.into()).unwrap()
}

/// A JSON-RPC call of an amount, with this key in the header and that one in the body.
fn call(header: Option<&str>, body: Option<&str>, amount: u32) -> Request<Body> {
    let meta = body.map(|key| format!(r#""_meta":{{"key":"{key}"}},"#)).unwrap_or_default();
    request(header, JSON, format!(r#"{{"method":"charge","params":{{{meta}"amount":{amount}}}}}"#))
}

on_both!(a_call_whose_key_is_in_its_body_runs_once);

async fn a_call_whose_key_is_in_its_body_runs_once<D: Disk>() {
    let (_directory, store) = on_disk(D::builder());
    each_place(store).await;
}

#[tokio::test]
async fn a_call_whose_key_is_in_its_body_runs_once_in_memory() {
    each_place(MemoryStore::new()).await;
}

async fn each_place<St: Store + Clone>(store: St) {
    let layer = IdempotencyLayer::new(store).key_from(in_meta());
    let lab = Lab::counting(layer.clone());
    let first = lab.send(call(None, Some("k"), 5)).await;
    assert_eq!((first.text(), first.is_replay()), ("effect 1", false));
    // The same key, whatever carries it.
    for header in [None, Some("k"), Some("\"k\"")] {
        let again = lab.send(call(header, Some("k"), 5)).await;
        assert_eq!((again.text(), again.is_replay()), ("effect 1", true), "{header:?}");
    }
    lab.send(call(None, Some("k"), 6)).await.assert_refusal(422, "key-reused", false, None);
    // The body is compared with its key, so this is another request.
    lab.send(call(Some("k"), None, 5)).await.assert_refusal(422, "key-reused", false, None);
    assert_eq!(lab.send(call(None, Some("other"), 5)).await.text(), "effect 2");
    assert_eq!(lab.send(call(Some("third"), None, 5)).await.text(), "effect 3");
    assert_eq!((lab.effects(), layer.stats().replays), (3, 3));
}

#[tokio::test]
async fn keys_of_header_and_body_that_differ_are_refused() {
    let layer = layer().key_from(in_meta());
    let lab = Lab::counting(layer.clone());
    for (header, body) in [("a", "b"), ("b", "a")] {
        let differ = lab.send(call(Some(header), Some(body), 5)).await;
        differ.assert_refusal(422, "key-reused", false, None);
        assert!(differ.text().contains("was not run"), "{}", differ.text());
        // An earlier request with the body's key alone may have run.
        assert_eq!(differ.header("idempotency-effect"), Some("unknown;retry=?0"));
    }
    assert_eq!((lab.effects(), layer.stats().refused(RejectionKind::KeyReused)), (0, 2));
}

#[tokio::test]
async fn a_body_in_which_a_key_cannot_be_looked_for_is_refused() {
    let layer = layer().key_from(in_meta());
    let lab = Lab::counting(layer.clone());
    let with_key = r#"{"params":{"_meta":{"key":"k"}}}"#;
    let utf_16: Vec<u8> = with_key.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let unreadable: [Bytes; 11] = [
        r#"{"params":{"_meta":{"key":7}}}"#.into(),
        r#"{"params":{"_meta":{"key":""}}}"#.into(),
        r#"{"params":{"_meta":{"key":"a","key":"b"}}}"#.into(),
        r#"{"params":{"_meta":{"key":"a"},"_meta":{"key":"b"}}}"#.into(),
        r#"{"params":{"_meta":{"key":"\u00e4"}}}"#.into(),
        // What a service may read that this layer does not.
        format!("[{with_key},{with_key}]").into(),
        format!("\u{feff}{with_key}").into(),
        format!("{with_key} {with_key}").into(),
        r#"{"params":{"_meta":{"key":"k"},"amount":NaN}}"#.into(),
        utf_16.into(),
        Bytes::from_static(b"\x1f\x8b\x08\x00\x00\x00\x00\x00"),
    ];
    for body in &unreadable {
        for header in [None, Some("a")] {
            let refused = lab.send(request(header, JSON, body.clone())).await;
            refused.assert_refusal(400, "key-malformed", false, None);
            assert_eq!(refused.header("idempotency-effect"), Some("none;retry=?0"));
        }
    }
    let mut encoded = call(None, Some("k"), 5);
    encoded.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    lab.send(encoded).await.assert_refusal(400, "key-malformed", false, None);
    assert_eq!((lab.effects(), layer.stats().refused(RejectionKind::KeyMalformed)), (0, 23));
}

#[tokio::test]
async fn a_body_without_a_key_reaches_the_handler_whole_or_is_refused() {
    let echo = |request: Request<Body>| async move {
        let has_context = request.extensions().get::<IdempotencyContext>().is_some();
        let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
        format!("{has_context} {}", String::from_utf8(body.to_vec()).unwrap())
    };
    let app = |layer: IdempotencyLayer<MemoryStore>| Lab::of(Router::new().fallback(any(echo)).layer(layer));
    let bodies = ["", r#"{"params":{"_meta":{}}}"#, r#"{"params":[1,2]}"#, r#"{"params":{"_meta":{"key":null}}}"#];
    // A request without a key belongs to no scope.
    let no_scope = |_: &Parts| Err::<Scope, _>(Rejection::custom(StatusCode::UNAUTHORIZED, "Who?", "No account."));
    for lab in [app(layer().key_from(in_meta())), app(layer().key_from(in_meta()).scope(no_scope))] {
        for body in bodies {
            for _ in 0..2 {
                let answer = lab.send(request(None, JSON, body)).await;
                assert_eq!((answer.text(), answer.is_replay()), (&*format!("false {body}"), false));
            }
        }
    }
    let with = r#"{"params":{"_meta":{"key":"k"}}}"#;
    let lab = app(layer().key_from(in_meta()));
    assert_eq!(lab.send(request(None, JSON, with)).await.text(), format!("true {with}"));
    let lab = app(layer().key_from(in_meta()).require_key(true));
    for body in bodies {
        lab.send(request(None, JSON, body)).await.assert_refusal(400, "key-missing", false, None);
    }
    // Whether it has a key is known once it was read.
    let lab = app(layer().key_from(in_meta()).max_request_body(8));
    lab.send(request(None, "text/plain", "nine byte")).await.assert_refusal(413, "body-too-large", false, None);
}

#[tokio::test]
async fn members_that_are_left_out_make_no_difference() {
    let without = || FingerprintBody::json_without(["/id", "/params/_meta/key"]).unwrap();
    let lab = Lab::counting(layer().fingerprint_body(without()).key_from(in_meta()));
    let body = |id: u32, meta: &str, amount: u32| {
        format!(r#"{{"id":{id},"params":{{"amount":{amount},"_meta":{{{meta}}}}}}}"#)
    };
    let key = r#""key":"k""#;
    lab.send(request(None, JSON, body(1, key, 5))).await;
    for (header, body) in [(None, body(2, r#""\u006bey":"\u006b""#, 5)), (Some("k"), body(3, "", 5))] {
        let again = lab.send(request(header, JSON, body.clone())).await;
        assert!(again.is_replay(), "{body}: {}", again.text());
    }
    lab.send(request(None, JSON, body(1, key, 6))).await.assert_refusal(422, "key-reused", false, None);
    assert_eq!(lab.effects(), 1);
    // A record that was made under another setting can't be compared.
    let store = MemoryStore::new();
    let over = |body| Lab::counting(IdempotencyLayer::new(store.clone()).key_from(in_meta()).fingerprint_body(body));
    over(without()).send(call(None, Some("k"), 5)).await;
    for other in [FingerprintBody::CanonicalJson, FingerprintBody::json_without(["/id"]).unwrap()] {
        over(other).send(call(None, Some("k"), 5)).await.assert_refusal(409, "not-verifiable", false, None);
    }
    let turned = FingerprintBody::json_without(["/params/_meta/key", "/id", "/id"]).unwrap();
    assert!(over(turned).send(call(None, Some("k"), 5)).await.is_replay(), "the order of the pointers says nothing");
}

#[tokio::test]
async fn a_key_is_found_in_a_form_or_by_a_function() {
    let form = Lab::counting(layer().key_from(KeyFrom::form_field("request_id")));
    let url_encoded = "application/x-www-form-urlencoded; charset=UTF-8";
    let send = |content_type: &'static str, body: &'static str| form.send(request(None, content_type, body));
    assert_eq!(send(url_encoded, "amount=5&request_id=k").await.text(), "effect 1");
    assert!(send(url_encoded, "amount=5&request_id=k").await.is_replay());
    send(url_encoded, "request_id=a&request_id=b").await.assert_refusal(400, "key-malformed", false, None);
    // Some servers divide fields there.
    send(url_encoded, "amount=5;request_id=k").await.assert_refusal(400, "key-malformed", false, None);
    for other in ["text/plain", "multipart/form-data; boundary=b", ""] {
        send(other, "amount=5&request_id=k").await.assert_refusal(400, "key-malformed", false, None);
    }
    let mut twice = request(None, url_encoded, "amount=5&request_id=k");
    twice.headers_mut().append(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    form.send(twice).await.assert_refusal(400, "key-malformed", false, None);
    assert_eq!(form.effects(), 1);

    let find = |parts: &Parts, body: &Bytes| match (parts.uri.path(), std::str::from_utf8(body)) {
        ("/rpc", Ok(text)) => Ok(Some(Key::new(text).unwrap())),
        ("/rpc", Err(_)) => Err(Rejection::custom(StatusCode::BAD_REQUEST, "No text", "Send a text.")),
        _ => Ok(None),
    };
    let lab = Lab::counting(layer().key_from(KeyFrom::function(find)));
    for is_replay in [false, true] {
        let answer = lab.send(request(None, "text/plain", "payment 7")).await;
        assert_eq!((answer.text(), answer.is_replay()), ("effect 1", is_replay));
    }
    assert_eq!(lab.send(request(None, "text/plain", &b"\xff"[..])).await.status, 400);
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn a_key_in_a_body_belongs_to_its_scope_and_a_probe_with_it_never_runs() {
    let scope = |parts: &Parts| {
        let account = parts.headers.get("x-account").ok_or(StatusCode::UNAUTHORIZED)?;
        Ok::<_, Rejection>(Scope::new(account.as_bytes())?)
    };
    let lab = Lab::counting(layer().scope(scope).key_from(in_meta()));
    let by = |account: &str, probe: bool, key: Option<&str>| {
        let mut request = call(None, key, 5);
        request.headers_mut().insert("x-account", account.parse().unwrap());
        if probe {
            request.headers_mut().insert("idempotency-probe", HeaderValue::from_static("?1"));
        }
        lab.send(request)
    };
    assert_eq!(lab.send(call(None, Some("k"), 5)).await.status, 401);
    by("a", true, Some("k")).await.assert_refusal(404, "not-found", true, None);
    assert_eq!(by("a", false, Some("k")).await.text(), "effect 1");
    assert_eq!(by("a", true, Some("k")).await.text(), "effect 1");
    by("b", true, Some("k")).await.assert_refusal(404, "not-found", true, None);
    by("a", true, None).await.assert_refusal(400, "key-missing", false, None);
    assert_eq!(by("b", false, Some("k")).await.text(), "effect 2");
    assert_eq!(lab.effects(), 2);
}

#[tokio::test]
async fn the_scope_is_asked_once_and_its_rejection_comes_before_a_run() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&asked);
    let scope = move |parts: &Parts| {
        counts.fetch_add(1, Ordering::SeqCst);
        let account = parts.headers.get("x-account").ok_or(StatusCode::UNAUTHORIZED)?;
        Ok::<_, Rejection>(Scope::new(account.as_bytes())?)
    };
    let lab = Lab::counting(layer().scope(scope).key_from(in_meta()));
    for header in [None, Some("k")] {
        assert_eq!(lab.send(call(header, Some("k"), 5)).await.status, 401);
    }
    let mut with = call(None, Some("k"), 5);
    with.headers_mut().insert("x-account", HeaderValue::from_static("a"));
    assert_eq!(lab.send(with).await.text(), "effect 1");
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_replay_of_a_key_in_the_body_is_asked_and_a_request_that_is_not_covered_is_not_read() {
    let moved_on = |_: Parts, stored: axum::response::Response<Bytes>| async move {
        Replay::Replace(stored.map(|_| Bytes::from_static(b"moved on")))
    };
    let covers = |parts: &Parts| !parts.headers.contains_key("x-stream");
    let lab = Lab::counting(layer().key_from(in_meta()).covers(covers).on_replay(moved_on));
    assert_eq!(lab.send(call(None, Some("k"), 5)).await.text(), "effect 1");
    let replay = lab.send(call(None, Some("k"), 5)).await;
    assert_eq!((replay.text(), replay.is_replay()), ("moved on", true));
    let mut stream = request(None, JSON, "no JSON");
    stream.headers_mut().insert("x-stream", HeaderValue::from_static("1"));
    assert_eq!(lab.send(stream).await.text(), "effect 2");
    let missing = Lab::counting(layer().key_from(in_meta()).require_key(true)).send(call(None, None, 5)).await;
    assert!(missing.text().contains("json:/params/_meta/key"), "{}", missing.text());
}

/// A charge behind a layer that looks into bodies, behind another layer.
fn behind(outer: IdempotencyLayer<MemoryStore>, inner: IdempotencyLayer<MemoryStore>) -> Lab {
    let effects = Arc::new(AtomicUsize::new(0));
    let charge = move || async move { format!("effect {}", effects.fetch_add(1, Ordering::SeqCst) + 1) };
    Lab::of(Router::new().fallback(any(charge)).layer(inner).layer(outer))
}

#[tokio::test]
async fn the_layer_inside_lets_the_call_of_the_layer_outside_through() {
    let store = MemoryStore::new();
    let layers = || IdempotencyLayer::new(store.clone()).key_from(in_meta());
    let lab = behind(layers(), layers());
    for is_replay in [false, true] {
        let answer = lab.send(call(None, Some("k"), 5)).await;
        assert_eq!((answer.text(), answer.is_replay()), ("effect 1", is_replay));
    }
    assert_eq!(layers().stats().recorded, 1);
}

#[tokio::test]
async fn a_key_in_the_header_hides_none_in_the_body_from_the_layer_inside() {
    let store = MemoryStore::new();
    let by_header = IdempotencyLayer::new(store.clone());
    let lab = behind(by_header.clone(), by_header.key_from(in_meta()));
    assert_eq!(lab.send(call(Some("k"), Some("k"), 5)).await.text(), "effect 1");
    let differ = lab.send(call(Some("a"), Some("k"), 5)).await;
    assert_eq!(differ.status, 422, "{}", differ.text());
}

#[tokio::test]
async fn a_duplicate_waits_for_the_run_of_the_same_call() {
    let (lab, gate) = Lab::gated(layer().key_from(in_meta()));
    let first = lab.spawn(call(None, Some("k"), 5));
    gate.arrival().await;
    let mut waits = Box::pin(lab.send(call(None, Some("k"), 5)));
    assert!(at_once(&mut waits).is_none(), "it waits");
    gate.open();
    let (first, second) = (first.await.unwrap(), waits.await);
    assert_eq!((first.text(), second.text(), second.is_replay()), ("effect 1", "effect 1", true));
}

/// The member that a token of a pointer names, read from left to right (RFC 6901, sections 3 and 4).
fn member(token: &str) -> String {
    let mut chars = token.chars();
    let mut member = String::new();
    while let Some(char) = chars.next() {
        member.push(match char {
            '~' if chars.next() == Some('1') => '/',
            other => other,
        });
    }
    member
}

// Each token of three parts, with what is escaped in each order. Seeded faults: `~0` is replaced before `~1`; a member
// with a `~` is not found, and each retry runs.
#[tokio::test]
async fn a_pointer_names_a_member_whatever_is_escaped_in_it() {
    const PARTS: [&str; 5] = ["~0", "~1", "0", "1", ""];
    assert_eq!(["~01", "a~1b", "a~0b", "~10", "~0~1"].map(member), ["~1", "a/b", "a~b", "/0", "~/"]);
    for first in PARTS {
        for second in PARTS {
            for third in PARTS {
                let token = [first, second, third].concat();
                let (pointer, member) = (format!("/{token}"), member(&token));
                let body = |value: &str| format!(r#"{{"{member}":"{value}","amount":5}}"#);
                let lab = Lab::counting(layer().key_from(KeyFrom::json_pointer(&pointer).unwrap()));
                for is_replay in [false, true] {
                    let answer = lab.send(request(None, JSON, body("k"))).await;
                    assert_eq!((answer.text(), answer.is_replay()), ("effect 1", is_replay), "{pointer}");
                }
                // A pointer to what is left out of the fingerprint is read alike.
                let without = FingerprintBody::json_without([&*pointer]).unwrap();
                let lab = Lab::counting(layer().fingerprint_body(without));
                lab.send(request(Some("k"), JSON, body("one"))).await;
                assert!(lab.send(request(Some("k"), JSON, body("other"))).await.is_replay(), "{pointer}");
            }
        }
    }
}
