//! The contents of the store after transactions: many at once, in one batch with other calls before and after them,
//! over a record that has expired, in a store that is full. After each, records, indexes, chunks and totals match.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use testkit::lab::charges::{
    Commit, Committing, Delivered, Home, assert_receipt, blobs, busy, charge, charged, charges as table_of, charging,
    deliver, policies, replaying,
};
use testkit::lab::disk::{Disk, DiskBuilder as _, Table as _};
use testkit::lab::listed::{assert_summed, interrupted, listed};
use testkit::lab::steps::{Claimed, Hold, Steps as _, wish};
use testkit::lab::time::DAY;
use testkit::lab::{done, hold, id};
use testkit::{Gate, on_both};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::engine::{OnceContext, OnceError};
use tower_idempotency::internals::{Completion, Reply, RunResult, State};
use tower_idempotency::store::Abort;
use tower_idempotency::store::CommitError;
use tower_idempotency::test_util::ManualClock;
use tower_idempotency::{OnInterrupted, Once, SledStore};

const LONG: usize = 60_000;
/// The most bytes of an outcome that is kept in its record, and those of a chunk of a longer one.
const INLINE: usize = 3 * 1024;
const CHUNK: usize = 4_000;

/// Asserts that the parts of the store's own table match: the totals count the records, each record that expires is
/// listed once (and once more if it was interrupted and `completed_late`), each one that runs is listed, each one that
/// was interrupted has an entry, and there are the chunks of `long` outcomes and no others. The keys are those of
/// `src/store/embedded/layout/keys.rs`.
async fn assert_sound(store: &impl Disk, long: &[usize]) {
    assert_sound_but_for(store, long, 0).await;
}

async fn assert_sound_but_for(store: &impl Disk, long: &[usize], completed_late: usize) {
    let table = store.records();
    // This removes all chunks of outcomes whose records are gone, and all lists whose time is over.
    while store.sweep(100).await.unwrap() > 0 {}
    while table.count("g") > 0 {
        store.sweep(0).await.unwrap();
    }
    let keys = |kind: &str| table.count(kind);
    let totals = table.get("mtotals").unwrap();
    let count = u64::from_be_bytes(totals[..8].try_into().unwrap());
    assert_eq!(count, keys("r") as u64, "the count doesn't drift");
    let records: BTreeSet<[u8; 32]> = table.scan("r").iter().map(|(key, _)| key[1..].try_into().unwrap()).collect();
    assert_summed(&table);
    let (expiring, claimed) = (listed(&table, "e"), listed(&table, "n"));
    let expiring_once: BTreeSet<_> = expiring.iter().copied().collect();
    assert_eq!(expiring.len(), expiring_once.len() + completed_late, "no other record expires twice");
    assert!(expiring_once.is_subset(&records), "no list names a record that is gone");
    assert!(records.difference(&expiring_once).all(|id| claimed.contains(id)), "who doesn't expire is running");
    assert_eq!(keys("i"), interrupted(store, usize::MAX).await.len());
    assert_eq!(keys("c"), long.iter().map(|length| length.div_ceil(CHUNK)).sum::<usize>());
    // All of it can be read.
    drop(table_of(store).scan(""));
}

on_both!(
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    many_commits_at_once_are_all_there_after_reopening
);
async fn many_commits_at_once_are_all_there_after_reopening<D: Disk>() {
    const CHARGES: usize = 500;
    // So many that they share batches, and so few that none waits too long for the store on a slow machine.
    const AT_ONCE: usize = 100;
    for policy in policies() {
        let home = Home::<D>::new();
        let lab = charging(&home.store, policy);
        let keys: Vec<_> = (0..CHARGES).map(|number| format!("k{number}")).collect();
        let charged = stream::iter(keys.clone()).map(|key| {
            let lab = lab.clone();
            let charged = tokio::spawn(async move { (lab.post(&key, "a").await, key) });
            async { charged.await.unwrap() }
        });
        charged.buffer_unordered(AT_ONCE).for_each(async |(answer, key)| assert_receipt(&answer, &key, false)).await;
        drop(lab);
        let home = home.dropped().await;
        assert_sound(&home.store, &[]).await;
        let lab = replaying(&home.store, policy);
        for key in &keys {
            assert_receipt(&lab.post(key, "a").await, key, true);
            assert_eq!(home.charged(key), 1);
        }
        assert_eq!(table_of(&home.store).count(""), CHARGES);
    }
}

