//! Transactions of the application that belong to no run: bounded, durable, and done by the thread that does all other
//! writes.

use std::time::Duration;

use testkit::lab::disk::{Disk, DiskBuilder as _, Table as _, View as _};
use testkit::lab::steps::{Claimed, Steps as _, wish};
use testkit::lab::{Lab, done, hold, on_disk};
use testkit::on_both;
use tower_idempotency::internals::{Reply, Resolution};
use tower_idempotency::store::CommitError;
use tower_idempotency::store::{Abort, Health, StoreError, TransactionError};
use tower_idempotency::{IdempotencyLayer, OnInterrupted};

/// A store, and two tables of the application.
fn opened<D: Disk>() -> (tempfile::TempDir, D, [D::Table; 2]) {
    let (directory, store) = on_disk(D::builder());
    let tables = ["one", "two"].map(|name| store.table(name));
    (directory, store, tables)
}

type Never = CommitError<()>;

on_both!(what_it_writes_is_there_after_reopening_and_what_it_returns_is_told);
async fn what_it_writes_is_there_after_reopening_and_what_it_returns_is_told<D: Disk>() {
    let (directory, store, [one, two]) = opened::<D>();
    let written: Result<u64, Never> = store
        .transaction([&one, &two], |[one, two]| {
            let count =
                one.get(b"count")?.map_or(0, |count| u64::from_be_bytes(count.as_ref().try_into().unwrap())) + 1;
            one.insert(b"count", count.to_be_bytes())?;
            two.insert(b"k", b"v")?;
            Ok(count)
        })
        .await;
    assert_eq!(written.unwrap(), 1);
    drop((one, two));
    store.close().await.unwrap();
    let store = D::open(directory.path()).unwrap();
    assert_eq!(store.table("one").get(b"count").unwrap(), &1_u64.to_be_bytes()[..]);
    assert!(store.is_empty(), "it is no run's, and has no record");
}

on_both!(one_that_is_given_up_panics_or_writes_too_much_leaves_nothing);
async fn one_that_is_given_up_panics_or_writes_too_much_leaves_nothing<D: Disk>() {
    let (_directory, store, [one, _]) = opened::<D>();
    let aborted: Result<(), CommitError<&str>> = store
        .transaction([&one], |[one]| {
            one.insert(b"k", b"v")?;
            Err(Abort::Because("no"))
        })
        .await;
    assert!(matches!(aborted, Err(CommitError::Aborted("no"))), "{aborted:?}");
    let panicked: Result<(), Never> = store
        .transaction([&one], |[one]| {
            one.insert(b"k", b"v")?;
            panic!("on purpose")
        })
        .await;
    assert!(matches!(panicked, Err(CommitError::Panicked)), "{panicked:?}");
    let twice: Result<(), Never> = store.transaction([&one, &one], |_| Ok(())).await;
    assert!(matches!(twice, Err(CommitError::Trees(_))), "{twice:?}");
    assert!(one.is_empty());
    assert!(matches!(store.claim(wish("k")).await.unwrap(), Claimed::Fresh(_)), "the store works on");
}

/// A reason that panics when it is dropped.
struct Touchy;

impl Drop for Touchy {
    fn drop(&mut self) {
        panic!("on purpose")
    }
}

on_both!(a_reason_that_nobody_is_told_may_panic_when_it_is_dropped);
async fn a_reason_that_nobody_is_told_may_panic_when_it_is_dropped<D: Disk>() {
    let (_directory, store, [one, _]) = opened::<D>();
    let refused: Result<(), CommitError<Touchy>> = store
        .transaction([&one], |[one]| {
            let _overlooked = one.insert(vec![0; D::MAX_KEY + 1], b"v");
            Err(Abort::Because(Touchy))
        })
        .await;
    assert!(matches!(refused, Err(CommitError::Refused(TransactionError::TooLarge { what: "key", .. }))));
    assert!(matches!(store.claim(wish("k")).await.unwrap(), Claimed::Fresh(_)), "the store works on");
}

// fjall panics when it reads such a key, which would poison the store.
on_both!(a_key_that_is_too_long_to_be_there_can_be_asked_for_and_the_store_works_on);
async fn a_key_that_is_too_long_to_be_there_can_be_asked_for_and_the_store_works_on<D: Disk>() {
    let (_directory, store, [one, _]) = opened::<D>();
    let found: Result<_, CommitError<Never>> =
        store.transaction([&one], |[one]| Ok(one.get(vec![0; D::MAX_KEY + 1])?)).await;
    let is_refused = matches!(found, Err(CommitError::Refused(TransactionError::TooLarge { what: "key", limit, .. })) if limit == D::MAX_KEY);
    assert!(is_refused || matches!(found, Ok(None)), "{found:?}");
    assert!(matches!(store.claim(wish("k")).await.unwrap(), Claimed::Fresh(_)), "the store works on");
}

