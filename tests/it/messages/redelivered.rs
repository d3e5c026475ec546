//! How a message ends, and when it is delivered or runs again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use testkit::lab::id;
use testkit::lab::operator::Operated as _;
use testkit::lab::steps::{Claimed, Steps as _, Wish, wish};
use tower_idempotency::engine::{Advice, EffectError, OnceContext, OnceError, Reconciled, Reconciler, Rerun};
use tower_idempotency::internals::{ClaimPolicy, Reply};
use tower_idempotency::test_util::TestStore;
use tower_idempotency::{Fingerprint, MemoryStore, OnInFlight, OnInterrupted, Once};

use super::{MESSAGE, deliver};

#[tokio::test]
async fn a_redelivered_message_has_one_effect_and_the_same_outcome() {
    let (once, effects) = (Once::new(MemoryStore::new()), Arc::default());
    assert_eq!(deliver(&once, &effects, Ok("sent")).await.unwrap(), ("sent".into(), false));
    assert_eq!(deliver(&once, &effects, Ok("other")).await.unwrap(), ("sent".into(), true));
    assert_eq!(effects.load(Ordering::SeqCst), 1);
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
