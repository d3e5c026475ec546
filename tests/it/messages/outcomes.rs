//! What an outcome may be, and what becomes of one that can't be written or read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};
use testkit::lab::id;
use testkit::log::Log;
use tower_idempotency::engine::{Advice, EffectError, OnceError, Reconciled, Reconciler};
use tower_idempotency::test_util::TestStore;
use tower_idempotency::{Fingerprint, MemoryStore, OnInterrupted, Once};
use tracing::Level;

use super::{MESSAGE, deliver};

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
