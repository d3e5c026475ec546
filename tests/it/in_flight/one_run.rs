//! However many requests come at once, on however many connections and through however many layers, one runs (promise
//! 1).

use futures_util::future::join_all;
use testkit::lab::disk::Disk;
use testkit::lab::operator::Operated as _;
use testkit::lab::steps::{Claimed, Steps as _, wish};
use testkit::lab::time::HOUR;
use testkit::lab::{Lab, gated, on_disk, post};
use testkit::{Gate, on_both};
use tower_idempotency::store::Store;
use tower_idempotency::test_util::TestStore;
use tower_idempotency::{IdempotencyLayer, MemoryStore, OnInFlight, SledStore};

async fn one_of_many_claims<St: Store + Clone>(store: St) {
    let claims = (0..32).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.claim(wish("k")).await.unwrap() })
    });
    let claimed: Vec<_> = join_all(claims).await.into_iter().map(Result::unwrap).collect();
    let fresh: Vec<_> = claimed.iter().filter(|claimed| matches!(claimed, Claimed::Fresh(_))).collect();
    let [Claimed::Fresh(winner)] = fresh[..] else { panic!("{} claims won", fresh.len()) };
    for loser in claimed.iter().filter(|claimed| matches!(claimed, Claimed::Held(_))) {
        let Claimed::Held(record) = loser else { continue };
        assert_eq!(record.fence, winner.fence, "a claim that lost is shown the one that won");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn trap_01_of_many_claims_at_once_one_is_given() {
    let (_directory, sled) = on_disk(SledStore::builder());
    one_of_many_claims(sled).await;
    #[cfg(feature = "fjall")]
    {
        let (_directory, fjall) = on_disk(tower_idempotency::FjallStore::builder());
        one_of_many_claims(fjall).await;
    }
    one_of_many_claims(MemoryStore::new()).await;
    one_of_many_claims(TestStore::new()).await;
}

on_both!(
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    trap_01_of_many_requests_at_once_one_runs
);
async fn trap_01_of_many_requests_at_once_one_runs<D: Disk>() {
    let (_directory, store) = on_disk(D::builder());
    let lab = Lab::counting(IdempotencyLayer::new(store));
    let answers = join_all((0..32).map(|_| lab.spawn(post("k", "a")))).await;
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert!(answers.iter().all(|answer| answer.text() == "effect 1"), "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| !answer.is_replay()).count(), 1);
    assert_eq!(lab.effects(), 1);
}

async fn racing_duplicates<St: Store>(store: St, rounds: usize) {
    let lab = Lab::counting(IdempotencyLayer::new(store));
    for round in 1..=rounds {
        let key = format!("k{round}");
        let answers = join_all((0..6).map(|_| lab.spawn(post(&key, "a")))).await;
        let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        assert!(answers.iter().all(|answer| answer.body == format!("effect {round}")), "{answers:?}");
        assert_eq!(answers.iter().filter(|answer| !answer.is_replay()).count(), 1);
        assert_eq!(lab.effects(), round, "one effect a key");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn trap_66_a_duplicate_that_comes_as_the_first_completes_does_not_run() {
    racing_duplicates(MemoryStore::new(), 400).await;
    racing_duplicates(TestStore::new(), 400).await;
    let (_directory, store) = on_disk(SledStore::builder());
    racing_duplicates(store, 100).await;
    #[cfg(feature = "fjall")]
    {
        let (_directory, store) = on_disk(tower_idempotency::FjallStore::builder());
        racing_duplicates(store, 100).await;
    }
}

on_both!(trap_67_two_layers_over_one_store_know_each_others_runs);
async fn trap_67_two_layers_over_one_store_know_each_others_runs<D: Disk>() {
    let (_directory, store) = on_disk(D::builder());
    let gate = Gate::default();
    let one = IdempotencyLayer::new(store.clone());
    let two = IdempotencyLayer::new(store).on_in_flight(OnInFlight::Reject).retention(HOUR);
    let (lab, other) = (gated(one.clone(), &gate), Lab::counting(two.clone()));
    let first = lab.spawn(post("k", "a"));
    gate.arrival().await;
    assert_eq!(other.post("k", "a").await.refusal(), (409, "in-flight".to_owned()));
    assert_eq!(two.interrupted(10).await.unwrap(), [], "a living run is not taken for dead");
    assert_eq!(two.stats().live, 1);
    gate.open();
    assert_eq!(first.await.unwrap().text(), "effect 1");
    assert!(other.post("k", "a").await.is_replay());
    assert_eq!((lab.effects(), other.effects()), (1, 0));
}
