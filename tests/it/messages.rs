//! The engine alone, for consumers of messages: a redelivered message has one effect and the same outcome (promises 1,
//! 2 and 5).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use testkit::lab::id;
use testkit::lab::operator::{Operated as _, outcome};
use testkit::lab::steps::{Claimed, Steps as _, Wish, wish};
use testkit::lab::time::HOUR;
use tokio::time::timeout;
use tower_idempotency::engine::{Advice, EffectError, OnceError, Reconciled, Reconciler, Rerun, RunContext};
use tower_idempotency::internals::{ClaimPolicy, Reply};
use tower_idempotency::operations::{Action, Applied, ChangeError, OperationRecord};
use tower_idempotency::store::{Store, StoreError};
use tower_idempotency::test_util::{StoreCall, TestStore};
use tower_idempotency::{Fingerprint, MemoryStore, OnInFlight, OnInterrupted, Once};

type Failure = OnceError<&'static str>;

const MESSAGE: &[u8] = b"a message";

/// Delivers the message: its effect counts, and `end` decides how it ends.
async fn deliver<St: Store>(
    once: &Once<St>,
    effects: &Arc<AtomicUsize>,
    end: Result<&'static str, EffectError<&'static str>>,
) -> Result<(Bytes, bool), Failure> {
    let effects = Arc::clone(effects);
    let effect = move |_: RunContext| async move {
        effects.fetch_add(1, Ordering::SeqCst);
        end.map(Bytes::from)
    };
    once.run(id("k"), Fingerprint::of(MESSAGE), effect).await.map(|outcome| (outcome.bytes, outcome.replayed))
}

#[tokio::test]
async fn a_redelivered_message_has_one_effect_and_the_same_outcome() {
    let (once, effects) = (Once::new(MemoryStore::new()), Arc::default());
    assert_eq!(deliver(&once, &effects, Ok("sent")).await.unwrap(), ("sent".into(), false));
    assert_eq!(deliver(&once, &effects, Ok("other")).await.unwrap(), ("sent".into(), true));
    assert_eq!(effects.load(Ordering::SeqCst), 1);
}

// Seeded fault: the record has the bytes that the effect returned.
#[tokio::test]
async fn a_recorded_outcome_that_was_a_small_part_of_a_large_buffer_does_not_keep_the_buffer() {
    struct Buffer(Arc<[u8]>);

    impl AsRef<[u8]> for Buffer {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    let buffer: Arc<[u8]> = vec![b'x'; 1024 * 1024].into();
    let (once, whole) = (Once::new(MemoryStore::new()), Bytes::from_owner(Buffer(Arc::clone(&buffer))));
    let effect = |_| async move { Ok::<_, EffectError<&str>>(whole.slice(..4)) };
    let outcome = once.run(id("k"), Fingerprint::of(MESSAGE), effect).await.unwrap();
    assert_eq!(outcome.bytes, "xxxx");
    drop(outcome);
    assert_eq!(Arc::strong_count(&buffer), 1);
    assert_eq!(deliver(&once, &Arc::default(), Ok("other")).await.unwrap(), ("xxxx".into(), true));
}

#[tokio::test]
async fn another_message_under_the_same_id_is_refused() {
    let (once, effects) = (Once::new(MemoryStore::new()), Arc::default());
    deliver(&once, &effects, Ok("sent")).await.unwrap();
    let effect = |_| async { Ok::<_, EffectError<&str>>(Bytes::new()) };
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
async fn follow(once: &Once<MemoryStore>, failures: Vec<EffectError<&'static str>>) -> (Advice, usize) {
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
async fn leave_interrupted(once: &Once<TestStore>) -> OperationRecord {
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
        move |context: RunContext| async move {
            assert_eq!((context.attempt(), context.rerun()), (1, Rerun::No));
            store.crash();
            Ok::<_, EffectError<&str>>(context.fence().0.to_string().into())
        }
    };
    let outcome = once.run(id("k"), Fingerprint::of(MESSAGE), effect(store.clone())).await.unwrap();
    fences.push(outcome.bytes);
    let once = Once::new(store.reopen()).reconcile_with(Reconciler::new(|_| async { Reconciled::RunAgain }));
    let effect = |context: RunContext| async move {
        assert_eq!((context.attempt(), context.rerun()), (2, Rerun::Yes));
        Ok::<_, EffectError<&str>>(context.fence().0.to_string().into())
    };
    fences.push(once.run(id("k"), Fingerprint::of(MESSAGE), effect).await.unwrap().bytes);
    let [first, second] = [0, 1].map(|at| std::str::from_utf8(&fences[at]).unwrap().parse::<u64>().unwrap());
    assert!(second > first);
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
    let effect = move |_: RunContext| async move {
        let met = deliver(&meets, &Arc::default(), Ok("other")).await;
        assert!(matches!(met, Err(OnceError::InFlight)), "{met:?}");
        Ok::<_, EffectError<&str>>("sent".into())
    };
    assert_eq!(once.run(id("k"), again, effect).await.unwrap().bytes, "sent");
    assert_eq!(deliver(&once, &Arc::default(), Ok("other")).await.unwrap(), ("sent".into(), true));
}

#[tokio::test]
async fn an_effect_that_panics_or_hangs_is_interrupted() {
    let once = Once::new(MemoryStore::new()).max_run(Duration::from_millis(1));
    let panics = |_: RunContext| async { panic!("on purpose") as Result<Bytes, EffectError<&str>> };
    let ended = once.run(id("panics"), Fingerprint::of(MESSAGE), panics).await;
    assert!(matches!(ended, Err(OnceError::Interrupted)), "{ended:?}");
    let hangs = |_: RunContext| std::future::pending::<Result<Bytes, EffectError<&str>>>();
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
            let effect = |_: RunContext| async move {
                arrived.send(()).unwrap();
                gate.await.unwrap();
                Ok::<_, EffectError<&str>>(Bytes::new())
            };
            once.run(id("slow"), Fingerprint::of(MESSAGE), effect).await
        }
    });
    arrival.await.unwrap();
    assert_eq!(once.drain(Duration::from_millis(1)).await.runs, 1);
    assert!(deliver(&once, &effects, Ok("sent")).await.unwrap().1, "a replay");
    let effect = |_: RunContext| async { Ok::<_, EffectError<&str>>(Bytes::new()) };
    let refused = once.run(id("new"), Fingerprint::of(MESSAGE), effect).await;
    assert!(matches!(refused, Err(OnceError::ShuttingDown)), "{refused:?}");
    open.send(()).unwrap();
    assert_eq!(once.drain(Duration::from_secs(60)).await.runs, 0);
    running.await.unwrap().unwrap();
}
