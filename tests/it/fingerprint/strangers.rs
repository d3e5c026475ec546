//! A key reveals nothing: a client with other credentials gets one answer, byte for byte and without waiting, whatever
//! it asks for and whatever the state of the operation is. It changes nothing for the client that owns the key.

use std::collections::BTreeSet;

use axum::body::Body;
use http::header::HeaderName;
use http::{HeaderValue, Request};
use testkit::lab::time::{HOUR, SECOND};
use testkit::lab::{Lab, gated, keyed, post, settle};
use testkit::{Answer, Gate};
use tokio::time::Instant;
use tower_idempotency::engine::{Reconciled, Reconciler};
use tower_idempotency::test_util::{StoreCall, TestStore};
use tower_idempotency::{FingerprintBody, IdempotencyLayer, OnInFlight, OnInterrupted, Release};

type Layer = IdempotencyLayer<TestStore>;

fn alice() -> Request<Body> {
    by("Bearer alice", post("k", "a"))
}

fn by(authorization: &'static str, mut request: Request<Body>) -> Request<Body> {
    request.headers_mut().insert("authorization", HeaderValue::from_static(authorization));
    request
}

/// Alice's request, sent by others, and other requests with her key: all the tries that a stranger has.
fn tries() -> Vec<Request<Body>> {
    let with = |method: &str, uri: &str, kind: &str, body: &'static str| {
        keyed(method, uri, "k").header("content-type", kind).body(Body::from(body)).unwrap()
    };
    let requests = || {
        let mut host = post("k", "a");
        host.headers_mut().insert("host", HeaderValue::from_static("other.example"));
        [
            post("k", "a"),
            post("k", "b"),
            post("k", ""),
            keyed("PATCH", "/charges", "k").body("a".into()).unwrap(),
            with("POST", "/refunds", "text/plain", "a"),
            with("POST", "/charges?amount=1", "text/plain", "a"),
            with("POST", "/charges", "application/json", "{}"),
            host,
        ]
    };
    let mut both = post("k", "a");
    both.headers_mut().append("authorization", HeaderValue::from_static("Bearer alice"));
    both.headers_mut().append("authorization", HeaderValue::from_static("Bearer bob"));
    let bob = requests().map(|request| by("Bearer bob", request));
    bob.into_iter().chain(requests()).chain([both]).collect()
}

/// The bytes of an answer that a client sees.
fn bytes(answer: &Answer) -> String {
    format!("{} {:?} {:?} {:?}", answer.status, answer.headers, answer.body, answer.trailers)
}

/// Lets strangers try everything on layers with these options and with others, and returns what they see.
async fn strangers(layer: &Layer) -> BTreeSet<String> {
    let acme = || [HeaderName::from_static("acme-caller")];
    let layers = [
        layer.clone(),
        layer.clone().fingerprint_headers(acme()),
        layer.clone().fingerprint_body(FingerprintBody::CanonicalJson),
        layer.clone().credential_headers(acme()),
        layer.clone().credential_cookies(["sid"]),
    ];
    let mut seen = BTreeSet::new();
    for layer in layers {
        let lab = Lab::counting(layer);
        for request in tries() {
            let began = Instant::now();
            let answer = lab.send(request).await;
            answer.assert_refusal(422, "credentials-changed", false, None);
            assert_eq!(began.elapsed().as_millis(), 0, "of the paused clock: it did not wait");
            seen.insert(bytes(&answer));
        }
        assert_eq!(lab.effects(), 0);
    }
    seen
}

fn patient(store: &TestStore) -> Layer {
    IdempotencyLayer::new(store.clone()).on_in_flight(OnInFlight::Wait(HOUR))
}

/// Leaves Alice's operation interrupted.
async fn interrupted(store: &TestStore) {
    let lab = Lab::new(patient(store), |number| async move {
        assert_eq!(number, 0, "it panics");
        "never"
    });
    lab.send(alice()).await.assert_refusal(500, "outcome-unknown", false, None);
}

/// Leaves Alice's operation interrupted that may run again: its process has died.
async fn died(store: &TestStore) {
    let (gate, dies) = (Gate::default(), store.another_process());
    let run = gated(patient(&dies).on_interrupted(OnInterrupted::Rerun), &gate).spawn(alice());
    gate.arrival().await;
    dies.crash();
    run.abort();
}

