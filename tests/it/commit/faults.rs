//! Effect and record in one transaction when runs take too long, are dropped or superseded, when the store is closed
//! meanwhile, and when the disk refuses a write: at most one effect, no key that is stuck, and no answer from what
//! is not durable.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, select};
use testkit::lab::charges::{
    Home, Left, OWN, assert_receipt, charge, charges as table_of, commit, commit_behind, commit_with, layer, policies,
    receipt, replaying, serve, take,
};
use testkit::lab::disk::Disk;
use testkit::lab::operator::Operated as _;
use testkit::lab::steps::{Claimed, Steps as _, wish};
use testkit::lab::{Lab, post};
use testkit::{Gate, on_both};
use tokio::runtime::Runtime;
use tokio::sync::{Barrier, Notify};
use tokio::time::Instant;
use tower_idempotency::internals::Reply;
use tower_idempotency::operations::{Action, Applied};
use tower_idempotency::store::CommitError;
use tower_idempotency::store::{Abort, Health, StoreError};
use tower_idempotency::{IdempotencyLayer, OnInterrupted};

on_both!(a_handler_that_exceeds_max_run_while_its_commit_is_with_the_writer_is_answered_by_the_commit);
async fn a_handler_that_exceeds_max_run_while_its_commit_is_with_the_writer_is_answered_by_the_commit<D: Disk>() {
    for policy in policies() {
        let home = Home::<D>::new();
        let store = home.store.clone();
        let layer = layer(store.clone(), policy).max_run(Duration::from_millis(20));
        let lab = serve(layer, move |context| {
            // The transaction waits until the handler is gone: its gate is opened when it is dropped.
            let gate = Gate::default();
            let pass = gate.on_a_thread();
            let committed = commit_behind(&context, &store, pass);
            async move {
                let committed = committed.await;
                drop(gate);
                committed.expect("it has no waiter any more")
            }
        });
        assert_receipt(&lab.post("k", "a").await, "k", false);
        assert_receipt(&lab.post("k", "a").await, "k", true);
        drop(lab);
        let home = home.dropped().await;
        assert_receipt(&replaying(&home.store, policy).post("k", "a").await, "k", true);
        assert_eq!(home.charged("k"), 1);
    }
}

on_both!(a_run_that_exceeded_max_run_commits_nothing_before_its_key_runs_again_or_after);
async fn a_run_that_exceeded_max_run_commits_nothing_before_its_key_runs_again_or_after<D: Disk>() {
    let (home, contexts) = (Home::<D>::new(), Left::default());
    let (store, left) = (home.store.clone(), Arc::clone(&contexts));
    let layer = layer(store.clone(), OnInterrupted::Rerun).max_run(Duration::from_millis(200));
    let lab = serve(layer, move |context| {
        let (store, left) = (store.clone(), Arc::clone(&left));
        async move {
            let is_first = {
                let mut left = left.lock().unwrap();
                left.push(context.clone());
                left.len() == 1
            };
            if is_first { pending().await } else { commit(&context, &store).await.expect("its key is its own") }
        }
    });
    assert_eq!(lab.post("k", "a").await.refusal(), (500, "outcome-unknown".to_owned()));
    let late = || {
        let context = contexts.lock().unwrap()[0].clone();
        commit(&context, &home.store)
    };
    assert!(matches!(late().await, Err(CommitError::Over)));
    assert_eq!(home.charged("k"), 0);
    assert_receipt(&lab.post("k", "a").await, "k", false);
    assert!(matches!(late().await, Err(CommitError::Over)));
    assert_eq!((take(&contexts).len(), home.charged("k")), (2, 1));
    assert_receipt(&lab.post("k", "a").await, "k", true);
}

on_both!(a_run_whose_operation_was_taken_from_it_commits_nothing);
async fn a_run_whose_operation_was_taken_from_it_commits_nothing<D: Disk>() {
    for policy in policies() {
        let (home, errors) = (Home::<D>::new(), Left::default());
        let (store, left) = (home.store.clone(), Arc::clone(&errors));
        let is_recorded = matches!(policy, OnInterrupted::Refuse);
        let lab = serve(layer(store.clone(), policy), move |context| {
            let (store, left) = (store.clone(), Arc::clone(&left));
            async move {
                // This bypasses the layer, which would not do this to a living run.
                if is_recorded {
                    let interrupted = store.interrupt(context.record_id(), context.fence()).await;
                    assert_eq!(interrupted.unwrap(), Reply::Taken);
                } else {
                    assert!(matches!(store.claim(wish("k")).await.unwrap(), Claimed::Fresh(_)));
                }
                let error = commit(&context, &store).await.unwrap_err();
                left.lock().unwrap().push(error);
                OWN
            }
        });
        // If it was taken over, its end is unknown; the outcome of a run that was only thought dead counts.
        let told = lab.post("k", "a").await.status;
        assert_eq!(told, if is_recorded { OWN.0 } else { http::StatusCode::INTERNAL_SERVER_ERROR });
        assert!(matches!(take(&errors)[..], [CommitError::Superseded]));
        assert_eq!(home.charged("k"), 0);
    }
}

