//! The engine alone, for consumers of messages: a redelivered message has one effect and the same outcome (promises 1,
//! 2 and 5).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use testkit::lab::id;
use testkit::lab::operator::{Operated as _, outcome};
use testkit::lab::steps::{Claimed, Steps as _, Wish, wish};
use testkit::lab::time::HOUR;
use testkit::log::Log;
use tokio::time::timeout;
use tower_idempotency::engine::{Advice, EffectError, OnceContext, OnceError, Reconciled, Reconciler, Rerun};
use tower_idempotency::internals::{ClaimPolicy, Reply};
use tower_idempotency::operations::{Action, Applied, ChangeError, OperationRecord};
use tower_idempotency::store::{Store, StoreError};
use tower_idempotency::test_util::{StoreCall, TestStore};
use tower_idempotency::{Fingerprint, MemoryStore, OnInFlight, OnInterrupted, Once};
use tracing::Level;

type Failure = OnceError<&'static str>;

const MESSAGE: &[u8] = b"a message";

/// Delivers the message: its effect counts, and `end` decides how it ends.
async fn deliver<St: Store>(
    once: &Once<St, String>,
    effects: &Arc<AtomicUsize>,
    end: Result<&'static str, EffectError<&'static str>>,
) -> Result<(String, bool), Failure> {
    let effects = Arc::clone(effects);
    let effect = move |_: OnceContext<_>| async move {
        effects.fetch_add(1, Ordering::SeqCst);
        end.map(str::to_owned)
    };
    once.run(id("k"), Fingerprint::of(MESSAGE), effect).await.map(|outcome| (outcome.value, outcome.replayed))
}

#[tokio::test]
async fn a_redelivered_message_has_one_effect_and_the_same_outcome() {
    let (once, effects) = (Once::new(MemoryStore::new()), Arc::default());
    assert_eq!(deliver(&once, &effects, Ok("sent")).await.unwrap(), ("sent".into(), false));
    assert_eq!(deliver(&once, &effects, Ok("other")).await.unwrap(), ("sent".into(), true));
    assert_eq!(effects.load(Ordering::SeqCst), 1);
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Sent {
    mail: u64,
    to: Vec<Option<String>>,
}

#[tokio::test]
async fn an_outcome_of_any_serde_type_is_the_same_after_a_restart() {
    let sent = Sent { mail: 17, to: vec![Some("ann@example.com".to_owned()), None] };
    let mut store = TestStore::new();
    for replayed in [false, true, true] {
        store = store.reopen();
        let value = sent.clone();
        let effect = async move |_| Ok::<_, EffectError<&str>>(value);
        let result = Once::new(store.clone()).run(id("k"), Fingerprint::of(MESSAGE), effect).await;
        assert_eq!(Advice::of(&result), Advice::Acknowledge);
        let outcome = result.unwrap();
        assert_eq!((outcome.value, outcome.replayed), (sent.clone(), replayed));
    }
    // One that has nothing to say.
    for replayed in [false, true] {
        let effect = async |_| Ok::<_, EffectError<&str>>(());
        let outcome = Once::new(store.clone()).run(id("nothing"), Fingerprint::of(MESSAGE), effect).await.unwrap();
        assert_eq!((outcome.value, outcome.replayed), ((), replayed));
    }
}

// Seeded faults: a message whose outcome can't be read runs again; it is acknowledged, though the outcome may be that
// of another consumer.
#[tokio::test]
async fn trap_127_an_outcome_of_another_type_is_handed_over_and_nothing_runs() {
    let log = Log::begin(Level::ERROR);
    let (store, effects) = (MemoryStore::new(), Arc::default());
    deliver(&Once::new(store.clone()), &effects, Ok("canary-5e7c")).await.unwrap();
    let effect = async |_| -> Result<Sent, EffectError<&str>> { panic!("it runs again") };
    let result = Once::new(store).run(id("k"), Fingerprint::of(MESSAGE), effect).await;
    assert!(matches!(result, Err(OnceError::WrongType(_))), "{result:?}");
    assert_eq!(Advice::of(&result), Advice::HandOver);
    let lines = log.lines();
    assert!(lines.iter().any(|line| line.contains("is of another type") && line.contains("column=")), "{lines:?}");
    // Seeded fault: the log had the error's text, which quotes the outcome.
    assert!(!lines.concat().contains("canary"), "{lines:?}");
}

// Without serde_json's `float_roundtrip`, 186 of them are off in their last digit.
#[tokio::test]
async fn trap_128_each_number_is_the_same_in_a_replay() {
    let once = Once::new(MemoryStore::new());
    let numbers: Vec<f64> = (1..2_000).map(|number: i32| f64::from(number).sqrt() * 1e-7).collect();
    for replayed in [false, true] {
        let value = numbers.clone();
        let effect = async move |_| Ok::<_, EffectError<&str>>(value);
        let outcome = once.run(id("k"), Fingerprint::of(MESSAGE), effect).await.unwrap();
        assert_eq!((outcome.value, outcome.replayed), (numbers.clone(), replayed));
    }
}

/// A value that can't be written.
#[derive(Debug, Deserialize)]
struct Panics;

impl Serialize for Panics {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("on purpose")
    }
}