/// Runs that have begun, whose contexts the test has.
struct Begun {
    runs: Vec<JoinHandle<Delivered>>,
    contexts: UnboundedReceiver<(&'static str, OnceContext<String>)>,
    gate: Gate,
}

impl Begun {
    /// Begins a run for each key.
    async fn new(once: &Once<impl Disk, String>, keys: &[&'static str]) -> (Self, Vec<OnceContext<String>>) {
        let (send, contexts) = unbounded_channel();
        let gate = Gate::default();
        let begin = |key: &'static str| {
            let (once, send, gate) = (once.clone(), send.clone(), gate.clone());
            tokio::spawn(async move {
                deliver(&once, key, move |context| async move {
                    send.send((key, context)).expect("the test waits for it");
                    gate.pass().await;
                    Ok("its own".to_owned())
                })
                .await
            })
        };
        let mut begun = Self { runs: keys.iter().copied().map(begin).collect(), contexts, gate };
        let mut all = Vec::new();
        for _ in keys {
            all.push(begun.contexts.recv().await.unwrap());
        }
        all.sort_by_key(|(key, _)| keys.iter().position(|other| other == key));
        (begun, all.into_iter().map(|(_, context)| context).collect())
    }

    /// Lets them return, and returns their results.
    async fn end(self) -> Vec<Delivered> {
        self.gate.open();
        join_all(self.runs).await.into_iter().map(Result::unwrap).collect()
    }
}

/// An outcome whose record has this number of bytes, because JSON has quotes around it.
fn text(sum: u64, length: usize) -> String {
    sum.to_string().repeat(length - 2)
}

/// Commits an outcome of this number of bytes with a charge, or gives up at the end if `gives_up`.
fn commit_long(
    context: &OnceContext<String>,
    store: &impl Disk,
    key: &'static str,
    length: usize,
    gives_up: bool,
) -> Committing<String> {
    store.complete_in(context, [&table_of(store)], move |[charges]| {
        charge(&charges, key)?;
        // This is the number of earlier charges, as this transaction sees them.
        let sum = charge(&charges, "sum")?;
        if gives_up { Err(Abort::Because("no")) } else { Ok(text(sum, length)) }
    })
}

fn complete(hold: Hold, length: usize) -> Completion {
    let result = RunResult::Outcome(Bytes::from(vec![b'c'; length]));
    Completion { result, ..done(hold, "", DAY) }
}

on_both!(in_one_batch_with_other_calls_before_between_and_after_each_does_its_own);
async fn in_one_batch_with_other_calls_before_between_and_after_each_does_its_own<D: Disk>() {
    let (home, gate) = (Home::<D>::new(), Gate::default());
    let store = home.store.clone();
    let once = Once::new(store.clone()).on_interrupted(OnInterrupted::Rerun);
    let refusing = Once::new(store.clone());
    let [before, released, after] =
        [hold(&store, "before").await, hold(&store, "released").await, hold(&store, "after").await];
    let (begun, contexts) = Begun::new(&once, &["short", "poor", "long", "longer"]).await;
    let (durable, held) = Begun::new(&refusing, &["durable", "interrupted"]).await;
    let writer = busy(&store, &gate).await;
    // From here on, all of this is one batch.
    let claimed = store.claim(wish("claimed"));
    let completed = store.complete(complete(before, 100_000));
    let short = commit_long(&contexts[0], &store, "short", 10, false);
    let given_up = commit_long(&contexts[1], &store, "poor", LONG, true);
    let release = store.release(released.id, released.fence);
    let long = commit_long(&contexts[2], &store, "long", LONG, false);
    let again = store.claim(wish("before"));
    let longer = commit_long(&contexts[3], &store, "longer", 2 * LONG, false);
    let interrupt = store.interrupt(id("interrupted"), held[1].fence());
    let cut = commit_long(&held[1], &store, "interrupted", LONG, false);
    let committed = commit_long(&held[0], &store, "durable", 50_000, false);
    let late = store.complete(complete(after, 5_000));
    let swept = store.sweep(10);
    gate.open();
    assert!(matches!(claimed.await, Ok(Claimed::Fresh(_))));
    assert_eq!([completed.await, late.await, interrupt.await, release.await].map(Result::unwrap), [Reply::Taken; 4]);
    let Ok(Claimed::Held(record)) = again.await else { panic!("it was completed before") };
    assert!(matches!(record.state, State::Completed { outcome, .. } if outcome == vec![b'c'; 100_000]));
    assert!(matches!(given_up.await, Err(CommitError::Aborted("no"))));
    assert!(matches!(cut.await, Err(CommitError::Superseded)));
    let commits: Vec<Commit<String>> = join_all([short, long, longer, committed]).await;
    let expected = [text(1, 10), text(2, LONG), text(3, 2 * LONG), text(4, 50_000)];
    assert_eq!(commits.into_iter().map(Result::unwrap).collect::<Vec<_>>(), expected, "each sees those before it");
    assert_eq!(swept.await.unwrap(), 0);
    assert!(writer.await.unwrap().is_ok());
    let ends = lengths([begun.end().await, durable.end().await].into_iter().flatten().collect());
    assert_eq!(ends, [Some(10), None, Some(LONG), Some(2 * LONG), Some(50_000), None]);
    drop((once, refusing, contexts, held, store));

    let home = home.reopened().await;
    let store = &home.store;
    assert_sound_but_for(store, &[100_000, LONG, 2 * LONG, 50_000, 5_000], 1).await;
    for (key, text) in ["short", "long", "longer", "durable"].into_iter().zip(expected) {
        let found = store.load(id(key)).await.unwrap().unwrap();
        assert!(matches!(found.state, State::Completed { outcome, .. } if outcome == format!("\"{text}\"")), "{key}");
    }
    let all = ["busy", "short", "long", "longer", "durable", "poor", "interrupted"].map(|key| charged(store, key));
    assert_eq!((all, charged(store, "sum")), ([1, 1, 1, 1, 1, 0, 0], 4));
    let listed = interrupted(store, 10).await;
    assert_eq!(listed.len(), 1, "the one claimed and never run; the other said how it ended, late");
}

/// The length of each outcome that was committed. `None` for an outcome that the run returned itself, and for an
/// error.
fn lengths(delivered: Vec<Delivered>) -> Vec<Option<usize>> {
    let committed = |delivered: Delivered| delivered.ok().map(|outcome| outcome.value).filter(|text| text != "its own");
    delivered.into_iter().map(|delivered| committed(delivered).map(|text| text.len() + 2)).collect()
}

/// A store whose time is moved by hand.
fn with_clock<D: Disk>() -> (Home<D>, ManualClock) {
    let clock = ManualClock::new(Timestamp::from_millis(1_000_000));
    (Home::with(D::builder().clock(clock.clone())), clock)
}

on_both!(a_commit_over_a_record_that_has_expired_leaves_nothing_of_it_behind);
async fn a_commit_over_a_record_that_has_expired_leaves_nothing_of_it_behind<D: Disk>() {
    for swept_along in [false, true] {
        let (home, clock) = with_clock::<D>();
        let once = Once::new(home.store.clone()).on_interrupted(OnInterrupted::Rerun).retention(DAY);
        for (round, length) in [(1, 50_000), (2, 10), (3, LONG), (4, 90_000)] {
            let (begun, contexts) = Begun::new(&once, &["k"]).await;
            let gate = Gate::default();
            let writer = busy(&home.store, &gate).await;
            let sweep = || swept_along.then(|| home.store.sweep(10));
            let before = sweep();
            let committed = commit_long(&contexts[0], &home.store, "k", length, false);
            let after = sweep();
            gate.open();
            committed.await.unwrap();
            for sweep in [before, after].into_iter().flatten() {
                sweep.await.unwrap();
            }
            drop((begun.end().await, writer.await));
            assert_eq!(home.charged("k"), round, "its key was free again");
            assert_sound(&home.store, &[if length > INLINE { length } else { 0 }]).await;
            clock.advance(DAY);
        }
        while home.store.sweep(10).await.unwrap() > 0 {}
        assert_sound(&home.store, &[]).await;
        drop(once);
        let home = home.reopened().await;
        assert_sound(&home.store, &[]).await;
    }
}

on_both!(a_full_store_commits_what_has_begun_and_counts_it_once);
async fn a_full_store_commits_what_has_begun_and_counts_it_once<D: Disk>() {
    let (home, clock) = {
        let clock = ManualClock::new(Timestamp::from_millis(1_000_000));
        (Home::with(D::builder().clock(clock.clone()).max_records(2)), clock)
    };
    let once = |home: &Home<D>| Once::new(home.store.clone()).on_interrupted(OnInterrupted::Rerun).retention(DAY);
    let (begun, contexts) = Begun::new(&once(&home), &["a", "b", "c"]).await;
    for (context, key) in contexts.iter().zip(["a", "b", "c"]) {
        commit_long(context, &home.store, key, 10, true).await.unwrap_err();
        commit_long(context, &home.store, key, 10_000, false).await.unwrap();
        commit_long(context, &home.store, key, 10, false).await.unwrap_err();
    }
    assert_eq!(lengths(begun.end().await), [Some(10_000); 3]);
    assert_sound(&home.store, &[10_000; 3]).await;
    drop(contexts);
    let home = home.reopened().await;
    assert_sound(&home.store, &[10_000; 3]).await;
    let refused = deliver(&once(&home), "d", |_| async { Ok(String::new()) }).await;
    assert!(matches!(refused, Err(OnceError::Full)), "{refused:?}");
    assert!(deliver(&once(&home), "a", |_| async { Ok(String::new()) }).await.unwrap().replayed);
    clock.advance(DAY);
    while home.store.sweep(10).await.unwrap() > 0 {}
    assert_sound(&home.store, &[]).await;
    assert!(!deliver(&once(&home), "d", |_| async { Ok(String::new()) }).await.unwrap().replayed);
    assert_eq!(["a", "b", "c"].map(|key| home.charged(key)), [1; 3]);
}

#[tokio::test]
async fn no_key_or_value_that_a_transaction_takes_ends_in_a_file_that_sled_never_syncs() {
    // sled writes whole pages to files of their own: pages of 16 entries, and of 256 keys in its index.
    for (key_bytes, value_bytes, count) in
        [(4_096, 4_096, 400), (4_096, 1, 1_000), (1_024, 1, 4_000), (600, 1, 10_000), (256, 4_096, 1_000)]
    {
        let home = Home::<SledStore>::new();
        let (once, store) = (Once::new(home.store.clone()).on_interrupted(OnInterrupted::Rerun), home.store.clone());
        let outcome = deliver(&once, "k", move |context| async move {
            let committed = store.complete_in(&context, [&table_of(&store)], move |[charges]| {
                for number in 0_u32..count {
                    let mut key = vec![7; key_bytes];
                    key[key_bytes - 4..].copy_from_slice(&number.to_be_bytes());
                    charges.insert(key, vec![1; value_bytes])?;
                }
                Ok::<_, Abort<()>>("charged".to_owned())
            });
            match committed.await {
                Ok(outcome) => Ok(outcome),
                Err(CommitError::Refused(_)) => Ok("refused".to_owned()),
                Err(error) => panic!("{error:?}"),
            }
        });
        let outcome = outcome.await.unwrap();
        home.store.sync().await.unwrap();
        assert_eq!(blobs(&home.path()), 0, "keys of {key_bytes} bytes, values of {value_bytes}: {outcome:?}");
    }
}