/// The end of a transaction whose run was dropped.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Ends {
    Committed,
    GivenUp,
}

/// An application whose transactions wait at the gate, and end so.
fn behind(gate: &Gate, layer: IdempotencyLayer<impl Disk>, ends: Ends) -> Lab {
    let (store, pass) = (layer.store().clone(), gate.on_a_thread());
    serve(layer, move |context| {
        let pass = pass.clone();
        let committed = commit_with(&context, &store, move |_| {
            pass();
            if ends == Ends::GivenUp { Err(Abort::Because("no")) } else { Ok(()) }
        });
        async move {
            let _ = committed.await;
            OWN
        }
    })
}

/// Asserts that the key of a run that was dropped is not stuck, once the writer has answered, and was charged at most
/// once.
async fn assert_settled(home: Home<impl Disk>, policy: OnInterrupted, ends: Ends) {
    // The transaction came before.
    home.store.sync().await.unwrap();
    if ends == Ends::Committed {
        assert_receipt(&replaying(&home.store, policy).post("k", "a").await, "k", true);
    } else {
        assert_eq!(home.charged("k"), 0, "{policy:?}");
        let layer = layer(home.store.clone(), policy);
        let store = home.store.clone();
        let lab = serve(layer.clone(), move |context| {
            let committed = commit(&context, &store);
            async move { committed.await.expect("its key is its own") }
        });
        if let OnInterrupted::Refuse = policy {
            assert_eq!(lab.post("k", "a").await.refusal(), (409, "outcome-unknown".to_owned()));
            let Ok([record]) = <[_; 1]>::try_from(layer.interrupted(10).await.unwrap()) else {
                panic!("one was interrupted")
            };
            assert_eq!(layer.resolve(record.id, record.fence, Action::Release).await.unwrap(), Applied::Done);
        }
        assert_receipt(&lab.post("k", "a").await, "k", false);
    }
    let home = home.reopened().await;
    assert_receipt(&replaying(&home.store, policy).post("k", "a").await, "k", true);
    assert_eq!(home.charged("k"), 1);
}

fn cases() -> impl Iterator<Item = (OnInterrupted, Ends)> {
    policies().into_iter().flat_map(|policy| [Ends::Committed, Ends::GivenUp].map(|ends| (policy, ends)))
}

on_both!(a_run_that_is_dropped_during_its_commit_leaves_a_key_that_is_refused_until_the_writer_has_answered);
async fn a_run_that_is_dropped_during_its_commit_leaves_a_key_that_is_refused_until_the_writer_has_answered<D: Disk>() {
    for (policy, ends) in cases() {
        let (home, gate, dropped) = (Home::<D>::new(), Gate::default(), Arc::new(Notify::new()));
        let drops = Arc::clone(&dropped);
        let layer = layer(home.store.clone(), policy).wrap_run(move |run| {
            let drops = Arc::clone(&drops);
            async move { drop(select(run, Box::pin(drops.notified())).await) }
        });
        let lab = behind(&gate, layer, ends);
        let first = lab.spawn(post("k", "a"));
        gate.arrival().await;
        dropped.notify_one();
        assert_eq!(first.await.unwrap().refusal(), (500, "outcome-unknown".to_owned()));
        for _ in 0..3 {
            assert_eq!(lab.post("k", "a").await.refusal(), (409, "outcome-unknown".to_owned()));
        }
        lab.post("k", "b").await.assert_refusal(422, "key-reused", false, None);
        gate.open();
        drop(lab);
        assert_settled(home, policy, ends).await;
    }
}

on_both!(fn a_runtime_that_is_dropped_during_a_commit_leaves_no_stuck_key_and_one_effect);
fn a_runtime_that_is_dropped_during_a_commit_leaves_no_stuck_key_and_one_effect<D: Disk>() {
    for (policy, ends) in cases() {
        let (first, second) = (Runtime::new().unwrap(), Runtime::new().unwrap());
        let (home, gate) = (Home::<D>::new(), Gate::default());
        let lab = behind(&gate, layer(home.store.clone(), policy), ends);
        first.spawn({
            let lab = lab.clone();
            async move { lab.post("k", "a").await }
        });
        second.block_on(gate.arrival());
        drop(first);
        second.block_on(async {
            assert_eq!(lab.post("k", "a").await.refusal(), (409, "outcome-unknown".to_owned()));
            gate.open();
            drop(lab);
            assert_settled(home, policy, ends).await;
        });
    }
}

