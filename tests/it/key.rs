//! What a key is and which requests have one: a malformed key is refused, and what has none, or is not covered, passes
//! untouched (promises 7 and 8).

use axum::Router;
use axum::body::Body;
use axum::routing::any;
use bytes::Bytes;
use http::header::HeaderName;
use http::{Method, Request};
use testkit::lab::{Lab, keyed, layer, with};
use tower_idempotency::test_util::TestStore;
use tower_idempotency::{IdempotencyLayer, MemoryStore};

// Row: not covered (default: POST and PATCH are), or no key where none is required → passed through untouched.

#[tokio::test]
async fn a_method_that_is_not_covered_passes_through_untouched() {
    let store = MemoryStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
        let before = lab.effects();
        // A key that would be refused elsewhere is not even looked at.
        for key in ["k", "k", "not a key"] {
            let answer = lab.send(keyed(method, "/charges", key).body(Body::empty()).unwrap()).await;
            assert_eq!(answer.status, 200, "{method}");
            assert!(!answer.is_replay(), "{method}");
        }
        assert_eq!(lab.effects(), before + 3, "{method}");
    }
    assert!(store.is_empty());
}

#[tokio::test]
async fn post_and_patch_are_covered() {
    for method in ["POST", "PATCH"] {
        let lab = Lab::counting(IdempotencyLayer::new(MemoryStore::new()));
        for replayed in [false, true] {
            let answer = lab.send(keyed(method, "/charges", "k").body("a".into()).unwrap()).await;
            assert_eq!((answer.text(), answer.is_replay()), ("effect 1", replayed), "{method}");
        }
        assert_eq!(lab.effects(), 1);
    }
}

#[tokio::test]
async fn a_request_without_a_key_passes_through_untouched() {
    let store = MemoryStore::new();
    let length = |body: Bytes| async move { body.len().to_string() };
    let app = Router::new().route("/charges", any(length)).layer(IdempotencyLayer::new(store.clone()));
    let lab = Lab::of(app);
    for _ in 0..2 {
        // More than a keyed request may have.
        let body = vec![b'x'; 1024 * 1024 + 1];
        let answer = lab.send(Request::post("/charges").body(body.into()).unwrap()).await;
        assert_eq!((answer.text(), answer.is_replay()), ("1048577", false));
    }
    assert!(store.is_empty());
}

// Row: no key where `require_key` → 400 `key-missing`.

#[tokio::test]
async fn a_request_without_a_key_is_refused_where_one_is_required() {
    let lab = Lab::counting(IdempotencyLayer::new(MemoryStore::new()).require_key(true));
    let answer = lab.send(Request::post("/charges").body(Body::empty()).unwrap()).await;
    answer.assert_refusal(400, "key-missing", false, None);
    assert_eq!(lab.effects(), 0);
    assert_eq!(lab.send(Request::get("/charges").body(Body::empty()).unwrap()).await.status, 200);
}

// Row: more than one field line; bad quoted string; empty or blank; over 255 bytes; a byte outside the accepted set →
// 400 `key-malformed`.

#[tokio::test]
async fn a_malformed_key_is_refused() {
    let store = MemoryStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    let long = "k".repeat(256);
    for key in ["\"abc", "\"\"", "\"  \"", "", "  ", long.as_str(), "a b", "a,b", "a;b", "a\\b", "cl\u{e9}"] {
        let request = Request::post("/charges").header("idempotency-key", key.as_bytes());
        let answer = lab.send(request.body(Body::empty()).unwrap()).await;
        answer.assert_refusal(400, "key-malformed", false, None);
    }
    let twice = keyed("POST", "/charges", "k").header("idempotency-key", "k").body(Body::empty()).unwrap();
    lab.send(twice).await.assert_refusal(400, "key-malformed", false, None);
    assert_eq!(lab.effects(), 0);
    assert!(store.is_empty());
}

