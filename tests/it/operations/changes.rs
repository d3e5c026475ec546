//! Changes name the fence, and many at once have a result each.

use bytes::Bytes;
use testkit::lab::asked::{asking, found, leave_interrupted};
use testkit::lab::disk::{Disk, Table as _};
use testkit::lab::operator::outcome;
use testkit::lab::steps::Steps as _;
use testkit::lab::time::{DAY, SECOND};
use testkit::lab::{Lab, at_once, done, hold, id, on_disk, settle};
use testkit::on_both;
use tower_idempotency::engine::{Advice, EffectError, OnceError, Reconciled, Reconciler};
use tower_idempotency::internals::{Completion, Reply, RunResult};
use tower_idempotency::operations::{
    Action, Answer, Applied, Change, ChangeError, Filter, OperationState, Operations, StateKind,
};
use tower_idempotency::store::Store;
use tower_idempotency::test_util::{StoreCall, TestStore};
use tower_idempotency::{Fence, Fingerprint, IdempotencyLayer, MemoryStore, Once, SledStore};

use super::{a_second_passes, account, answer, change, clocked, lab, layer, send};

async fn are_settled_and_forgotten<St: Store + Clone>(store: St) {
    let layer = IdempotencyLayer::new(store);
    let failing = Lab::new(layer.clone(), |_| async { http::StatusCode::BAD_GATEWAY });
    let lab = failing.behind(layer.clone(), testkit::lab::effect);
    let operations = layer.operations();
    for key in ["answer", "release"] {
        failing.post(key, "a").await;
    }
    let seen = operations.inspect(id("answer")).await.unwrap().unwrap();
    // An action for another state, or another fence, changes nothing.
    assert_eq!(change(&operations, &seen, Action::Forget).await.unwrap(), Applied::Stale);
    let other = Change::new(seen.id, Fence(seen.fence.0 + 1), answer("other"));
    assert_eq!(operations.by("alice").apply(other).await.unwrap(), Applied::Stale);
    assert_eq!(change(&operations, &seen, answer("settled")).await.unwrap(), Applied::Done);
    assert_eq!(change(&operations, &seen, answer("again")).await.unwrap(), Applied::Stale);
    let replay = lab.post("answer", "a").await;
    assert_eq!((replay.text(), replay.is_replay()), ("settled", true));
    let seen = operations.inspect(id("release")).await.unwrap().unwrap();
    assert_eq!(change(&operations, &seen, Action::Release).await.unwrap(), Applied::Done);
    assert_eq!(lab.post("release", "a").await.text(), "effect 3");
    // A done operation is forgotten by its present fence alone.
    let done = operations.inspect(id("release")).await.unwrap().unwrap();
    assert_eq!(change(&operations, &done, Action::Release).await.unwrap(), Applied::Stale);
    assert_eq!(change(&operations, &seen, Action::Forget).await.unwrap(), Applied::Stale);
    assert!(lab.post("release", "a").await.is_replay());
    assert_eq!(change(&operations, &done, Action::Forget).await.unwrap(), Applied::Done);
    assert_eq!(operations.inspect(id("release")).await.unwrap(), None);
    assert_eq!(lab.post("release", "a").await.text(), "effect 4");
    assert_eq!(layer.stats().settled, 2, "to forget is no settlement");
}

#[tokio::test]
async fn an_operation_is_settled_or_forgotten_in_its_state_and_under_its_fence_alone() {
    are_settled_and_forgotten(MemoryStore::new()).await;
    are_settled_and_forgotten(TestStore::new()).await;
}