// Seeded fault: the panic is taken for one of the effect, which runs again.
#[tokio::test]
async fn trap_126_a_panic_while_an_outcome_is_written_does_not_let_the_message_run_again() {
    let once = Once::new(MemoryStore::new()).on_interrupted(OnInterrupted::Rerun);
    let run = || once.run(id("k"), Fingerprint::of(MESSAGE), async |_| Ok::<_, EffectError<&str>>(Panics));
    assert!(run().await.is_ok());
    let result = run().await;
    assert!(matches!(result, Err(OnceError::NotReplayable)), "{result:?}");
}

// Seeded faults: the first delivery fails, too; the id is free, or interrupted.
#[tokio::test]
async fn an_outcome_that_json_can_t_have_is_given_once_and_the_message_never_runs_again() {
    let log = Log::begin(Level::ERROR);
    let (once, effects) = (Once::new(MemoryStore::new()), Arc::new(AtomicUsize::new(0)));
    let run = || {
        let effects = effects.clone();
        let effect = async move |_| {
            effects.fetch_add(1, Ordering::SeqCst);
            Ok::<_, EffectError<&str>>(BTreeMap::from([((1, 2), 3)]))
        };
        once.run(id("k"), Fingerprint::of(MESSAGE), effect)
    };
    assert_eq!(run().await.unwrap().value[&(1, 2)], 3);
    for _ in 0..2 {
        let result = run().await;
        assert!(matches!(result, Err(OnceError::NotReplayable)), "{result:?}");
        assert_eq!(Advice::of(&result), Advice::Acknowledge);
    }
    assert_eq!(effects.load(Ordering::SeqCst), 1);
    let lines = log.lines();
    assert!(lines.iter().any(|line| line.contains("can't be recorded") && line.contains("key must be a string")));
}

#[tokio::test]
async fn an_outcome_of_the_reconciler_that_json_can_t_have_leaves_the_message_interrupted() {
    let (store, asked) = (TestStore::new(), Arc::new(AtomicUsize::new(0)));
    let lost = async |_| Err::<BTreeMap<(u8, u8), u8>, _>(EffectError::MaybeStarted("no answer"));
    Once::new(store.clone()).run(id("k"), Fingerprint::of(MESSAGE), lost).await.unwrap_err();
    let asks = asked.clone();
    let reconciler = Reconciler::new(move |_| {
        asks.fetch_add(1, Ordering::SeqCst);
        async { Reconciled::Outcome(BTreeMap::from([((1, 2), 3)])) }
    });
    let result = Once::new(store).reconcile_with(reconciler).run(id("k"), Fingerprint::of(MESSAGE), lost).await;
    assert!(matches!(result, Err(OnceError::OutcomeUnknown)), "{result:?}");
    assert_eq!((Advice::of(&result), asked.load(Ordering::SeqCst)), (Advice::HandOver, 1));
}

