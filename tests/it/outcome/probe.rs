//! A client may look: a probe gets what a retry would get, and never runs, whatever it meets.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::routing::any;
use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use testkit::client::Answer;
use testkit::lab::disk::Disk;
use testkit::lab::operator::answer;
use testkit::lab::steps::{Claimed, Steps as _, Wish};
use testkit::lab::{Lab, at_once, effect, id, layer, on_disk, post, settle};
use testkit::on_both;
use tokio::sync::Semaphore;
use tower::limit::ConcurrencyLimitLayer;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_idempotency::engine::{ClaimPolicy, Reconciled, Reconciler};
use tower_idempotency::internals::Records as _;
use tower_idempotency::operations::{Applied, Change};
use tower_idempotency::server::Replay;
use tower_idempotency::store::Store;
use tower_idempotency::test_util::{StoreCall, TestStore};
use tower_idempotency::{
    Fingerprint, IdempotencyContext, IdempotencyLayer, MemoryStore, OnInterrupted, Rejection, RejectionKind, Scope,
};

/// The request, as a probe with this value.
fn probe_as(value: &str, mut request: Request<Body>) -> Request<Body> {
    request.headers_mut().insert("idempotency-probe", value.parse().unwrap());
    request
}

fn probe(request: Request<Body>) -> Request<Body> {
    probe_as("?1", request)
}

/// The request, with these credentials.
fn by(client: &str, mut request: Request<Body>) -> Request<Body> {
    request.headers_mut().insert("authorization", client.parse().unwrap());
    request
}

fn assert_not_found(answer: &Answer) {
    answer.assert_refusal(404, "not-found", true, None);
    // A request that is still on its way may arrive later.
    assert_eq!(answer.header("idempotency-effect"), Some("unknown;retry"));
}

on_both!(a_probe_gets_what_a_retry_would_get_and_never_runs);

async fn a_probe_gets_what_a_retry_would_get_and_never_runs<D: Disk>() {
    let (_directory, store) = on_disk(D::builder());
    each_state(store).await;
}

#[tokio::test]
async fn a_probe_in_memory_gets_what_a_retry_would_get_and_never_runs() {
    each_state(MemoryStore::new()).await;
}

async fn each_state<St: Store + Clone>(store: St) {
    let layer = IdempotencyLayer::new(store);
    let (lab, gate) = Lab::gated(layer.clone());
    assert_not_found(&lab.send(probe(post("k", "a"))).await);
    let first = lab.spawn(post("k", "a"));
    gate.arrival().await;
    lab.send(probe(post("k", "a"))).await.assert_refusal(409, "in-flight", true, Some("1"));
    lab.send(probe(post("k", "b"))).await.assert_refusal(422, "key-reused", false, None);
    gate.open();
    let first = first.await.unwrap();
    let replay = lab.send(probe(post("k", "a"))).await;
    assert_eq!((replay.text(), replay.is_replay(), replay.status), (first.text(), true, first.status));
    lab.send(probe(post("k", "b"))).await.assert_refusal(422, "key-reused", false, None);

    let broken = lab.behind(layer.clone(), |_| async { StatusCode::BAD_GATEWAY });
    broken.post("cut", "a").await;
    broken.send(probe(post("cut", "a"))).await.assert_refusal(409, "outcome-unknown", false, None);
    let long = lab.behind(layer.clone(), |_| async { (StatusCode::CREATED, "a".repeat(2 << 20)) });
    long.post("long", "a").await;
    long.send(probe(post("long", "a"))).await.assert_refusal(409, "not-replayable", false, None);
    assert_eq!((lab.effects(), layer.stats().replays), (3, 1), "one run for each key");
    assert_not_found(&lab.send(probe(post("new", "a"))).await);
    assert_eq!(layer.stats().refused(RejectionKind::NotFound), 2);
    assert_eq!(lab.post("new", "a").await.text(), "effect 4", "the probe has left nothing behind");
}