/// Each action, of an operation in each state, under its fence and under others.
async fn each_action_is_for_its_states<St: Store + Clone>(store: St) {
    let operations = Operations::over(store.clone(), DAY);
    for state in [StateKind::Running, StateKind::Interrupted, StateKind::Completed, StateKind::Consumed] {
        for (action, states) in [
            (answer("settled"), &[StateKind::Interrupted][..]),
            (Action::Release, &[StateKind::Interrupted]),
            (Action::Forget, &[StateKind::Completed, StateKind::Consumed]),
            (Action::ForgetAnswer, &[StateKind::Completed]),
        ] {
            for apart in [-1, 1, 0] {
                let key = format!("{state:?} {} {apart}", action.name());
                let held = hold(&store, &key.replace(' ', "-")).await;
                let consumed = RunResult::Consumed { status: 200 };
                let ended = match state {
                    StateKind::Interrupted => Some(store.interrupt(held.id, held.fence).await.unwrap()),
                    StateKind::Completed => Some(store.complete(done(held, "done", DAY)).await.unwrap()),
                    StateKind::Consumed => {
                        let completion = Completion { result: consumed, ..done(held, "", DAY) };
                        Some(store.complete(completion).await.unwrap())
                    }
                    _ => None,
                };
                assert_ne!(ended, Some(Reply::Refused));
                let seen = operations.inspect(held.id).await.unwrap().unwrap();
                assert_eq!(seen.state.kind(), state);
                let change = Change::new(held.id, Fence(seen.fence.0.wrapping_add_signed(apart)), action.clone());
                let applied = operations.by("alice").apply(change).await.unwrap();
                let is_due = states.contains(&state) && apart == 0;
                assert_eq!(applied, if is_due { Applied::Done } else { Applied::Stale }, "{key}");
                let after = operations.inspect(held.id).await.unwrap();
                assert_eq!(after.as_ref() == Some(&seen), !is_due, "{key}: {after:?}");
            }
        }
    }
}

// Seeded faults: the fence is not compared; a release takes a completed operation.
#[tokio::test]
async fn an_action_changes_an_operation_in_its_state_and_under_its_fence_and_no_other() {
    each_action_is_for_its_states(MemoryStore::new()).await;
    let (_directory, sled) = on_disk(SledStore::builder());
    each_action_is_for_its_states(sled).await;
    #[cfg(feature = "fjall")]
    {
        let (_directory, fjall) = on_disk(tower_idempotency::FjallStore::builder());
        each_action_is_for_its_states(fjall).await;
    }
}

on_both!(on_disk_what_was_forgotten_stays_so_and_what_ran_after_it_is_there);
async fn on_disk_what_was_forgotten_stays_so_and_what_ran_after_it_is_there<D: Disk>() {
    let (directory, store) = on_disk(D::builder());
    are_settled_and_forgotten(store.clone()).await;
    store.close().await.unwrap();
    drop(store);
    let operations = Operations::over(D::open(directory.path()).unwrap(), DAY);
    assert_eq!(operations.list(&Filter::all(), None, 9).await.unwrap().operations.len(), 2);
}

on_both!(a_long_answer_is_forgotten_with_its_chunks);
async fn a_long_answer_is_forgotten_with_its_chunks<D: Disk>() {
    let (_directory, store) = on_disk(D::builder());
    let layer = IdempotencyLayer::new(store.clone());
    Lab::new(layer.clone(), |_| async { vec![b'x'; 100_000] }).post("k", "a").await;
    let operations = layer.operations();
    let seen = operations.inspect(id("k")).await.unwrap().unwrap();
    assert_eq!(change(&operations, &seen, Action::Forget).await.unwrap(), Applied::Done);
    store.sweep(1_000).await.unwrap();
    assert_eq!(store.records().count("c"), 0);
    assert_eq!(store.gauges().bytes, Some(0));
}

#[tokio::test]
async fn a_reconciler_is_asked_now_about_one_operation() {
    let store = TestStore::new();
    for key in ["found", "again", "unknown"] {
        leave_interrupted(&store, key).await;
    }
    let store = store.reopen();
    let reconciler = Reconciler::new(|run: tower_idempotency::store::InterruptedRun| {
        let verdict = match run.id {
            it if it == id("found") => found("charged"),
            it if it == id("again") => Reconciled::RunAgain,
            _ => Reconciled::StillUnknown,
        };
        std::future::ready(verdict)
    });
    let layer = asking(store, reconciler);
    let operations = layer.operations();
    for (key, expected) in [("found", Applied::Done), ("again", Applied::RunsAgain), ("unknown", Applied::StillUnknown)]
    {
        let seen = operations.inspect(id(key)).await.unwrap().unwrap();
        let other = Change::new(seen.id, Fence(seen.fence.0 + 1), Action::Reconcile);
        assert_eq!(operations.by("bob").apply(other).await.unwrap(), Applied::Stale, "{key} under another fence");
        assert_eq!(change(&operations, &seen, Action::Reconcile).await.unwrap(), expected, "{key}");
    }
    assert!(matches!(
        change(
            &Operations::over(MemoryStore::new(), DAY),
            &operations.inspect(id("found")).await.unwrap().unwrap(),
            Action::Reconcile
        )
        .await,
        Err(ChangeError::NoReconciler)
    ));
}