fn found() -> Reconciler<http::Response<String>> {
    Reconciler::new(|_| async { Reconciled::Outcome(http::Response::new("found".to_owned())) })
}

#[tokio::test(start_paused = true)]
async fn a_stranger_sees_the_same_whatever_it_asks_for_and_whatever_became_of_the_operation() {
    let mut seen = BTreeSet::new();

    // The operation is in flight, here and in another process, and then completed.
    let (store, gate) = (TestStore::new(), Gate::default());
    let lab = gated(patient(&store), &gate);
    let first = lab.spawn(alice());
    gate.arrival().await;
    seen.extend(strangers(&patient(&store)).await);
    let other = store.another_process();
    seen.extend(strangers(&patient(&other)).await);
    gate.open();
    assert_eq!(first.await.unwrap().text(), "effect 1");
    seen.extend(strangers(&patient(&store)).await);
    seen.extend(strangers(&patient(&other)).await);
    assert!(lab.send(alice()).await.is_replay());
    // Also while the process shuts down.
    assert!(patient(&store).drain(SECOND).await.is_complete());
    seen.extend(strangers(&patient(&store)).await);
    assert_eq!(lab.effects(), 1);

    // Its answer could not be stored.
    let store = TestStore::new();
    let lab = Lab::counting(patient(&store).max_response_body(1));
    assert_eq!(lab.send(alice()).await.text(), "effect 1");
    assert_eq!(lab.send(alice()).await.problem(), "not-replayable");
    seen.extend(strangers(&patient(&store)).await);

    // It was interrupted, and a retry is refused, runs again, or is asked about.
    let store = TestStore::new();
    interrupted(&store).await;
    for layer in [patient(&store), patient(&store.another_process())] {
        let rerun = layer.clone().on_interrupted(OnInterrupted::Rerun);
        for layer in [layer.clone(), rerun, layer.reconcile_with(found())] {
            seen.extend(strangers(&layer).await);
        }
    }
    assert_eq!(Lab::counting(patient(&store)).send(alice()).await.problem(), "outcome-unknown");
    let rerun = patient(&store).on_interrupted(OnInterrupted::Rerun);
    assert!(patient(&store).drain(SECOND).await.is_complete());
    seen.extend(strangers(&rerun).await);

    // Only this process knows the end of the run.
    let store = TestStore::new();
    (0..100).for_each(|_| store.fail_next(StoreCall::Complete));
    let lab = Lab::counting(patient(&store));
    assert_eq!(lab.send(alice()).await.text(), "effect 1");
    seen.extend(strangers(&patient(&store)).await);

    assert_eq!(seen.len(), 1, "{seen:#?}");
}

// The layer can't distinguish the owner's first try from a retry with a renewed token, so the text has to be right for
// both: it must not state that an operation that was never tried may have taken place.
#[tokio::test]
async fn a_key_that_a_stranger_used_first_is_refused_without_a_word_of_an_operation() {
    let lab = Lab::counting(IdempotencyLayer::new(TestStore::new()));
    assert_eq!(lab.send(by("Bearer mallory", post("k", "a"))).await.text(), "effect 1");
    let owner = lab.send(alice()).await;
    owner.assert_refusal(422, "credentials-changed", false, None);
    let problem = owner.json();
    let detail = problem["detail"].as_str().unwrap();
    assert!(!detail.contains("may have taken place") && !detail.contains("same request"), "{detail}");
    for said in [
        "nothing was done for this request",
        "If you have sent this request with this key before",
        "Do not mint a new key",
        "If you have not, the key is another client's: use a new one.",
    ] {
        assert!(detail.contains(said), "{detail}");
    }
    assert!(!problem["title"].as_str().unwrap().contains("two tries"));
    let mut renewed = post("n", "a");
    renewed.headers_mut().insert("authorization", HeaderValue::from_static("Bearer alice"));
    assert_eq!(lab.send(renewed).await.text(), "effect 2", "as the text says");
}