#[tokio::test]
async fn a_probe_of_an_interrupted_operation_takes_no_step_that_a_retry_would_take() {
    let store = TestStore::new();
    let (lab, gate) = Lab::gated(IdempotencyLayer::new(store.clone()));
    let _cut = lab.spawn(post("k", "a"));
    gate.arrival().await;
    let store = store.reopen();
    let again = lab.behind(IdempotencyLayer::new(store.clone()).on_interrupted(OnInterrupted::Rerun), effect);
    let asked = Arc::new(AtomicUsize::new(0));
    let asks = Arc::clone(&asked);
    let reconciler = Reconciler::<Response<Body>>::new(move |_| {
        asks.fetch_add(1, Ordering::SeqCst);
        async { Reconciled::RunAgain }
    });
    let asking = lab.behind(IdempotencyLayer::new(store).reconcile_with(reconciler), effect);
    for lab in [&again, &asking, &asking] {
        let unknown = lab.send(probe(post("k", "a"))).await;
        assert_eq!(unknown.refusal(), (409, "outcome-unknown".to_owned()), "{}", unknown.text());
        assert_eq!((lab.effects(), asked.load(Ordering::SeqCst)), (1, 0));
    }
    assert_eq!(asking.post("k", "a").await.text(), "effect 2", "a retry runs");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

// A seeded fault: it gets what the store has. A power cut may take that back.
#[tokio::test]
async fn a_probe_learns_nothing_of_a_settlement_that_is_not_durable_yet() {
    let store = TestStore::new();
    let (lab, gate) = Lab::gated(IdempotencyLayer::new(store.clone()));
    let _cut = lab.spawn(post("k", "a"));
    gate.arrival().await;
    let store = store.reopen();
    let layer = IdempotencyLayer::new(store.clone());
    let again = lab.behind(layer.clone(), effect);
    let seen = layer.operations().inspect(id("k")).await.unwrap().unwrap();
    // The store has done the step, and has not said so.
    let held = store.hold_answers(StoreCall::Resolve);
    let operations = layer.operations();
    let settling = tokio::spawn(async move {
        let settled = Change::new(seen.id, seen.fence, answer("settled"));
        operations.by("alice").apply(settled).await.unwrap()
    });
    settle().await;
    assert_not_found(&again.send(probe(post("k", "a"))).await);
    held.release();
    assert_eq!(settling.await.unwrap(), Applied::Done);
    let settled = again.send(probe(post("k", "a"))).await;
    assert_eq!((settled.text(), settled.is_replay()), ("settled", true));
    assert_eq!(lab.effects(), 1);
}

/// The fingerprint of a request with the body `a`.
async fn fingerprint_of_a() -> Fingerprint {
    let store = TestStore::new();
    Lab::counting(IdempotencyLayer::new(store.clone())).post("k", "a").await;
    store.load(id("k")).await.unwrap().unwrap().fingerprint
}

#[tokio::test]
async fn a_probe_of_what_a_retry_would_run_again_says_so_and_does_not_run_it() {
    // As a server of a shared store leaves it that has died under `Rerun`.
    let store = MemoryStore::new();
    let wish = Wish { policy: ClaimPolicy::Rerun, ..Wish::new(id("k"), fingerprint_of_a().await) };
    let Claimed::Fresh(hold) = store.claim(wish).await.unwrap() else { panic!("it is new") };
    store.interrupt(hold.id, hold.fence).await.unwrap();
    let lab = Lab::counting(IdempotencyLayer::new(store).on_interrupted(OnInterrupted::Rerun));
    let unknown = lab.send(probe(post("k", "a"))).await;
    unknown.assert_refusal(409, "outcome-unknown", true, None);
    assert_eq!((unknown.header("idempotency-effect"), lab.effects()), (Some("unknown;retry"), 0));
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
}

#[tokio::test]
async fn a_run_that_has_left_its_record_as_running_is_no_request_in_flight() {
    let store = MemoryStore::new();
    let _left = store.claim(Wish::new(id("k"), fingerprint_of_a().await)).await.unwrap();
    let lab = Lab::counting(IdempotencyLayer::new(store));
    let unknown = lab.send(probe(post("k", "a"))).await;
    assert_eq!((unknown.refusal(), lab.effects()), ((409, "outcome-unknown".to_owned()), 0));
    assert_eq!(lab.post("k", "a").await.refusal(), (409, "outcome-unknown".to_owned()), "as a retry says");
}

#[tokio::test]
async fn a_stranger_gets_the_same_answer_whether_the_key_was_used_or_not() {
    let scoped = IdempotencyLayer::new(MemoryStore::new())
        .scope(|parts: &Parts| Scope::new(parts.headers["authorization"].as_bytes()).unwrap());
    for layer in [layer(), scoped] {
        let (lab, gate) = Lab::gated(layer);
        let own = lab.spawn(by("alice", post("k", "a")));
        gate.arrival().await;
        let unused = lab.send(probe(by("bob", post("unused", "a")))).await;
        assert_not_found(&unused);
        let while_it_runs = lab.send(probe(by("bob", post("k", "a")))).await;
        gate.open();
        own.await.unwrap();
        let once_it_is_done = lab.send(probe(by("bob", post("k", "a")))).await;
        let of_another_request = lab.send(probe(by("bob", post("k", "other")))).await;
        for seen in [while_it_runs, once_it_is_done, of_another_request] {
            assert_eq!((seen.status, seen.text()), (unused.status, unused.text()));
            let heads = [&seen, &unused].map(|answer| answer.header("idempotency-effect").map(str::to_owned));
            assert_eq!(heads[0], heads[1]);
        }
        assert_eq!(lab.send(probe(by("alice", post("k", "a")))).await.text(), "effect 1");
        assert_eq!(lab.effects(), 1);
    }
}

#[tokio::test]
async fn a_stranger_sees_no_claim_that_hangs_and_no_refusal_of_another_ones() {
    let store = TestStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    let stall = store.stall(StoreCall::Claim);
    let own = lab.spawn(by("alice", post("k", "a")));
    settle().await;
    let mut looks = Box::pin(lab.send(probe(by("bob", post("k", "a")))));
    assert_not_found(&at_once(&mut looks).expect("it does not wait for the claim"));
    stall.release();
    own.await.unwrap();
    store.fail_next(StoreCall::Load);
    assert_not_found(&lab.send(probe(by("bob", post("k", "a")))).await);
}

#[tokio::test]
async fn no_request_with_the_header_runs_that_has_no_key_or_is_not_covered() {
    let layer = layer().covers(|parts: &Parts| parts.uri.path() != "/free");
    let lab = Lab::counting(layer.clone());
    let keyless =
        |method: Method, path: &str| Request::builder().method(method).uri(path).body(Body::from("a")).unwrap();
    let keyed = |method: Method, path: &str| {
        let mut request = keyless(method, path);
        request.headers_mut().insert("idempotency-key", "k".parse().unwrap());
        request
    };
    let missing = lab.send(probe(keyless(Method::POST, "/charges"))).await;
    missing.assert_refusal(400, "key-missing", false, None);
    assert_eq!(missing.header("idempotency-effect"), Some("unknown;retry=?0"));
    // A key does not protect them, so no answer says to send the request again.
    let uncovered = [keyless(Method::POST, "/free"), keyed(Method::POST, "/free"), keyless(Method::DELETE, "/charges")];
    for request in uncovered.into_iter().chain([keyed(Method::PUT, "/charges")]) {
        let answer = lab.send(probe(request)).await;
        answer.assert_refusal(404, "not-found", false, None);
        assert_eq!(answer.header("idempotency-effect"), Some("unknown;retry=?0"));
    }
    for value in ["?2", "1", "true", ""] {
        assert_not_found(&lab.send(probe_as(value, post("k", "a"))).await);
    }
    assert_eq!(lab.effects(), 0);
    // A safe method changes nothing, and says itself what it does with the header; `?0` says that it is none.
    lab.send(probe(keyless(Method::GET, "/charges"))).await;
    lab.send(probe_as("?0", keyless(Method::POST, "/charges"))).await;
    lab.send(probe_as("?0", post("k", "a"))).await;
    assert_eq!(lab.effects(), 3);
}

#[tokio::test]
async fn a_handler_that_passes_its_head_on_with_the_header_does_not_run_again() {
    // The inner layer meets a probe within the exchange of the same operation.
    let store = MemoryStore::new();
    let inner = Lab::counting(IdempotencyLayer::new(store.clone()));
    let sends = inner.clone();
    let handler = move |request: Request<Body>| async move {
        let mut again = probe(post("k", "a"));
        again.extensions_mut().insert(request.extensions().get::<IdempotencyContext>().unwrap().clone());
        sends.send(again).await.status
    };
    let outer = Lab::of(Router::new().fallback(any(handler)).layer(IdempotencyLayer::new(store)));
    let answer = outer.send(post("k", "a")).await;
    assert_eq!((answer.status.as_u16(), inner.effects()), (409, 0), "it is in flight: {}", answer.text());
}

#[tokio::test]
async fn the_application_is_asked_before_a_probe_gets_a_replay() {
    let revoked = |_, _: Response<Bytes>| async { Replay::Refuse(Rejection::from(StatusCode::FORBIDDEN)) };
    let lab = Lab::counting(layer().on_replay(revoked));
    lab.post("k", "a").await;
    let refused = lab.send(probe(post("k", "a"))).await;
    assert_eq!((refused.status.as_u16(), lab.effects()), (403, 1));
    assert_eq!(refused.header("idempotency-effect"), Some("done;status=200;retry=?0"));
}

#[tokio::test]
async fn a_probe_blocks_no_request_and_takes_no_place_of_a_run() {
    let store = TestStore::new();
    let layer = IdempotencyLayer::new(store.clone()).max_runs(1);
    let lab = Lab::counting(layer.clone());
    let stall = store.stall(StoreCall::Load);
    let mut looks = Box::pin(lab.send(probe(post("k", "a"))));
    assert!(at_once(&mut looks).is_none(), "it waits for the store");
    assert_eq!(layer.stats().live, 0, "it is no run");
    stall.release();
    assert_not_found(&looks.await);
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
}

#[tokio::test]
async fn a_probe_that_the_store_does_not_answer_says_nothing_of_the_operation() {
    let store = TestStore::new();
    let scope = |parts: &Parts| Scope::new(parts.headers["authorization"].as_bytes()).unwrap();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()).scope(scope));
    let request = || by("alice", post("k", "a"));
    lab.send(request()).await;
    store.fail_next(StoreCall::Load);
    let refused = lab.send(probe(request())).await;
    refused.assert_refusal(503, "store-unavailable", true, Some("1"));
    // For a request, it is `none`: nothing was done for it. A client would take that for its charge.
    assert_eq!(refused.header("idempotency-effect"), Some("unknown;retry"));
    assert!(!refused.text().contains("Nothing was done"), "{}", refused.text());
    assert_eq!(lab.send(probe(request())).await.text(), "effect 1");
}