#[tokio::test]
async fn a_quoted_and_a_bare_key_are_one_key() {
    let lab = Lab::counting(IdempotencyLayer::new(MemoryStore::new()));
    assert_eq!(lab.post("\"abc\"", "a").await.text(), "effect 1");
    assert!(lab.post("abc", "a").await.is_replay());
    assert!(lab.post("\"abc\"; tries=2", "a").await.is_replay());
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn trap_19_a_malformed_non_ascii_or_doubled_key_is_refused_and_never_unprotected() {
    let store = TestStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store).fail_open(true));
    for key in ["", " ", "\u{1f4b3}", "cl\u{e9}", "\"open", "a,b", "two words"] {
        lab.send(with("idempotency-key", key)).await.assert_refusal(400, "key-malformed", false, None);
    }
    for second in ["k", "other", ""] {
        let doubled = keyed("POST", "/charges", "k").header("idempotency-key", second).body(Body::empty()).unwrap();
        lab.send(doubled).await.assert_refusal(400, "key-malformed", false, None);
    }
    assert_eq!(lab.effects(), 0);
}

#[tokio::test]
async fn trap_26_a_key_on_a_safe_method_is_neither_answered_nor_stored_nor_refused() {
    let store = MemoryStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()).require_key(true));
    lab.post("k", "a").await;
    for method in ["GET", "HEAD", "OPTIONS"] {
        for key in ["k", "not, a key"] {
            let answer = lab.send(keyed(method, "/charges", key).body(Body::empty()).unwrap()).await;
            assert_eq!((answer.status.as_u16(), answer.is_replay()), (200, false), "{method}");
        }
    }
    assert_eq!((lab.effects(), store.len()), (7, 1));
}

#[tokio::test]
async fn trap_34_the_same_request_under_another_key_is_another_intent() {
    let lab = Lab::counting(layer());
    assert_eq!(lab.post("k1", "a").await.text(), "effect 1");
    assert_eq!(lab.post("k2", "a").await.text(), "effect 2");
    assert_eq!(lab.post("K1", "a").await.text(), "effect 3", "keys are case-sensitive");
}

#[tokio::test]
async fn header_name_is_where_the_key_is_read() {
    let lab = Lab::counting(layer().header_name(HeaderName::from_static("x-request-key")));
    let request = || Request::post("/charges").header("x-request-key", "k").body(Body::empty()).unwrap();
    lab.send(request()).await;
    assert!(lab.send(request()).await.is_replay());
    for run in ["effect 2", "effect 3"] {
        assert_eq!(lab.post("k", "a").await.text(), run, "no key at all");
    }
}

#[tokio::test]
async fn methods_are_covered_as_named_but_safe_ones_and_connect_never() {
    let named = ["PUT", "GET", "HEAD", "OPTIONS", "TRACE", "CONNECT"].map(|name| name.parse::<Method>().unwrap());
    let lab = Lab::counting(layer().methods(named));
    let safe = ["GET", "HEAD", "OPTIONS", "TRACE"].map(|method| (method, 2));
    for (method, runs) in [("PUT", 1), ("POST", 2), ("CONNECT", 2)].into_iter().chain(safe) {
        let before = lab.effects();
        for _ in 0..2 {
            lab.send(keyed(method, "/charges", method).body(Body::empty()).unwrap()).await;
        }
        assert_eq!(lab.effects() - before, runs, "{method}");
    }
}

#[tokio::test]
async fn covers_says_which_requests_are_covered() {
    let lab = Lab::counting(layer().require_key(true).covers(|parts| parts.uri.path().starts_with("/charges")));
    for (path, runs) in [("/charges", 1), ("/search", 2)] {
        let before = lab.effects();
        for _ in 0..2 {
            lab.send(keyed("POST", path, path).body(Body::empty()).unwrap()).await;
        }
        assert_eq!(lab.effects() - before, runs, "{path}");
    }
    let keyless = |path| lab.send(Request::post(path).body(Body::empty()).unwrap());
    assert_eq!(keyless("/charges").await.problem(), "key-missing");
    assert_eq!(keyless("/search").await.status, 200);
}

#[tokio::test]
async fn require_key_and_strict_keys_refuse_what_they_say() {
    let lab = Lab::counting(layer().require_key(true).strict_keys(true));
    lab.send(Request::post("/").body(Body::empty()).unwrap()).await.assert_refusal(400, "key-missing", false, None);
    lab.post("bare", "a").await.assert_refusal(400, "key-malformed", false, None);
    assert_eq!(lab.effects(), 0);
    assert_eq!(lab.post("\"quoted\"", "a").await.text(), "effect 1");
}