#[tokio::test]
async fn with_the_credentials_of_the_record_the_reason_is_said() {
    let layer = IdempotencyLayer::new(TestStore::new());
    let lab = Lab::counting(layer.clone());
    assert_eq!(lab.send(alice()).await.text(), "effect 1");
    let other = lab.send(by("Bearer alice", post("k", "b"))).await;
    other.assert_refusal(422, "key-reused", false, None);
    let changed = Lab::counting(layer.fingerprint_body(FingerprintBody::CanonicalJson));
    changed.send(alice()).await.assert_refusal(409, "not-verifiable", false, None);
}

// The claim of a stranger's request meets the operation; a retry of its owner meets the stranger's slot meanwhile.
#[tokio::test]
async fn an_owner_that_meets_a_stranger_s_claim_is_told_to_come_again_and_not_that_the_outcome_is_unknown() {
    for runs_again in [true, false] {
        let store = TestStore::new().another_process();
        died(&store).await;
        let layer = IdempotencyLayer::new(store.clone());
        let layer = if runs_again { layer.on_interrupted(OnInterrupted::Rerun) } else { layer.reconcile_with(found()) };
        let lab = Lab::counting(layer);
        let stall = store.stall(StoreCall::Claim);
        let stranger = lab.spawn(by("Bearer mallory", post("k", "a")));
        settle().await;
        let owner = lab.spawn(alice());
        settle().await;
        stall.release();
        stranger.await.unwrap().assert_refusal(422, "credentials-changed", false, None);
        owner.await.unwrap().assert_refusal(409, "in-flight", true, Some("1"));
        assert_eq!(lab.send(alice()).await.text(), if runs_again { "effect 1" } else { "found" });
    }
    // If the layer can state no more than this, it states this.
    let store = TestStore::new().another_process();
    interrupted(&store).await;
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    let stall = store.stall(StoreCall::Claim);
    let stranger = lab.spawn(by("Bearer mallory", post("k", "a")));
    settle().await;
    let owner = lab.spawn(alice());
    settle().await;
    stall.release();
    stranger.await.unwrap().assert_refusal(422, "credentials-changed", false, None);
    owner.await.unwrap().assert_refusal(409, "outcome-unknown", false, None);
}

// While it is not known whose the operation is, the answer to a request beyond the bound says neither that it is its
// own nor that it is another's. Otherwise it would look for the end of the run in another process, as if the run was
// its own, and the owner would get `credentials-changed`.
#[tokio::test]
async fn strangers_that_take_all_places_to_wait_do_not_make_the_owner_a_stranger() {
    let store = TestStore::new();
    let (gate, other) = (Gate::default(), store.another_process());
    let elsewhere = gated(patient(&other), &gate);
    let first = elsewhere.spawn(alice());
    gate.arrival().await;
    let lab = Lab::counting(patient(&store));
    let stall = store.stall(StoreCall::Claim);
    let strangers: Vec<_> = (0..1_025).map(|_| lab.spawn(by("Bearer mallory", post("k", "a")))).collect();
    settle().await;
    let one_more = lab.spawn(by("Bearer mallory", post("k", "a")));
    settle().await;
    let owner = lab.spawn(alice());
    settle().await;
    one_more.await.unwrap().assert_refusal(503, "overloaded", true, Some("2"));
    owner.await.unwrap().assert_refusal(503, "overloaded", true, Some("2"));
    stall.release();
    for stranger in strangers {
        stranger.await.unwrap().assert_refusal(422, "credentials-changed", false, None);
    }
    let owner = lab.spawn(alice());
    settle().await;
    gate.open();
    assert_eq!(first.await.unwrap().text(), "effect 1");
    assert!(owner.await.unwrap().is_replay());
    assert_eq!((lab.effects(), elsewhere.effects()), (0, 1));
}

// An operation that a stranger's request begins after the owner's was released is the stranger's.
#[tokio::test]
async fn after_a_release_the_key_is_whoever_s_comes_first() {
    let lab = Lab::new(IdempotencyLayer::new(TestStore::new()), |number| async move {
        let answer = format!("effect {number}");
        if number == 1 { Err((Release, answer)) } else { Ok(answer) }
    });
    assert_eq!(lab.send(alice()).await.text(), "effect 1");
    assert_eq!(lab.send(by("Bearer mallory", post("k", "a"))).await.text(), "effect 2");
    lab.send(alice()).await.assert_refusal(422, "credentials-changed", false, None);
}
