//! The decision table (DESIGN.md, section 4), first part: rows about what a request is and what is known of its key. How
//! runs end stands in `decision_table_runs.rs`, waiting in `decision_table_waiting.rs`, the store in
//! `decision_table_store.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use axum::Router;
use axum::body::Body;
use axum::routing::any;
use bytes::Bytes;
use common::lab::{Answer, Lab, foreign, frames, keyed, post};
use http::{Request, StatusCode};
use tower::ServiceExt as _;
use tower_idempotency::engine::{Effect, OnInterrupted};
use tower_idempotency::test_util::TestStore;
use tower_idempotency::{Fingerprint, IdempotencyLayer, Key, MemoryStore, Once, RecordId, Rejection, RejectionKind};

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

// Row: body over `max_request_body` (1 MiB) → 413 `body-too-large`, before any claim.

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_any_claim() {
    let store = MemoryStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    let mib = 1024 * 1024;
    lab.send(post("k", vec![b'x'; mib + 1])).await.assert_refusal(413, "body-too-large", false, None);
    let half: &'static str = "x".repeat(mib / 2).leak();
    lab.send(post("k", frames([Ok(half), Ok(half), Ok("x")]))).await.assert_refusal(413, "body-too-large", false, None);
    assert!(store.is_empty(), "nothing was claimed");
    assert_eq!(lab.effects(), 0);
    assert_eq!(lab.send(post("k", frames([Ok(half), Ok(half)]))).await.status, 200, "1 MiB itself is accepted");
    assert_eq!(lab.effects(), 1);
}

// Row: body cut off while it is read → the connection's own error; nothing claimed.

#[tokio::test]
async fn a_body_that_is_cut_off_claims_nothing() {
    let store = MemoryStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    let answer = lab.send(post("k", frames([Ok("ha"), Err("reset by peer")]))).await;
    answer.assert_refusal(400, "body-incomplete", true, None);
    assert!(store.is_empty());
    assert_eq!(lab.effects(), 0);
    assert_eq!(lab.send(post("k", frames([Ok("ha"), Ok("lf")]))).await.text(), "effect 1");
}

// hyper takes an HTTP/2 stream that was reset without an error for one that has ended.
#[tokio::test]
async fn a_body_shorter_than_its_request_declared_claims_nothing() {
    let store = MemoryStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    let declaring = |length: &str, body: &'static str| {
        let mut request = post("k", body);
        request.headers_mut().insert("content-length", length.parse().unwrap());
        request
    };
    lab.send(declaring("100", "amount=10")).await.assert_refusal(400, "body-incomplete", true, None);
    assert!(store.is_empty());
    assert_eq!(lab.send(declaring("11", "amount=1000")).await.text(), "effect 1");
}

#[tokio::test]
async fn a_body_that_a_limit_outside_cuts_off_is_too_large_and_claims_nothing() {
    let store = MemoryStore::new();
    let mut lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    lab.app = lab.app.layer(tower_http::limit::RequestBodyLimitLayer::new(4));
    let answer = lab.send(post("k", frames([Ok("123"), Ok("45")]))).await;
    answer.assert_refusal(413, "body-too-large", false, None);
    assert!(store.is_empty());
}

// Row: scope function fails → its rejection; there is no empty scope.

#[tokio::test]
async fn a_scope_that_fails_refuses_with_its_own_rejection() {
    let store = MemoryStore::new();
    let refuse = |_: &http::request::Parts| Err(Rejection::custom(StatusCode::UNAUTHORIZED, "No account", "Log in."));
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()).scope(refuse));
    let answer = lab.post("k", "a").await;
    answer.assert_refusal(401, "custom", false, None);
    assert_eq!(
        (answer.json()["title"].as_str(), answer.json()["detail"].as_str()),
        (Some("No account"), Some("Log in."))
    );
    assert_eq!(lab.effects(), 0);
    assert!(store.is_empty());
}

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
    let counts = layer.counts();
    assert_eq!((counts.runs, counts.replays, counts.live), (1, 3, 0));
}

