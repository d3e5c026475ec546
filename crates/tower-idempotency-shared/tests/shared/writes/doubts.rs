//! Writes whose result is not known yet, and the answers meanwhile.

use std::time::Duration;

use futures_util::future::join_all;
use testkit::lab::listed::interrupted;
use testkit::lab::steps::{Claimed, Steps as _, Wish, wish};
use testkit::lab::{at_once, charge_print, id, post};
use tower_idempotency::internals::{ClaimPolicy, Records as _, Reply, Transition};
use tower_idempotency::store::StoreError;
use tower_idempotency::{Fingerprint, OnInterrupted, RecordId};
use tower_idempotency_conformance::memory_backend::{Call, FaultRates, Replication};
use tower_idempotency_shared::Kind;

use crate::world::{Effects, LEASE, two, until_over};

/// No fault at all.
const NONE: FaultRates =
    FaultRates { refuse: 0, lose_call: 0, lose_answer: 0, late: 0, double: 0, deliver: 0, delay: Duration::ZERO };

// A seeded fault: the write that blocks the claim is given up when the database refuses it once.
#[tokio::test(start_paused = true)]
async fn a_claim_that_is_late_does_nothing_though_the_database_refused_what_is_put_in_its_way() {
    let [(here, one), (_, other)] = two().await;
    let effects = Effects::default();
    here.fail_at_random(1, FaultRates { late: 1_000, ..NONE });
    let claim = effects.server(&one, OnInterrupted::Refuse).spawn(post("k", "a"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(here.late() > 0, "copies of the claim are on their way");
    // Over the end of the claim's timeout.
    here.fail_at_random(1, FaultRates { refuse: 1_000, ..NONE });
    assert!(!claim.await.unwrap().status.is_success());
    tokio::time::sleep(Duration::from_secs(3)).await;
    here.fail_no_more();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(here.deliver_late() > 0);
    let kinds = |kind| here.database().rows("").iter().filter(|row| row.id == id("k") && row.kind == kind).count();
    assert_eq!((kinds(Kind::Running), kinds(Kind::Released), effects.count()), (0, 1, 0));
    assert_eq!(effects.server(&other, OnInterrupted::Refuse).post("k", "a").await.text(), "effect 1");
}

// A seeded fault: claims are taken however many writes have no answer.
#[tokio::test(start_paused = true)]
async fn claims_are_refused_at_once_while_very_many_writes_have_no_answer() {
    const BEHIND: usize = 4_096;
    let [(here, one), _] = two().await;
    let held = here.hold(Call::Put);
    let mut id = [0; 32];
    let (mut waiting, mut refused) = (Vec::new(), 0);
    for number in 0..BEHIND as u64 + 104 {
        id[..8].copy_from_slice(&number.to_be_bytes());
        let claim = Wish::new(RecordId::from_bytes(id), Fingerprint::of(b"m")).claim();
        let mut claiming = Box::pin(one.apply(RecordId::from_bytes(id), Transition::Claim(claim)));
        match at_once(&mut claiming) {
            None => waiting.push(claiming),
            Some(Err(StoreError::Overloaded { .. })) => refused += 1,
            Some(other) => panic!("{other:?}"),
        }
    }
    assert_eq!((waiting.len(), refused), (BEHIND, 104));
    held.release();
    for answer in join_all(waiting).await {
        assert_eq!(answer.unwrap().reply, Reply::Taken);
    }
    // What ended is not counted any more.
    assert!(one.claim(wish("k")).await.is_ok());
}

// A seeded fault: another process's record is kept in memory before the barrier of its replay.
#[tokio::test(start_paused = true)]
async fn a_second_retry_is_not_told_either_what_may_not_be_durable() {
    let [(_, one), (there, other)] = two().await;
    let effects = Effects::default();
    assert_eq!(effects.server(&one, OnInterrupted::Refuse).post("k", "a").await.text(), "effect 1");
    there.database().restart();
    let elsewhere = effects.server(&other, OnInterrupted::Refuse);
    let claim = there.hold(Call::Put);
    let first = elsewhere.spawn(post("k", "a"));
    claim.wait_until_held(1).await;
    claim.release();
    // The barrier before the replay is held up.
    let barrier = there.hold(Call::Put);
    let refused = first.await.unwrap();
    assert!(!refused.status.is_success(), "{refused:?}");
    let refused = elsewhere.post("k", "a").await;
    assert!(!refused.status.is_success(), "{refused:?}");
    barrier.release();
    until_over().await;
    assert!(elsewhere.post("k", "a").await.is_replay());
    assert_eq!(effects.count(), 1);
}

// A seeded fault: the step is refused by what this process remembers of the row.
#[tokio::test(start_paused = true)]
async fn a_step_is_not_refused_by_a_row_that_another_process_has_changed_since() {
    let [(_, one), (_, other)] = two().await;
    let claimed = testkit::lab::hold(&one, "k").await;
    assert_eq!(one.interrupt(id("k"), claimed.fence).await.unwrap(), Reply::Taken);
    // It asks, and its question ends by itself.
    let first = one.inquire(id("k"), claimed.fence).await.unwrap().expect("it may ask");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let second = other.inquire(id("k"), first).await.unwrap().expect("the first question is over");
    let forget = tower_idempotency::internals::Resolution::Release;
    assert_eq!(one.settle(id("k"), second, forget).await.unwrap(), Reply::Taken);
}

// A seeded fault: it is released, as a claim of a free key is.
#[tokio::test(start_paused = true)]
async fn an_operation_that_was_taken_over_for_nobody_stays_interrupted() {
    let [(_, one), (_, other)] = two().await;
    let claimed = testkit::lab::hold(&one, "k").await;
    assert_eq!(one.interrupt(id("k"), claimed.fence).await.unwrap(), Reply::Taken);
    drop(other.reclaim(wish("k"), claimed.fence));
    tokio::time::sleep(LEASE).await;
    let listed = interrupted(&other, 9).await;
    let runs: Vec<_> = listed.iter().map(|run| (run.id, run.attempt)).collect();
    assert_eq!(runs, [(id("k"), 2)], "it was taken, and given back");
}

// A seeded fault: the record is made anew under the policy of the layer that met the claim.
#[tokio::test(start_paused = true)]
async fn a_claim_that_a_failover_lost_while_it_was_ended_keeps_the_policy_under_which_it_was_made() {
    let [(here, one), _] = two().await;
    here.database().replication(Replication::Behind);
    let fingerprint = charge_print(&id("k")).with_credentials().finish();
    let claimed = one.claim(Wish { fingerprint, policy: ClaimPolicy::Refuse, ..wish("k") }).await.unwrap();
    assert!(matches!(claimed, Claimed::Fresh(_)), "{claimed:?}");
    let effects = Effects::default();
    let claims = here.hold_answers(Call::Put);
    let retry = effects.server(&one, OnInterrupted::Rerun).spawn(post("k", "a"));
    claims.wait_until_held(1).await;
    // What is written next ends the first claim, of which no run is left.
    here.database().fail_over();
    here.database().replication(Replication::InStep);
    claims.release();
    retry.await.unwrap().assert_refusal(409, "outcome-unknown", false, None);
    assert_eq!(effects.count(), 0);
}

// A seeded fault: it is answered with the result of the first one.
#[tokio::test(start_paused = true)]
async fn an_end_that_is_told_while_another_one_is_under_way_has_an_answer_of_its_own() {
    let [(here, one), _] = two().await;
    let claimed = testkit::lab::hold(&one, "k").await;
    let held = here.hold(Call::Put);
    let store = one.clone();
    let outcome = testkit::lab::done(claimed, "outcome", LEASE);
    let completing = tokio::spawn(async move { store.complete(outcome).await });
    held.wait_until_held(1).await;
    let releasing = tokio::spawn(async move { one.release(id("k"), claimed.fence).await });
    held.wait_until_held(2).await;
    held.release();
    assert_eq!(completing.await.unwrap().unwrap(), Reply::Taken);
    assert_eq!(releasing.await.unwrap().unwrap(), Reply::Refused);
}