#[tokio::test]
async fn another_message_under_the_same_id_is_refused() {
    let (once, effects) = (Once::new(MemoryStore::new()), Arc::default());
    deliver(&once, &effects, Ok("sent")).await.unwrap();
    let effect = |_| async { Ok::<_, EffectError<&str>>(String::new()) };
    let refused = once.run(id("k"), Fingerprint::of(b"another"), effect).await;
    assert!(matches!(refused, Err(OnceError::Mismatch(_))), "{refused:?}");
    assert_eq!(refused.unwrap_err().advice(), Advice::HandOver);
}

#[tokio::test]
async fn an_effect_that_says_it_did_not_start_may_run_again_and_any_other_failure_may_not() {
    let (once, effects) = (Once::new(MemoryStore::new()), Arc::default());
    let failed = deliver(&once, &effects, Err(EffectError::NotStarted("no connection"))).await;
    assert!(matches!(failed, Err(OnceError::Effect(EffectError::NotStarted("no connection")))), "{failed:?}");
    let failed = deliver(&once, &effects, Err(EffectError::MaybeStarted("no answer"))).await;
    assert!(matches!(failed, Err(OnceError::Effect(EffectError::MaybeStarted("no answer")))), "{failed:?}");
    let refused = deliver(&once, &effects, Ok("sent")).await;
    assert!(matches!(refused, Err(OnceError::OutcomeUnknown)), "{refused:?}");
    assert_eq!(effects.load(Ordering::SeqCst), 2);
}

/// Delivers the message until it is acknowledged or handed over. Returns which, and how often it was delivered.
async fn follow(once: &Once<MemoryStore, String>, failures: Vec<EffectError<&'static str>>) -> (Advice, usize) {
    let mut failures = failures.into_iter();
    let effects = Arc::default();
    for delivered in 1..=10 {
        let end = failures.next().map_or(Ok("sent"), Err);
        let advice = deliver(once, &effects, end).await.map_or_else(|error| error.advice(), |_| Advice::Acknowledge);
        if advice != Advice::Redeliver {
            return (advice, delivered);
        }
    }
    panic!("it is delivered without end");
}

// Seeded faults: an effect that may have started is handed over at once; an unknown outcome is redelivered.
#[tokio::test]
async fn the_advice_brings_each_message_to_an_end_that_the_policy_allows() {
    let (not_started, maybe_started) =
        (|| EffectError::NotStarted("no connection"), || EffectError::MaybeStarted("no answer"));
    let once = || Once::new(MemoryStore::new());
    assert_eq!(follow(&once(), vec![]).await, (Advice::Acknowledge, 1));
    assert_eq!(follow(&once(), vec![not_started(), not_started()]).await, (Advice::Acknowledge, 3));
    let rerun = once().on_interrupted(OnInterrupted::Rerun);
    assert_eq!(follow(&rerun, vec![maybe_started(), maybe_started()]).await, (Advice::Acknowledge, 3));
    let refuse = once();
    assert_eq!(follow(&refuse, vec![maybe_started()]).await, (Advice::HandOver, 2));
    // Nothing ran the second time, or it would have been acknowledged.
    assert_eq!(follow(&refuse, vec![]).await, (Advice::HandOver, 1));
}