#[tokio::test]
async fn a_probe_keeps_no_place_of_the_service_while_the_application_is_asked() {
    let asks = Arc::new(Semaphore::new(0));
    let asked = Arc::clone(&asks);
    let layer = layer().on_replay(move |_, _| {
        let asks = Arc::clone(&asks);
        async move {
            asks.acquire().await.unwrap().forget();
            Replay::Give
        }
    });
    let charge = |_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::from("charged"))) };
    let service = layer.layer(ConcurrencyLimitLayer::new(1).layer(service_fn(charge)));
    service.clone().oneshot(post("k", "a")).await.unwrap();
    let mut looks = Box::pin(service.clone().oneshot(probe(post("k", "a"))));
    assert!(at_once(&mut looks).is_none(), "the application is asked");
    let other = service.oneshot(post("other", "a")).await.unwrap();
    assert_eq!(other.status(), StatusCode::OK);
    asked.add_permits(1);
    assert_eq!(looks.await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_request_that_says_that_it_is_no_probe_loses_a_context_that_was_copied() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&seen);
    let handler = move |request: Request<Body>| async move {
        let has_context = request.extensions().get::<IdempotencyContext>().is_some();
        counts.fetch_add(usize::from(has_context), Ordering::SeqCst);
    };
    let inner = Lab::of(Router::new().fallback(any(handler)).layer(layer()));
    let outer = move |request: Request<Body>| async move {
        let mut copy = Request::post("/charges").body(Body::from("a")).unwrap();
        copy.extensions_mut().insert(request.extensions().get::<IdempotencyContext>().unwrap().clone());
        inner.send(probe_as("?0", copy)).await.status
    };
    let outer = Lab::of(Router::new().fallback(any(outer)).layer(layer()));
    assert_eq!(outer.send(post("k", "a")).await.status, StatusCode::OK);
    assert_eq!(seen.load(Ordering::SeqCst), 0);
}

// Each two lines of the header, in each order. Seeded fault: the first line counts.
#[tokio::test]
async fn a_request_runs_only_if_each_line_of_the_header_says_that_it_is_no_probe() {
    const VALUES: [&str; 5] = ["?0", "?1", "?2", "?0, ?0", ""];
    let pairs = VALUES.iter().flat_map(|first| VALUES.map(|second| vec![*first, second]));
    for lines in pairs.chain([vec!["?0"; 3], vec!["?0", "?0", "?1"]]) {
        let lab = Lab::counting(layer());
        let mut request = post("k", "a");
        for line in &lines {
            request.headers_mut().append("idempotency-probe", line.parse().unwrap());
        }
        let answer = lab.send(request).await;
        let runs = lines.iter().all(|line| *line == "?0");
        assert_eq!(lab.effects(), usize::from(runs), "{lines:?}");
        if !runs {
            assert_not_found(&answer);
        }
    }
}