#[tokio::test]
async fn a_quoted_and_a_bare_key_are_one_key() {
    let lab = Lab::counting(IdempotencyLayer::new(MemoryStore::new()));
    assert_eq!(lab.post("\"abc\"", "a").await.text(), "effect 1");
    assert!(lab.post("abc", "a").await.is_replay());
    assert!(lab.post("\"abc\"; tries=2", "a").await.is_replay());
    assert_eq!(lab.effects(), 1);
}

// Row: known key, other request → 422 `key-reused`.

#[tokio::test]
async fn a_known_key_with_another_request_is_refused() {
    let lab = Lab::counting(IdempotencyLayer::new(MemoryStore::new()));
    let original = || keyed("POST", "/charges?amount=1", "k").header("content-type", "application/json");
    assert_eq!(lab.send(original().body("a".into()).unwrap()).await.text(), "effect 1");
    let with = |method: &str, uri: &str, kind: &str, body: &'static str| {
        keyed(method, uri, "k").header("content-type", kind).body(Body::from(body)).unwrap()
    };
    let json = "application/json";
    let mut host = with("POST", "/charges?amount=1", json, "a");
    host.headers_mut().insert("host", "other.example".parse().unwrap());
    let others = [
        with("PATCH", "/charges?amount=1", json, "a"),
        with("POST", "/refunds?amount=1", json, "a"),
        with("POST", "/charges?amount=2", json, "a"),
        with("POST", "/charges?amount=1", "text/plain", "a"),
        with("POST", "/charges?amount=1", json, "b"),
        host,
    ];
    for other in others {
        lab.send(other).await.assert_refusal(422, "key-reused", false, None);
    }
    assert!(lab.send(original().body("a".into()).unwrap()).await.is_replay());
    assert_eq!(lab.effects(), 1);
}

// Row: known key, same request, only the credentials differ (no scope configured) → 422 `credentials-changed`; its text
// says: do not mint a new key.

#[tokio::test]
async fn a_retry_with_other_credentials_is_refused_and_warned_against_a_new_key() {
    for name in ["authorization", "cookie", "x-api-key", "proxy-authorization"] {
        let lab = Lab::counting(IdempotencyLayer::new(MemoryStore::new()));
        let with = |value: &str| keyed("POST", "/charges", "k").header(name, value).body(Body::from("a")).unwrap();
        assert_eq!(lab.send(with("alice")).await.text(), "effect 1");
        for stranger in [with("bob"), post("k", "a")] {
            let answer = lab.send(stranger).await;
            answer.assert_refusal(422, "credentials-changed", false, None);
            assert!(answer.json()["detail"].as_str().unwrap().contains("Do not mint a new key"), "{name}");
        }
        assert!(lab.send(with("alice")).await.is_replay());
        assert_eq!(lab.effects(), 1, "{name}");
    }
}

#[tokio::test]
async fn credentials_where_there_were_none_are_other_credentials() {
    let lab = Lab::counting(IdempotencyLayer::new(MemoryStore::new()));
    lab.post("k", "a").await;
    let request = keyed("POST", "/charges", "k").header("authorization", "Bearer 1").body(Body::from("a")).unwrap();
    lab.send(request).await.assert_refusal(422, "credentials-changed", false, None);
}

// Row: recorded under another fingerprint version or options → compared by the recorded ones; where that can't be done,
// 409 `not-verifiable`.

async fn plant(store: &MemoryStore, fingerprint: Fingerprint) {
    let id = RecordId::new(None, &Key::new("k").unwrap());
    let effect = |_| async { Ok::<_, Effect<std::io::Error>>(Bytes::from_static(b"recorded")) };
    Once::new(store.clone()).run(id, fingerprint, effect).await.unwrap();
}

#[tokio::test]
async fn a_record_of_another_version_or_of_other_options_is_not_verifiable() {
    for (version, options) in [(1, [0; 8]), (3, [0; 8]), (2, [7; 8])] {
        let store = MemoryStore::new();
        plant(&store, foreign(Fingerprint::builder().finish(), version, options)).await;
        let lab = Lab::counting(IdempotencyLayer::new(store));
        lab.post("k", "a").await.assert_refusal(409, "not-verifiable", false, None);
        assert_eq!(lab.effects(), 0);
    }
}

