//! What was interrupted, and is settled by an operator.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use testkit::lab::operator::{Operated as _, outcome};
use testkit::lab::time::HOUR;
use tokio::time::timeout;
use tower_idempotency::Once;
use tower_idempotency::engine::{EffectError, OnceError};
use tower_idempotency::operations::{Action, Applied, ChangeError, OperationRecord};
use tower_idempotency::store::StoreError;
use tower_idempotency::test_util::{StoreCall, TestStore};

use super::deliver;

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