#[tokio::test]
async fn a_question_that_the_store_does_not_take_is_an_error_and_not_unknown() {
    let store = TestStore::new();
    leave_interrupted(&store, "k").await;
    let store = store.reopen();
    let layer = asking(store.clone(), Reconciler::new(|_| async { found("charged") }));
    let operations = layer.operations();
    let seen = operations.inspect(id("k")).await.unwrap().unwrap();
    store.fail_next(StoreCall::Inquire);
    let asked = change(&operations, &seen, Action::Reconcile).await;
    assert!(matches!(asked, Err(ChangeError::Store(_))), "{asked:?}");
    assert_eq!(change(&operations, &seen, Action::Reconcile).await.unwrap(), Applied::Done);
}

#[tokio::test]
async fn many_changes_have_a_result_each_in_their_order() {
    let layer = layer(MemoryStore::new()).max_response_body(10);
    let lab = lab(layer.clone());
    for number in 0..200 {
        send(&lab, "/502", "one", &number.to_string()).await;
    }
    let operations = layer.operations();
    let seen = operations.list(&Filter::all(), None, 1_000).await.unwrap().operations;
    let action = |number: usize| match number % 4 {
        0 => answer("ten bytes."),
        1 => answer("eleven byte"),
        2 => Action::Answer(Answer::Bytes(Bytes::from("x"))),
        _ => Action::Release,
    };
    let changes = seen.iter().enumerate().map(|(number, seen)| Change::new(seen.id, seen.fence, action(number)));
    let results = operations.by("alice").apply_all(changes.collect()).await;
    assert_eq!(results.len(), 200);
    for (number, (seen, (id, result))) in seen.iter().zip(results).enumerate() {
        assert_eq!(seen.id, id);
        let is_right = match number % 4 {
            1 => matches!(result, Err(ChangeError::TooLong)),
            2 => matches!(result, Err(ChangeError::WrongForm)),
            _ => matches!(result, Ok(Applied::Done)),
        };
        assert!(is_right, "{number}: {result:?}");
    }
}

#[tokio::test]
async fn a_purge_forgets_what_is_done_and_old_or_of_one_owner_and_nothing_that_is_interrupted() {
    let (store, clock) = clocked();
    let layer = layer(store);
    let lab = lab(layer.clone());
    for number in 0..10 {
        send(&lab, "/200", if number % 2 == 0 { "one" } else { "other" }, &format!("done-{number}")).await;
        send(&lab, "/502", "one", &format!("interrupted-{number}")).await;
        a_second_passes(&clock);
    }
    let operations = layer.operations();
    let operator = operations.by("retention job");
    let of_one = operator.purge(&Filter::all().of_scope(account("one").digest()), None, 1_000).await.unwrap();
    assert!((of_one.forgotten, of_one.left.len(), of_one.next) == (5, 0, None));
    let old = operator.purge(&Filter::all().older_than(SECOND * 6), None, 1_000).await.unwrap();
    assert_eq!((old.forgotten, old.left.len()), (2, 0), "of the other owner");
    let left = |state| {
        let operations = operations.clone();
        async move { operations.list(&Filter::all().in_state(state), None, 100).await.unwrap().operations.len() }
    };
    assert_eq!((left(StateKind::Completed).await, left(StateKind::Interrupted).await), (3, 10));
}

// Seeded faults: the record is deleted; the status is not that of the answer; what was forgotten is forgotten again.
#[tokio::test]
async fn answers_of_one_owner_are_forgotten_and_their_keys_stay_used() {
    let layer = layer(MemoryStore::new());
    let lab = Lab::counting(layer.clone());
    let post = async |owner: &str| {
        let request = testkit::lab::keyed("POST", "/charges", "k").header("account", owner);
        lab.send(request.body("a".into()).unwrap()).await
    };
    for owner in ["one", "other"] {
        post(owner).await;
    }
    let operator = layer.operations().by("erasure");
    let of_one = Filter::all().of_scope(account("one").digest());
    for expected in [1, 0] {
        let forgotten = operator.forget_answers(&of_one, None, 1_000).await.unwrap();
        assert!((forgotten.forgotten, forgotten.left.len(), forgotten.next) == (expected, 0, None));
        let retry = post("one").await;
        retry.assert_refusal(409, "not-replayable", false, None);
        assert_eq!(retry.json()["original_status"], 200);
    }
    assert!(post("other").await.is_replay());
    assert_eq!((lab.effects(), layer.stats().settled), (2, 0), "to forget is no settlement");
}

