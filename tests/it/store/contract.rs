//! The contract of `Store`, kept by every store: one test a promise, run over each.

use std::time::Duration;

use bytes::Bytes;
use testkit::lab::id;
use testkit::lab::steps::{Claimed, Steps as _, Wish};
use testkit::lab::time::HOUR;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::internals::{
    Applied, Completion, Fence, Hold, Record, Records as _, Reply, Resolution, RunResult, State, Transition,
};
use tower_idempotency::store::Page;
use tower_idempotency::test_util::{ManualClock, TestStore};
use tower_idempotency::{AnyStore, Fingerprint};
use tower_idempotency::{MemoryStore, SledStore};

fn wish(name: &str) -> Wish {
    Wish { interrupted_retention: HOUR * 2, ..Wish::new(id(name), Fingerprint::of(name.as_bytes())) }
}

fn done(hold: Hold, name: &str, outcome: impl Into<Bytes>) -> Completion {
    let result = RunResult::Outcome(outcome.into());
    Completion { hold, fingerprint: Fingerprint::of(name.as_bytes()), result, retention: HOUR }
}

async fn claim(store: &AnyStore, name: &str) -> Hold {
    match store.claim(wish(name)).await.unwrap() {
        Claimed::Fresh(hold) => hold,
        Claimed::Held(record) => panic!("held: {record:?}"),
    }
}

fn outcome(record: Option<Record>) -> Option<Bytes> {
    match record?.state {
        State::Completed { outcome } => Some(outcome),
        other => panic!("not completed: {other:?}"),
    }
}