on_both!(
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    a_store_that_is_closed_while_runs_commit_answers_nobody_falsely
);
async fn a_store_that_is_closed_while_runs_commit_answers_nobody_falsely<D: Disk>() {
    let (mut committed, mut not_committed, mut round) = (0, 0, 0);
    // The closing comes in between by chance.
    while round < 20 || (round < 500 && (committed == 0 || not_committed == 0)) {
        round += 1;
        let (home, ready) = (Home::<D>::new(), Arc::new(Barrier::new(9)));
        let (store, at_once) = (home.store.clone(), Arc::clone(&ready));
        let lab = serve(layer(store.clone(), OnInterrupted::Rerun), move |context| {
            let (store, at_once, charges) = (store.clone(), Arc::clone(&at_once), table_of(&store));
            async move {
                at_once.wait().await;
                let key = context.key().as_str().to_owned();
                let committed = store.complete_in(&context, [&charges], move |[charges]| {
                    charge(&charges, &key)?;
                    Ok::<_, Abort<&str>>(receipt(&key))
                });
                drop(charges);
                committed.await.map_err(|_| OWN)
            }
        });
        let keys: Vec<_> = (0..8).map(|number| format!("k{number}")).collect();
        let answers: Vec<_> = keys.iter().map(|key| lab.spawn(post(key, "a"))).collect();
        ready.wait().await;
        for _ in 0..round % 10 {
            tokio::task::yield_now().await;
        }
        let home = home.reopened().await;
        for (key, answer) in keys.iter().zip(join_all(answers).await) {
            let (answer, count) = (answer.unwrap(), home.charged(key));
            let retry = replaying(&home.store, OnInterrupted::Rerun).post(key, "a").await;
            assert_eq!(retry.is_replay(), count == 1, "both or neither");
            match (answer.status.as_u16(), answer.problem().as_str()) {
                (201, "") => assert_receipt(&retry, key, true),
                (402, "") => assert_eq!(count, 0, "nothing was done: {answer:?}"),
                (503, "outcome-unknown") => assert!(count <= 1),
                _ => panic!("{answer:?}"),
            }
            if answer.status == 201 { committed += 1 } else { not_committed += 1 }
        }
    }
    assert!(committed > 0 && not_committed > 0, "closing came in between: {committed}, {not_committed}");
}

on_both!(a_run_that_was_dropped_commits_nothing_after_its_transaction_was_given_up);
async fn a_run_that_was_dropped_commits_nothing_after_its_transaction_was_given_up<D: Disk>() {
    let (home, gate, dropped, contexts) = (Home::<D>::new(), Gate::default(), Arc::new(Notify::new()), Left::default());
    let drops = Arc::clone(&dropped);
    let layer = layer(home.store.clone(), OnInterrupted::Rerun).wrap_run(move |run| {
        let drops = Arc::clone(&drops);
        async move { drop(select(run, Box::pin(drops.notified())).await) }
    });
    let (store, pass, left) = (home.store.clone(), gate.on_a_thread(), Arc::clone(&contexts));
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
    gate.arrival().await;
    dropped.notify_one();
    assert_eq!(first.await.unwrap().refusal(), (500, "outcome-unknown".to_owned()));
    gate.open();
    // The transaction came before.
    home.store.sync().await.unwrap();
    let late = commit(&take(&contexts)[0], &home.store).await;
    assert!(
        matches!(late, Err(CommitError::Over)),
        "its slot is free, and does not guard what it would write: {late:?}"
    );
    assert_eq!(home.charged("k"), 0);
}

on_both!(
    #[tokio::test(start_paused = true)]
    a_transaction_that_the_writer_does_not_answer_is_given_up_as_any_other_call_is
);
async fn a_transaction_that_the_writer_does_not_answer_is_given_up_as_any_other_call_is<D: Disk>() {
    let (home, gate, told) = (Home::<D>::new(), Gate::default(), Left::default());
    let (store, pass, left) = (home.store.clone(), gate.on_a_thread(), Arc::clone(&told));
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

on_both!(
    #[tokio::test(start_paused = true)]
    a_commit_that_was_given_up_and_came_about_after_all_is_replayed
);
async fn a_commit_that_was_given_up_and_came_about_after_all_is_replayed<D: Disk>() {
    let (home, gate) = (Home::<D>::new(), Gate::default());
    let (store, pass) = (home.store.clone(), gate.on_a_thread());
    let lab = serve(layer(store.clone(), OnInterrupted::Rerun), move |context| {
        let committed = commit_behind(&context, &store, pass.clone());
        async move { committed.await.map_err(|_| OWN) }
    });
    assert_eq!(lab.post("k", "a").await.refusal(), (503, "outcome-unknown".to_owned()));
    // From here on time passes as usual: the store works as before, and answers its calls.
    tokio::time::resume();
    gate.open();
    home.store.sync().await.unwrap();
    assert_eq!((home.charged("k"), home.store.health()), (1, Health::Good));
    assert_receipt(&lab.post("k", "a").await, "k", true);
}

/// Panics when it is dropped.
struct Careless;

impl Drop for Careless {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "on purpose");
    }
}

on_both!(what_a_closure_holds_can_do_the_store_no_harm_when_it_is_dropped);
async fn what_a_closure_holds_can_do_the_store_no_harm_when_it_is_dropped<D: Disk>() {
    let home = Home::<D>::new();
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