#[tokio::test]
async fn a_record_without_credentials_is_compared_without_them() {
    // What a layer with a scope would have recorded for the same record id.
    let store = MemoryStore::new();
    let request = Fingerprint::builder().field("method", b"POST").field("host", b"pay.example");
    plant(&store, request.field("target", b"/charges").field("body", b"a").finish()).await;
    let lab = Lab::counting(IdempotencyLayer::new(store));
    let request = |body| keyed("POST", "/charges", "k").header("cookie", "a=b").body(Body::from(body)).unwrap();
    lab.send(request("b")).await.assert_refusal(422, "key-reused", false, None);
    // Known for the same request; that its bytes are no answer is found out afterwards.
    lab.send(request("a")).await.assert_refusal(503, "store-unavailable", false, None);
    assert_eq!(lab.effects(), 0);
}

// Row: same request, done, outcome not storable → 409 `not-replayable`, original status as a member.

#[tokio::test]
async fn a_retry_of_what_could_not_be_stored_is_refused_with_the_original_status() {
    let layer = IdempotencyLayer::new(MemoryStore::new()).max_response_body(3);
    let lab = Lab::new(layer, |_| async { (StatusCode::CREATED, "four") });
    assert_eq!(lab.post("k", "a").await.text(), "four");
    let retry = lab.post("k", "a").await;
    retry.assert_refusal(409, "not-replayable", false, None);
    assert_eq!(retry.json()["original_status"], 201);
    lab.post("k", "b").await.assert_refusal(422, "key-reused", false, None);
    assert_eq!(lab.effects(), 1);
}

// Row: same request, interrupted → `Refuse` (default): 409 `outcome-unknown`, no `Retry-After`; `Rerun`: reclaimed, runs
// again. (`Reconcile`: a later issue.)

/// A store in which the run of key `k` was cut short by a crash, and the lab where that happened.
async fn crashed() -> (TestStore, Lab) {
    let store = TestStore::new();
    let (lab, gate) = Lab::gated(IdempotencyLayer::new(store.clone()));
    let request = lab.spawn(post("k", "a"));
    gate.arrival().await;
    let reopened = store.reopen();
    request.abort();
    (reopened, lab)
}

async fn done(number: usize) -> String {
    format!("effect {number}")
}

#[tokio::test]
async fn a_retry_after_a_crash_is_refused() {
    let (store, lab) = crashed().await;
    let lab = lab.behind(IdempotencyLayer::new(store), done);
    for _ in 0..2 {
        lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
    }
    lab.post("k", "b").await.assert_refusal(422, "key-reused", false, None);
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn under_rerun_a_retry_after_a_crash_runs_again() {
    let (store, lab) = crashed().await;
    let lab = lab.behind(IdempotencyLayer::new(store).on_interrupted(OnInterrupted::Rerun), done);
    lab.post("k", "b").await.assert_refusal(422, "key-reused", false, None);
    assert_eq!(lab.post("k", "a").await.text(), "effect 2");
    assert!(lab.post("k", "a").await.is_replay());
    assert_eq!(lab.effects(), 2);
}

// DESIGN.md, section 3, rule 3: a second layer inside an exchange of the same store passes through (trap 76).

#[tokio::test]
async fn a_layer_inside_another_over_the_same_store_passes_through() {
    let layer = IdempotencyLayer::new(MemoryStore::new());
    let mut lab = Lab::counting(layer.clone().methods([http::Method::POST]));
    lab.app = Router::new().fallback_service(lab.app).layer(layer.clone());
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    assert!(lab.post("k", "a").await.is_replay());
    assert_eq!((lab.effects(), layer.counts().runs), (1, 1));
}

// Below the table: refusals are responses, and the `Rejection` rides in their extensions.

#[tokio::test]
async fn a_refusal_carries_its_rejection_for_layers_outside() {
    let lab = Lab::counting(IdempotencyLayer::new(MemoryStore::new()));
    let response = lab.app.clone().oneshot(post("a,b", "a")).await.unwrap();
    let rejection = response.extensions().get::<Rejection>().unwrap().clone();
    assert_eq!((rejection.kind, rejection.status), (RejectionKind::KeyMalformed, StatusCode::BAD_REQUEST));
    assert_eq!(Answer::of(response).await.json()["detail"], rejection.detail);
}