#[tokio::test(start_paused = true)]
async fn what_was_interrupted_is_settled_by_who_knows() {
    let (store, effects) = (TestStore::new(), Arc::default());
    let once = Once::new(store.clone());
    deliver(&once, &effects, Err(EffectError::MaybeStarted("no answer"))).await.unwrap_err();
    let Ok([interrupted]) = <[_; 1]>::try_from(once.interrupted(10).await.unwrap()) else {
        panic!("one was interrupted")
    };
    let sent = outcome("it was sent");
    (0..3).for_each(|_| store.fail_next(StoreCall::Resolve));
    assert!(once.resolve(interrupted.id, interrupted.fence, sent.clone()).await.is_err());
    assert_eq!(once.interrupted(10).await.unwrap(), std::slice::from_ref(&interrupted), "nothing was done");
    let settled = once.resolve(interrupted.id, interrupted.fence, sent.clone()).await.unwrap();
    assert_eq!(settled, Applied::Done);
    assert_eq!(once.interrupted(10).await.unwrap(), []);
    assert_eq!(deliver(&once, &effects, Ok("sent")).await.unwrap(), ("it was sent".into(), true));
    let settled = once.resolve(interrupted.id, interrupted.fence, sent).await.unwrap();
    assert_eq!(settled, Applied::Stale);
    assert_eq!(effects.load(Ordering::SeqCst), 1);
}

/// Leaves a key whose run was interrupted, and returns its entry in the list.
async fn leave_interrupted(once: &Once<TestStore, String>) -> OperationRecord {
    deliver(once, &Arc::default(), Err(EffectError::MaybeStarted("no answer"))).await.unwrap_err();
    once.interrupted(1).await.unwrap().remove(0)
}

fn answer() -> Action {
    outcome("it was sent")
}

#[tokio::test(start_paused = true)]
async fn settling_that_the_store_does_not_answer_holds_nobody_up_for_long() {
    let store = TestStore::new();
    let once = Once::new(store.clone());
    let interrupted = leave_interrupted(&once).await;
    let stall = store.stall(StoreCall::Resolve);
    let unanswered = once.resolve(interrupted.id, interrupted.fence, answer()).await;
    assert!(matches!(unanswered, Err(ChangeError::Store(StoreError::Uncertain { .. }))), "{unanswered:?}");
    let meanwhile = deliver(&once, &Arc::default(), Ok("sent")).await;
    assert!(matches!(meanwhile, Err(OnceError::Unavailable)), "{meanwhile:?}");
    stall.release();
    assert_eq!(once.drain(Duration::from_secs(60)).await.runs, 0);
    assert_eq!(deliver(&once, &Arc::default(), Ok("sent")).await.unwrap(), ("it was sent".into(), true));
}

#[tokio::test]
async fn settling_whose_acknowledgement_was_lost_is_sent_again_and_known_for_our_own() {
    for resolution in [answer(), Action::Release] {
        let store = TestStore::new();
        let once = Once::new(store.clone());
        let interrupted = leave_interrupted(&once).await;
        store.lose_answer(StoreCall::Resolve);
        let settled = once.resolve(interrupted.id, interrupted.fence, resolution.clone()).await.unwrap();
        assert_eq!(settled, Applied::Done);
        let (_, replayed) = deliver(&once, &Arc::default(), Ok("sent")).await.unwrap();
        assert_eq!(replayed, matches!(resolution, Action::Answer(_)));
    }
}