// "`TransactionTree::remove` counts nothing, an insert counts no overhead per entry."
on_both!(trap_86_many_tiny_keys_and_removals_are_counted_too);
async fn trap_86_many_tiny_keys_and_removals_are_counted_too<D: Disk>() {
    let (_directory, store, [one, _]) = opened::<D>();
    let inserted: Result<(), Never> = store
        .transaction([&one], |[one]| {
            (0..2_000_u16).try_for_each(|key| one.insert(key.to_be_bytes(), b""))?;
            Ok(())
        })
        .await;
    let removed: Result<(), Never> = store
        .transaction([&one], |[one]| {
            (0..2_000_u16).try_for_each(|key| one.remove(key.to_be_bytes()))?;
            Ok(())
        })
        .await;
    for refused in [inserted, removed] {
        let is_too_large = matches!(
            &refused,
            Err(CommitError::Refused(TransactionError::TooLarge { what: "transaction", limit: 131_072, .. }))
        );
        assert!(is_too_large, "{refused:?}");
    }
    assert!(one.is_empty());
}

on_both!(among_claims_and_outcomes_each_is_done_in_its_turn);
async fn among_claims_and_outcomes_each_is_done_in_its_turn<D: Disk>() {
    let (_directory, store, [one, _]) = opened::<D>();
    let mut held = Vec::new();
    for number in 0..50 {
        held.push(hold(&store, &format!("k{number}")).await);
    }
    let completing: Vec<_> =
        held.iter().map(|hold| store.complete(done(*hold, "done", Duration::from_secs(60)))).collect();
    let writing = (0..50_u64).map(|key| {
        store.transaction([&one], move |[one]| {
            one.insert(key.to_be_bytes(), b"written")?;
            Ok::<_, Abort<()>>(key)
        })
    });
    let written = futures_util::future::join_all(writing).await;
    assert!(written.into_iter().map(Result::unwrap).eq(0..50));
    for completed in futures_util::future::join_all(completing).await {
        completed.unwrap();
    }
    assert_eq!((one.count(""), store.len()), (50, 50));
}

on_both!(neither_with_tables_of_another_database_nor_in_a_closed_store);
async fn neither_with_tables_of_another_database_nor_in_a_closed_store<D: Disk>() {
    let (_directory, store, [one, two]) = opened::<D>();
    drop((one, two));
    let (_elsewhere, kept) = D::elsewhere();
    let foreign: Result<(), Never> = store.transaction([&kept], |_| Ok(())).await;
    assert!(matches!(foreign, Err(CommitError::Trees(_))), "{foreign:?}");
    store.close().await.unwrap();
    let closed: Result<(), Never> = store.transaction([&kept], |_| Ok(())).await;
    assert!(matches!(closed, Err(CommitError::Store(StoreError::Unavailable { .. }))), "{closed:?}");
}

on_both!(with_less_free_than_is_to_be_left_new_keys_are_refused_and_outcomes_recorded);
async fn with_less_free_than_is_to_be_left_new_keys_are_refused_and_outcomes_recorded<D: Disk>() {
    for policy in [OnInterrupted::Refuse, OnInterrupted::Rerun] {
        let directory = tempfile::tempdir().unwrap();
        let store = D::open(directory.path()).unwrap();
        let lab = Lab::counting(IdempotencyLayer::new(store.clone()).on_interrupted(policy));
        assert_eq!(lab.post("before", "a").await.text(), "effect 1");
        let held = hold(&store, "under way").await;
        drop(lab);
        // The store has the same records, and all of the disk is to be left free.
        store.close().await.unwrap();
        let store = D::builder().min_free_space(u64::MAX).open(directory.path()).unwrap();
        store.sync().await.unwrap();
        let lab = Lab::counting(IdempotencyLayer::new(store.clone()).on_interrupted(policy).fail_open(true));
        lab.post("new", "a").await.assert_refusal(503, "store-full", true, None);
        assert!(lab.post("before", "a").await.is_replay());
        assert_eq!(lab.effects(), 0);
        let resolution = Resolution::Outcome("done".into());
        assert_eq!(store.settle(held.id, held.fence, resolution).await.unwrap(), Reply::Taken);
    }
}

/// A key that panics when it is dropped.
struct TouchyKey(Touchy);

impl AsRef<[u8]> for TouchyKey {
    fn as_ref(&self) -> &[u8] {
        let Self(Touchy) = self;
        b"k"
    }
}

// "The application's key is converted and dropped as if that were sled's doing."
on_both!(a_key_that_panics_is_the_closure_s_panic_and_not_the_database_s);
async fn a_key_that_panics_is_the_closure_s_panic_and_not_the_database_s<D: Disk>() {
    let (_directory, store, [one, _]) = opened::<D>();
    let read: Result<(), Never> = store
        .transaction([&one], |[one]| {
            one.get(TouchyKey(Touchy))?;
            Ok(())
        })
        .await;
    assert!(matches!(read, Err(CommitError::Panicked)), "{read:?}");
    assert_eq!(store.health(), Health::Good);
}

on_both!(what_a_closure_throws_may_panic_when_it_is_dropped);
async fn what_a_closure_throws_may_panic_when_it_is_dropped<D: Disk>() {
    let (_directory, store, [one, _]) = opened::<D>();
    let thrown: Result<(), Never> = store.transaction([&one], |_| std::panic::panic_any(Touchy)).await;
    assert!(matches!(thrown, Err(CommitError::Panicked)), "{thrown:?}");
    assert_eq!(store.health(), Health::Good);
    assert!(matches!(store.claim(wish("k")).await.unwrap(), Claimed::Fresh(_)), "the store works on");
}