// A seeded fault: the record is deleted.
#[tokio::test]
async fn a_message_whose_outcome_was_forgotten_is_acknowledged() {
    let once = Once::new(MemoryStore::new());
    let deliver = || once.run(id("m"), Fingerprint::of(b"m"), |_| async { Ok::<_, EffectError<()>>(17_u32) });
    assert_eq!(deliver().await.unwrap().value, 17);
    let operations = once.operations();
    let seen = operations.inspect(id("m")).await.unwrap().unwrap();
    assert_eq!(change(&operations, &seen, Action::ForgetAnswer).await.unwrap(), Applied::Done);
    let again = deliver().await;
    assert!(matches!(again, Err(OnceError::NotReplayable)), "{again:?}");
    assert_eq!(Advice::of(&again), Advice::Acknowledge);
    let left = operations.inspect(id("m")).await.unwrap().unwrap();
    assert_eq!((left.state, left.fence), (OperationState::Consumed { status: 0 }, seen.fence));
}

// A seeded fault: the drain does not wait while the status is looked up.
#[tokio::test]
async fn a_drain_waits_for_an_answer_that_is_being_forgotten() {
    let store = TestStore::new();
    let layer = IdempotencyLayer::new(store.clone());
    Lab::counting(layer.clone()).post("k", "a").await;
    let operations = layer.operations();
    let seen = operations.inspect(id("k")).await.unwrap().unwrap();
    let stall = store.stall(StoreCall::Load);
    let mut changing = Box::pin(change(&operations, &seen, Action::ForgetAnswer));
    assert!(at_once(&mut changing).is_none());
    let mut drain = Box::pin(layer.drain(DAY));
    settle().await;
    assert!(at_once(&mut drain).is_none(), "the change is under way");
    stall.release();
    assert_eq!(changing.await.unwrap(), Applied::Done);
    assert!(drain.await.is_complete());
}

// Seeded fault: an operation whose answer was not kept stays.
#[tokio::test]
async fn a_purge_forgets_what_is_done_without_a_kept_answer() {
    let layer = layer(TestStore::new()).max_response_body(1);
    let lab = lab(layer.clone());
    send(&lab, "/200", "one", "k").await;
    let operations = layer.operations();
    let consumed = async || {
        let filter = Filter::all().in_state(StateKind::Consumed);
        operations.list(&filter, None, 9).await.unwrap().operations.len()
    };
    assert_eq!(consumed().await, 1);
    let purged = operations.by("alice").purge(&Filter::all().of_scope(account("one").digest()), None, 9).await.unwrap();
    assert_eq!((purged.forgotten, consumed().await), (1, 0));
}

#[tokio::test]
async fn a_consumers_operation_is_settled_with_json_that_the_consumer_can_read() {
    let once = Once::new(MemoryStore::new());
    let effect = |_| async { Err::<(String, u64), _>(EffectError::MaybeStarted("gone")) };
    once.run(id("m"), Fingerprint::of(b"m"), effect).await.unwrap_err();
    let operations = once.operations();
    let seen = operations.inspect(id("m")).await.unwrap().unwrap();
    assert!(matches!(change(&operations, &seen, answer("x")).await, Err(ChangeError::WrongForm)));
    for wrong in ["sent", "\"canary\"", "[\"sent\"]", "[\"sent\",\"canary\"]"] {
        let refused = change(&operations, &seen, Action::Answer(Answer::Bytes(Bytes::from(wrong)))).await;
        assert!(matches!(refused, Err(ChangeError::WrongType(_))), "{wrong}: {refused:?}");
        let said = refused.unwrap_err().to_string();
        assert!(said.contains("line 1, column ") && !said.contains("canary"), "{said}");
    }
    let again = || once.run(id("m"), Fingerprint::of(b"m"), |_| async { Ok::<_, EffectError<()>>(Default::default()) });
    assert!(matches!(again().await, Err(OnceError::OutcomeUnknown)), "nothing was changed");
    assert_eq!(change(&operations, &seen, outcome(("sent", 17))).await.unwrap(), Applied::Done);
    assert_eq!(again().await.unwrap().value, ("sent".to_owned(), 17));
}