#[tokio::test(start_paused = true)]
async fn settling_that_was_never_acknowledged_refuses_the_key_until_it_is() {
    let store = TestStore::new();
    let once = Once::new(store.clone());
    let interrupted = leave_interrupted(&once).await;
    (0..4).for_each(|_| store.lose_answer(StoreCall::Resolve));
    let unanswered = once.resolve(interrupted.id, interrupted.fence, answer()).await;
    assert!(matches!(unanswered, Err(ChangeError::Store(StoreError::Uncertain { .. }))), "{unanswered:?}");
    let mut refusals = 0;
    let answered = async {
        loop {
            match deliver(&once, &Arc::default(), Ok("sent")).await {
                Ok(answered) => return answered,
                Err(OnceError::Unavailable) => refusals += 1,
                Err(error) => panic!("{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let answered = timeout(HOUR, answered).await.expect("the store is told");
    assert_eq!(answered, ("it was sent".into(), true));
    assert!(refusals > 0);
}

// Found by the interleavings: forgotten at the second of three tries, of which the last reports that it did nothing.
#[tokio::test(start_paused = true)]
async fn a_key_that_was_forgotten_without_a_word_is_free_once_the_store_says_so() {
    let store = TestStore::new();
    let once = Once::new(store.clone());
    let interrupted = leave_interrupted(&once).await;
    store.fail_next(StoreCall::Resolve);
    store.lose_answer(StoreCall::Resolve);
    store.fail_next(StoreCall::Resolve);
    let unanswered = once.resolve(interrupted.id, interrupted.fence, Action::Release).await;
    assert!(matches!(unanswered, Err(ChangeError::Store(StoreError::Uncertain { .. }))), "{unanswered:?}");
    let meanwhile = deliver(&once, &Arc::default(), Ok("sent")).await;
    assert!(matches!(meanwhile, Err(OnceError::Unavailable)), "{meanwhile:?}");
    assert!(once.drain(Duration::from_secs(60)).await.is_complete());
    let again = Once::new(store.reopen());
    assert_eq!(deliver(&again, &Arc::default(), Ok("sent")).await.unwrap(), ("sent".into(), false));
}

#[tokio::test]
async fn an_operator_who_goes_away_leaves_the_slot_until_what_he_said_is_durable() {
    let store = TestStore::new();
    let once = Once::new(store.clone());
    let interrupted = leave_interrupted(&once).await;
    let stall = store.stall(StoreCall::Resolve);
    let mut resolving = Box::pin(once.resolve(interrupted.id, interrupted.fence, answer()));
    assert!(futures_util::poll!(resolving.as_mut()).is_pending());
    drop(resolving);
    assert_eq!(once.stats().live, 1, "the slot is held");
    stall.release();
    assert_eq!(once.drain(Duration::from_secs(60)).await.runs, 0);
    assert_eq!(deliver(&once, &Arc::default(), Ok("sent")).await.unwrap(), ("it was sent".into(), true));
}

#[tokio::test]
async fn what_would_run_again_is_not_refused_for_good_while_the_process_is_shutting_down() {
    let store = TestStore::new();
    let wish = Wish { policy: ClaimPolicy::Rerun, fingerprint: Fingerprint::of(MESSAGE), ..wish("k") };
    let Claimed::Fresh(hold) = store.claim(wish).await.unwrap() else { panic!("the key is new") };
    assert_eq!(store.interrupt(hold.id, hold.fence).await.unwrap(), Reply::Taken);
    let [refuse, rerun] = [OnInterrupted::Refuse, OnInterrupted::Rerun];
    let once = Once::new(store).on_interrupted(rerun);
    let _ = once.drain(Duration::ZERO).await;
    let refused = deliver(&once, &Arc::default(), Ok("sent")).await;
    assert!(matches!(refused, Err(OnceError::ShuttingDown)), "{refused:?}");
    let refused = deliver(&once.on_interrupted(refuse), &Arc::default(), Ok("sent")).await;
    assert!(matches!(refused, Err(OnceError::OutcomeUnknown)), "{refused:?}");
}

#[tokio::test]
async fn a_rerun_knows_that_it_is_one_and_has_a_higher_fence() {
    let store = TestStore::new();
    let once = Once::new(store.clone());
    let mut fences = Vec::new();
    let effect = |store: TestStore| {
        move |context: OnceContext<_>| async move {
            assert_eq!((context.attempt(), context.rerun()), (1, Rerun::No));
            store.crash();
            Ok::<_, EffectError<&str>>(context.fence().0)
        }
    };
    let outcome = once.run(id("k"), Fingerprint::of(MESSAGE), effect(store.clone())).await.unwrap();
    fences.push(outcome.value);
    let once = Once::new(store.reopen()).reconcile_with(Reconciler::new(|_| async { Reconciled::RunAgain }));
    let effect = |context: OnceContext<_>| async move {
        assert_eq!((context.attempt(), context.rerun()), (2, Rerun::Yes));
        Ok::<_, EffectError<&str>>(context.fence().0)
    };
    fences.push(once.run(id("k"), Fingerprint::of(MESSAGE), effect).await.unwrap().value);
    assert!(fences[1] > fences[0]);
}

// A seeded fault: while it runs, they are compared with the message that runs again.
#[tokio::test]
async fn duplicates_of_a_rerun_are_compared_with_the_message_that_was_recorded() {
    let store = TestStore::new();
    let wish = Wish { policy: ClaimPolicy::Rerun, fingerprint: Fingerprint::of(MESSAGE), ..wish("k") };
    let Claimed::Fresh(hold) = store.claim(wish).await.unwrap() else { panic!("the key is new") };
    assert_eq!(store.interrupt(hold.id, hold.fence).await.unwrap(), Reply::Taken);
    let once = Once::new(store).on_interrupted(OnInterrupted::Rerun).on_in_flight(OnInFlight::Reject);
    // The recorded message has no credentials.
    let again = Fingerprint::builder(&id("k")).field("message", MESSAGE).with_credentials().finish();
    let meets = once.clone();
    let effect = move |_: OnceContext<_>| async move {
        let met = deliver(&meets, &Arc::default(), Ok("other")).await;
        assert!(matches!(met, Err(OnceError::InFlight)), "{met:?}");
        Ok::<_, EffectError<&str>>("sent".into())
    };
    assert_eq!(once.run(id("k"), again, effect).await.unwrap().value, "sent");
    assert_eq!(deliver(&once, &Arc::default(), Ok("other")).await.unwrap(), ("sent".into(), true));
}

#[tokio::test]
async fn an_effect_that_panics_or_hangs_is_interrupted() {
    let once = Once::new(MemoryStore::new()).max_run(Duration::from_millis(1));
    let panics = |_: OnceContext<_>| async { panic!("on purpose") as Result<(), EffectError<&str>> };
    let ended = once.run(id("panics"), Fingerprint::of(MESSAGE), panics).await;
    assert!(matches!(ended, Err(OnceError::Interrupted)), "{ended:?}");
    let hangs = |_: OnceContext<_>| std::future::pending::<Result<(), EffectError<&str>>>();
    let ended = once.run(id("hangs"), Fingerprint::of(MESSAGE), hangs).await;
    assert!(matches!(ended, Err(OnceError::Interrupted)), "{ended:?}");
    assert_eq!(once.interrupted(10).await.unwrap().len(), 2);
    assert_eq!(once.stats().interrupted, 2);
}

#[tokio::test]
async fn drain_refuses_new_ids_gives_outcomes_and_says_how_many_runs_are_left() {
    let once = Once::new(MemoryStore::new()).on_in_flight(OnInFlight::Reject);
    let effects = Arc::default();
    deliver(&once, &effects, Ok("sent")).await.unwrap();
    let (open, gate) = tokio::sync::oneshot::channel::<()>();
    let (arrived, arrival) = tokio::sync::oneshot::channel();
    let running = tokio::spawn({
        let once = once.clone();
        async move {
            let effect = |_: OnceContext<_>| async move {
                arrived.send(()).unwrap();
                gate.await.unwrap();
                Ok::<_, EffectError<&str>>(String::new())
            };
            once.run(id("slow"), Fingerprint::of(MESSAGE), effect).await
        }
    });
    arrival.await.unwrap();
    assert_eq!(once.drain(Duration::from_millis(1)).await.runs, 1);
    assert!(deliver(&once, &effects, Ok("sent")).await.unwrap().1, "a replay");
    let effect = |_: OnceContext<_>| async { Ok::<_, EffectError<&str>>(String::new()) };
    let refused = once.run(id("new"), Fingerprint::of(MESSAGE), effect).await;
    assert!(matches!(refused, Err(OnceError::ShuttingDown)), "{refused:?}");
    open.send(()).unwrap();
    assert_eq!(once.drain(Duration::from_secs(60)).await.runs, 0);
    running.await.unwrap().unwrap();
}
