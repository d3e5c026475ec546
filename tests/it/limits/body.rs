//! A request's body is read within bounds and before any claim: too long, cut off or slow, it is refused, holds no key
//! and never runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use testkit::Gate;
use testkit::lab::{Lab, frames, post};
use tower_idempotency::test_util::TestStore;
use tower_idempotency::{IdempotencyLayer, MemoryStore};

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

#[tokio::test]
async fn trap_35_a_slow_upload_holds_no_key() {
    let store = MemoryStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    let gate = Gate::default();
    let slow = {
        let gate = gate.clone();
        let upload = async move {
            gate.pass().await;
            Ok::<_, std::io::Error>("a")
        };
        post("k", Body::from_stream(futures_util::stream::once(upload)))
    };
    let slow = lab.spawn(slow);
    gate.arrival().await;
    assert!(store.is_empty(), "nothing is claimed while the body is read");
    let quick = lab.post("k", "a").await;
    assert_eq!((quick.text(), quick.is_replay()), ("effect 1", false));
    gate.open();
    assert!(slow.await.unwrap().is_replay());

    let aborted = lab.send(post("broken", frames([Ok("a"), Err("reset")]))).await;
    aborted.assert_refusal(400, "body-incomplete", true, None);
    assert_eq!((lab.effects(), store.len()), (1, 1));
}

#[tokio::test]
async fn trap_36_an_endless_body_is_refused_at_the_limit_before_any_claim() {
    let store = MemoryStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()).max_request_body(10));
    let read = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&read);
    let endless = futures_util::stream::repeat_with(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok::<_, std::io::Error>("four")
    });
    lab.send(post("k", Body::from_stream(endless))).await.assert_refusal(413, "body-too-large", false, None);
    let beyond = (8 << 20) / 4 + 1;
    assert_eq!(read.load(Ordering::SeqCst), 3 + beyond, "frames of four bytes: up to the limit, and then 8 MiB");
    assert_eq!((lab.effects(), store.len()), (0, 0));
}

#[tokio::test]
async fn trap_37_a_body_over_the_limit_is_refused_and_never_runs_unprotected() {
    let lab = Lab::counting(IdempotencyLayer::new(TestStore::new()).max_request_body(3).fail_open(true));
    lab.post("k", "four").await.assert_refusal(413, "body-too-large", false, None);
    lab.send(post("k", frames([Ok("fo"), Ok("ur")]))).await.assert_refusal(413, "body-too-large", false, None);
    assert_eq!(lab.effects(), 0);
}
