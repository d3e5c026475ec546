//! Effect and record in one transaction: what a review found. Each test is named after what is promised instead.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "common/charges.rs"]
#[allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]
mod charges;
mod common;

use std::future::pending;
use std::sync::Arc;

use bytes::Bytes;
use charges::{
    Door, Home, Left, OWN, assert_receipt, blobs, charges as tree_of, commit, commit_behind, commit_with, deliver,
    layer, receipt, serve, take,
};
use common::lab::{id, post};
use futures_util::future::select;
use tokio::sync::Notify;
use tokio::time::Instant;
use tower_idempotency::engine::CommitError;
use tower_idempotency::record::State;
use tower_idempotency::store::{Abort, Health, Store, StoreError};
use tower_idempotency::{OnInterrupted, Once};

#[tokio::test]
async fn a_run_that_was_dropped_commits_nothing_after_its_transaction_was_given_up() {
    let (home, door, dropped, contexts) = (Home::new(), Door::default(), Arc::new(Notify::new()), Left::default());
    let drops = Arc::clone(&dropped);
    let layer = layer(home.store.clone(), OnInterrupted::Rerun).wrap_run(move |run| {
        let drops = Arc::clone(&drops);
        async move { drop(select(run, Box::pin(drops.notified())).await) }
    });
    let (store, pass, left) = (home.store.clone(), door.pass(), Arc::clone(&contexts));
    let lab = serve(layer, move |context| {
        let pass = pass.clone();
        drop(commit_with(&context, &store, move |_| {
            pass();
            Err(Abort::Because("no"))
        }));
        left.lock().unwrap().push(context);
        pending::<&str>()
    });
    let first = lab.spawn(post("k", "a"));
    door.arrival().await;
    dropped.notify_one();
    assert_eq!(first.await.unwrap().refusal(), (500, "outcome-unknown".to_owned()));
    door.open();
    // The transaction came before.
    home.store.sync().await.unwrap();
    let late = commit(&take(&contexts)[0], &home.store).await;
    assert!(
        matches!(late, Err(CommitError::Over)),
        "its slot is free, and nobody guards what it would write: {late:?}"
    );
    assert_eq!(home.charged("k"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_the_writer_does_not_answer_is_given_up_as_any_other_verb_is() {
    let (home, door, told) = (Home::new(), Door::default(), Left::default());
    let (store, pass, left) = (home.store.clone(), door.pass(), Arc::clone(&told));
    let lab = serve(layer(store.clone(), OnInterrupted::Rerun), move |context| {
        let (pass, left) = (pass.clone(), Arc::clone(&left));
        let committed = commit_behind(&context, &store, pass);
        async move {
            let told = committed.await;
            left.lock().unwrap().push(told);
            OWN
        }
    });
    let began = Instant::now();
    assert_eq!(lab.post("k", "a").await.refusal(), (503, "outcome-unknown".to_owned()));
    let (told, waited) = (take(&told), began.elapsed());
    let given_up = matches!(told[..], [Err(CommitError::Store(StoreError::Uncertain { .. }))]);
    assert!(given_up, "the handler was told nothing, and waited until max_run: {told:?} after {waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_was_given_up_and_came_about_after_all_is_replayed() {
    let (home, door) = (Home::new(), Door::default());
    let (store, pass) = (home.store.clone(), door.pass());
    let lab = serve(layer(store.clone(), OnInterrupted::Rerun), move |context| {
        let committed = commit_behind(&context, &store, pass.clone());
        async move { committed.await.map_err(|_| OWN) }
    });
    assert_eq!(lab.post("k", "a").await.refusal(), (503, "outcome-unknown".to_owned()));
    // From here on time passes as ever: the store is as good as before, and does what it was asked for.
    tokio::time::resume();
    door.open();
    home.store.sync().await.unwrap();
    assert_eq!((home.charged("k"), home.store.health()), (1, Health::Good));
    assert_receipt(&lab.post("k", "a").await, "k", true);
}

#[tokio::test]
async fn no_key_or_value_that_a_transaction_takes_ends_in_a_file_that_sled_never_syncs() {
    // It is whole pages that sled writes to files of their own: of 16 entries, and of 256 keys in its index.
    for (key_bytes, value_bytes, count) in
        [(4_096, 4_096, 400), (4_096, 1, 1_000), (1_024, 1, 4_000), (600, 1, 10_000), (256, 4_096, 1_000)]
    {
        let home = Home::new();
        let (once, store) = (Once::new(home.store.clone()).on_interrupted(OnInterrupted::Rerun), home.store.clone());
        let outcome = deliver(&once, "k", move |context| async move {
            let committed = context.commit_in(&store, [&tree_of(&store)], move |[charges]| {
                for number in 0_u32..count {
                    let mut key = vec![7; key_bytes];
                    key[key_bytes - 4..].copy_from_slice(&number.to_be_bytes());
                    charges.insert(key, vec![1; value_bytes])?;
                }
                Ok::<_, Abort<()>>(Bytes::from("charged"))
            });
            match committed.await {
                Ok(outcome) => Ok(outcome),
                Err(CommitError::Refused(_)) => Ok(Bytes::from("refused")),
                Err(error) => panic!("{error:?}"),
            }
        });
        let outcome = outcome.await.unwrap();
        home.store.sync().await.unwrap();
        assert_eq!(blobs(&home.path()), 0, "keys of {key_bytes} bytes, values of {value_bytes}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_committed_outcome_keeps_no_more_memory_than_its_length() {
    let home = Home::new();
    let (once, store) = (Once::new(home.store.clone()).on_interrupted(OnInterrupted::Rerun), home.store.clone());
    let large = Bytes::from(vec![7; 1 << 20]);
    let within = large.as_ptr_range();
    let outcome = deliver(&once, "k", move |context| async move {
        let committed = context.commit_in(&store, [], move |[]| Ok::<_, Abort<()>>(large.slice(..3)));
        Ok(committed.await.expect("it can be committed"))
    });
    assert_eq!(outcome.await.unwrap().bytes.len(), 3);
    let State::Completed { outcome, .. } = home.store.load(id("k")).await.unwrap().unwrap().state else {
        panic!("no outcome")
    };
    assert!(!within.contains(&outcome.as_ptr()), "a megabyte is kept for three bytes");
}

#[tokio::test]
async fn an_answer_that_is_longer_than_what_is_recorded_is_not_committed() {
    let home = Home::new();
    let store = home.store.clone();
    let lab = serve(layer(store.clone(), OnInterrupted::Rerun).max_response_body(100), move |context| {
        let committed = context.commit_in(&store, [&tree_of(&store)], move |[charges]| {
            charges.insert("k", "charged")?;
            Ok::<_, Abort<()>>(receipt("k").map(|_| Bytes::from(vec![b'x'; 101])))
        });
        async move { matches!(committed.await, Err(CommitError::Refused(_))).to_string() }
    });
    assert_eq!(lab.post("k", "a").await.text(), "true", "the bound of `max_response_body` binds here too");
    assert!(tree_of(&home.store).is_empty());
}

/// Panics when it is dropped.
struct Careless;

impl Drop for Careless {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "on purpose");
    }
}

#[tokio::test]
async fn what_a_closure_holds_can_do_the_store_no_harm_when_it_is_dropped() {
    let home = Home::new();
    let store = home.store.clone();
    let lab = serve(layer(store.clone(), OnInterrupted::Rerun), move |context| {
        let careless = Careless;
        let committed = commit_with(&context, &store, move |_| {
            let _held = &careless;
            Ok(())
        });
        async move { committed.await.map_err(|error| error.to_string()) }
    });
    let first = lab.post("k", "a").await;
    assert_eq!((first.status.as_u16(), home.store.health()), (201, Health::Good), "its panics are caught");
}

#[tokio::test]
async fn what_is_too_long_for_one_step_of_sleds_is_not_committed() {
    let home = Home::new();
    let once = Once::new(home.store.clone()).on_interrupted(OnInterrupted::Rerun);
    for (values, outcome_bytes, fits) in [(20, 10, true), (0, 100_000, true), (40, 10, false), (0, 200_000, false)] {
        let (store, key) = (home.store.clone(), format!("{values} {outcome_bytes}"));
        let told = deliver(&once, &key, move |context| async move {
            let committed = context.commit_in(&store, [&tree_of(&store)], move |[charges]| {
                for number in 0_u32..values {
                    charges.insert(&number.to_be_bytes(), vec![1; 4_000])?;
                }
                Ok::<_, Abort<()>>(Bytes::from(vec![b'x'; outcome_bytes]))
            });
            Ok(match committed.await {
                Ok(_) => Bytes::from("committed"),
                Err(error) => Bytes::from(error.to_string()),
            })
        });
        let told = told.await.unwrap().bytes;
        assert_eq!(told.starts_with(b"a transaction has"), !fits, "{key}: {told:?}");
    }
}