/// Runs `test` over each store, each with a clock of its own.
async fn each<F: Future<Output = ()>>(test: impl Fn(AnyStore, ManualClock) -> F) {
    let clock = || ManualClock::new(Timestamp::from_millis(1_000_000));
    let time = clock();
    test(AnyStore::new(MemoryStore::builder().clock(time.clone()).build()), time).await;
    let time = clock();
    test(AnyStore::new(TestStore::with_clock(time.clone())), time).await;
    let directory = tempfile::tempdir().unwrap();
    for cache in [0, 1 << 20] {
        let time = clock();
        let builder = SledStore::builder().clock(time.clone()).outcome_cache_bytes(cache);
        let store = builder.open(directory.path().join(cache.to_string())).unwrap();
        test(AnyStore::new(store.clone()), time).await;
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn one_of_many_claims_is_fresh_and_the_others_are_told_what_is_there() {
    each(async |store, _| {
        let hold = claim(&store, "k").await;
        let Claimed::Held(record) = store.claim(wish("k")).await.unwrap() else { panic!("claimed twice") };
        assert_eq!(record.fence, hold.fence);
        assert_eq!(record.fingerprint, Fingerprint::of(b"k"));
    })
    .await;
}

#[tokio::test]
async fn an_outcome_of_any_size_comes_back_byte_for_byte() {
    each(async |store, _| {
        for size in [0, 1, 3_072, 3_073, 4_000, 8_000, 8_001, 1 << 20] {
            let name = format!("k{size}");
            let bytes: Bytes = (0..size).map(|byte: u32| byte.to_le_bytes()[0] ^ byte.to_le_bytes()[1]).collect();
            let hold = claim(&store, &name).await;
            assert_eq!(store.complete(done(hold, &name, bytes.clone())).await.unwrap(), Reply::Taken);
            assert_eq!(outcome(store.load(id(&name)).await.unwrap()), Some(bytes.clone()));
            let Claimed::Held(record) = store.claim(wish(&name)).await.unwrap() else { panic!("ran again") };
            assert_eq!(outcome(Some(record)), Some(bytes));
        }
    })
    .await;
}

#[tokio::test]
async fn trap_04_a_late_holder_neither_completes_nor_frees_what_is_anothers_now() {
    each(async |store, _| {
        let first = claim(&store, "k").await;
        assert_eq!(store.interrupt(first.id, first.fence).await.unwrap(), Reply::Taken);
        let second = store.reclaim(wish("k"), first.fence).await.unwrap().unwrap();
        assert!(second.fence > first.fence);
        assert_eq!(second.attempt, 2);
        assert_eq!(store.complete(done(first, "k", "late")).await.unwrap(), Reply::Refused);
        assert_eq!(store.release(first.id, first.fence).await.unwrap(), Reply::Refused);
        assert_eq!(store.complete(done(second, "k", "in time")).await.unwrap(), Reply::Taken);
        assert_eq!(outcome(store.load(first.id).await.unwrap()), Some(Bytes::from("in time")));
    })
    .await;
}

#[tokio::test]
async fn a_fence_grows_whatever_was_released_swept_or_expired() {
    each(async |store, clock| {
        let mut last = Fence(0);
        for round in 0..20 {
            let hold = claim(&store, "k").await;
            assert!(hold.fence > last, "{:?} after {last:?}", hold.fence);
            last = hold.fence;
            if round % 2 == 0 {
                store.release(hold.id, hold.fence).await.unwrap();
            } else {
                store.complete(done(hold, "k", "x")).await.unwrap();
                clock.advance(HOUR);
                if round % 4 == 1 {
                    assert_eq!(store.sweep(10).await.unwrap(), 1);
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn trap_02_retention_starts_at_completion_and_its_end_frees_the_key() {
    each(async |store, clock| {
        let hold = claim(&store, "k").await;
        clock.advance(HOUR * 100);
        assert_eq!(store.complete(done(hold, "k", "x")).await.unwrap(), Reply::Taken);
        clock.advance(HOUR - Duration::from_millis(1));
        assert!(store.load(hold.id).await.unwrap().is_some());
        clock.advance(Duration::from_millis(1));
        assert_eq!(store.load(hold.id).await.unwrap(), None);
        claim(&store, "k").await;
    })
    .await;
}

#[tokio::test]
async fn an_interrupted_operation_is_listed_until_somebody_settles_it() {
    each(async |store, clock| {
        for name in ["a", "b", "c"] {
            let hold = claim(&store, name).await;
            store.interrupt(hold.id, hold.fence).await.unwrap();
            clock.advance(Duration::from_secs(1));
        }
        let listed = store.interrupted(Page::first(10)).await.unwrap();
        assert_eq!(listed.iter().map(|record| record.id).collect::<Vec<_>>(), [id("a"), id("b"), id("c")]);
        assert_eq!(store.interrupted(Page::first(2)).await.unwrap(), listed[..2]);
        let [a, b, c] = listed[..] else { panic!("{listed:?}") };

        let resolution = Resolution::Outcome(Bytes::from("settled"));
        assert_eq!(store.settle(a.id, a.fence, resolution.clone()).await.unwrap(), Reply::Taken);
        assert_eq!(outcome(store.load(a.id).await.unwrap()), Some(Bytes::from("settled")));
        assert_eq!(store.settle(b.id, b.fence, Resolution::Forget).await.unwrap(), Reply::Taken);
        assert_eq!(store.load(b.id).await.unwrap(), None);
        let other = Fence(c.fence.0 + 1);
        assert_eq!(store.settle(c.id, other, Resolution::Forget).await.unwrap(), Reply::Refused);
        assert_eq!(store.interrupted(Page::first(10)).await.unwrap(), [c]);

        clock.advance(HOUR * 2);
        assert_eq!(store.interrupted(Page::first(10)).await.unwrap(), [], "past its retention");
        claim(&store, "c").await;
    })
    .await;
}

#[tokio::test]
async fn a_running_operation_is_neither_resolved_nor_reclaimed_nor_swept() {
    each(async |store, clock| {
        let hold = claim(&store, "k").await;
        clock.advance(HOUR * 10_000);
        assert_eq!(store.settle(hold.id, hold.fence, Resolution::Forget).await.unwrap(), Reply::Refused);
        assert_eq!(store.reclaim(wish("k"), hold.fence).await.unwrap(), None);
        assert_eq!(store.sweep(10).await.unwrap(), 0);
        assert_eq!(store.complete(done(hold, "k", "x")).await.unwrap(), Reply::Taken);
    })
    .await;
}

#[tokio::test]
async fn a_verb_takes_effect_when_it_is_called_though_nobody_polls_its_future() {
    each(async |store, _| {
        let hold = claim(&store, "k").await;
        drop(store.interrupt(hold.id, hold.fence));
        // Calls are done in order: once a later one is answered, this one was done.
        store.sweep(0).await.unwrap();
        assert_eq!(store.interrupted(Page::first(10)).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_sweep_deletes_at_most_its_limit_and_only_what_is_past_its_expiry() {
    each(async |store, clock| {
        for number in 0..10 {
            let name = format!("old{number}");
            let hold = claim(&store, &name).await;
            store.complete(done(hold, &name, vec![b'x'; 5_000])).await.unwrap();
        }
        clock.advance(HOUR / 2);
        let hold = claim(&store, "young").await;
        store.complete(done(hold, "young", "x")).await.unwrap();
        assert_eq!(store.sweep(100).await.unwrap(), 0);
        clock.advance(HOUR / 2);
        assert_eq!(store.sweep(4).await.unwrap(), 4);
        assert_eq!(store.sweep(100).await.unwrap(), 6);
        assert_eq!(store.sweep(100).await.unwrap(), 0);
        assert!(store.load(id("young")).await.unwrap().is_some());
    })
    .await;
}

#[tokio::test]
async fn a_claim_by_slot_completes_where_there_is_no_record_or_its_own_and_nowhere_else() {
    each(async |store, _| {
        let by_slot = Wish { may_repeat: true, ..wish("k") };
        let Claimed::Fresh(hold) = store.claim(by_slot).await.unwrap() else { panic!("held") };
        assert_eq!(store.complete(done(hold, "k", "x")).await.unwrap(), Reply::Taken);
        assert_eq!(outcome(store.load(hold.id).await.unwrap()), Some(Bytes::from("x")));
        let late = Hold { fence: Fence(hold.fence.0 + 1), ..hold };
        assert_eq!(store.complete(done(late, "k", "y")).await.unwrap(), Reply::Refused);
    })
    .await;
}

#[tokio::test]
async fn trap_74_a_question_takes_a_new_fence_and_changes_nothing_else() {
    each(async |store, clock| {
        let hold = claim(&store, "k").await;
        assert_eq!(store.inquire(hold.id, hold.fence).await.unwrap(), None, "it runs");
        store.interrupt(hold.id, hold.fence).await.unwrap();
        let listed = store.interrupted(Page::first(9)).await.unwrap().remove(0);
        clock.advance(HOUR);
        let first = store.inquire(hold.id, hold.fence).await.unwrap().unwrap();
        let second = store.inquire(hold.id, first).await.unwrap().unwrap();
        assert!(hold.fence < first && first < second);
        assert_eq!(store.inquire(hold.id, first).await.unwrap(), None, "another question is open now");
        let asked = store.interrupted(Page::first(9)).await.unwrap();
        assert_eq!((asked.len(), asked[0].fence), (1, second));
        assert_eq!(
            (asked[0].began, asked[0].since, asked[0].expires, asked[0].attempt),
            (listed.began, listed.since, listed.expires, 1)
        );
        // What is said under an older fence counts for nothing.
        let answer = |outcome: &'static str| Resolution::Outcome(outcome.into());
        for late in [hold.fence, first] {
            assert_eq!(store.settle(hold.id, late, answer("late")).await.unwrap(), Reply::Refused);
            assert!(store.reclaim(wish("k"), late).await.unwrap().is_none());
        }
        assert_eq!(store.settle(hold.id, second, answer("in time")).await.unwrap(), Reply::Taken);
        assert_eq!(outcome(store.load(hold.id).await.unwrap()), Some(Bytes::from("in time")));
        assert!(store.interrupted(Page::first(9)).await.unwrap().is_empty());
        clock.advance(HOUR);
        assert!(store.load(hold.id).await.unwrap().is_none());
        assert_eq!(store.inquire(hold.id, second).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_completion_that_is_sent_again_is_answered_with_what_is_stored() {
    each(async |store, _| {
        for (name, first) in [("short", Bytes::from("a")), ("in chunks", Bytes::from(vec![7; 5_000]))] {
            let hold = claim(&store, name).await;
            for sent in [first.clone(), Bytes::from("b"), Bytes::from(vec![8; 6_000]), first.clone()] {
                let transition = Transition::Complete(done(hold, name, sent));
                let Applied { reply, record } = store.apply(hold.id, transition).await.unwrap();
                assert_eq!((reply, outcome(record)), (Reply::Taken, Some(first.clone())));
                assert_eq!(outcome(store.load(hold.id).await.unwrap()), Some(first.clone()));
            }
        }
    })
    .await;
}
