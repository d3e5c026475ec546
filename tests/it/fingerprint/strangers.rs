//! A key reveals nothing: a client with other credentials gets one answer, byte for byte and without waiting, whatever
//! it asks for and whatever the state of the operation is. It changes nothing for the client that owns the key.

use std::collections::BTreeSet;

use testkit::Gate;
use testkit::lab::strangers::{alice, by, found, interrupted, patient, strangers};
use testkit::lab::time::SECOND;
use testkit::lab::{Lab, gated, post};
use tower_idempotency::test_util::{StoreCall, TestStore};
use tower_idempotency::{FingerprintBody, IdempotencyLayer, OnInterrupted, Release};

#[tokio::test(start_paused = true)]
async fn a_stranger_sees_the_same_whatever_it_asks_for_and_whatever_became_of_the_operation() {
    let mut seen = BTreeSet::new();

    // The operation is in flight, and then completed.
    let (store, gate) = (TestStore::new(), Gate::default());
    let lab = gated(patient(&store), &gate);
    let first = lab.spawn(alice());
    gate.arrival().await;
    seen.extend(strangers(&patient(&store)).await);
    gate.open();
    assert_eq!(first.await.unwrap().text(), "effect 1");
    seen.extend(strangers(&patient(&store)).await);
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
    let rerun = patient(&store).on_interrupted(OnInterrupted::Rerun);
    for layer in [patient(&store), rerun.clone(), patient(&store).reconcile_with(found())] {
        seen.extend(strangers(&layer).await);
    }
    assert_eq!(Lab::counting(patient(&store)).send(alice()).await.problem(), "outcome-unknown");
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
    let renewed = by("Bearer alice", post("n", "a"));
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
