//! Each change is an event in the log, once it is made or may have been made.

use testkit::lab::asked::leave_interrupted;
use testkit::lab::{at_once, id, settle};
use testkit::log::Log;
use tower_idempotency::operations::{Action, ChangeError, StateKind};
use tower_idempotency::store::StoreError;
use tower_idempotency::test_util::{StoreCall, TestStore};
use tower_idempotency::{IdempotencyLayer, MemoryStore};
use tracing::Level;

use super::{account, answer, change, lab, layer, send};

#[tokio::test(start_paused = true)]
async fn a_settlement_that_comes_late_is_logged_as_made_once_it_is() {
    let store = TestStore::new();
    leave_interrupted(&store, "k").await;
    let store = store.reopen();
    let operations = IdempotencyLayer::new(store.clone()).operations();
    let seen = operations.inspect(id("k")).await.unwrap().unwrap();
    let (log, stall) = (Log::begin(Level::INFO), store.stall(StoreCall::Resolve));
    let unanswered = change(&operations, &seen, answer("settled")).await;
    assert!(matches!(unanswered, Err(ChangeError::Store(StoreError::Uncertain { .. }))), "{unanswered:?}");
    assert!(!log.lines().iter().any(|line| line.contains("audit")), "it is not known yet");
    stall.release();
    settle().await;
    let lines = log.lines();
    assert!(lines.iter().any(|line| line.contains("audit") && line.ends_with("result=\"done\"")), "{lines:?}");
}

#[tokio::test]
async fn each_change_is_an_event_that_names_its_actor_and_shows_no_secret() {
    let layer = layer(MemoryStore::new());
    let lab = lab(layer.clone());
    send(&lab, "/502", "canary-account", "canary-key").await;
    let operations = layer.operations();
    let seen =
        operations.find(Some(&account("canary-account")), &"canary-key".parse().unwrap()).await.unwrap().unwrap();
    let log = Log::begin(Level::INFO);
    let _ = change(&operations, &seen, Action::Forget).await.unwrap();
    let _ = change(&operations, &seen, Action::ForgetAnswer).await.unwrap();
    let _ = change(&operations, &seen, Action::Reconcile).await.unwrap_err();
    let _ = change(&operations, &seen, answer("canary-body")).await.unwrap();
    let (id, fence) = (seen.id, seen.fence);
    let event = |level: &str, action: &str, result: &str| {
        format!(
            "{level} tower_idempotency::audit: {result} actor=\"alice\" action=\"{action}\" record_id={id} fence={fence}"
        )
    };
    let lines = log.lines();
    assert_eq!(lines.len(), 4, "{lines:?}");
    for (line, action) in lines.iter().zip(["forget", "forget-answer"]) {
        assert_eq!(*line, event("INFO", action, "an operator changed an operation") + " result=\"stale\"");
    }
    assert!(
        lines[2].starts_with(&event(
            "WARN",
            "reconcile",
            "an operator's change of an operation failed, or it is not known what became of it"
        )),
        "{lines:?}"
    );
    assert_eq!(lines[3], event("INFO", "answer", "an operator changed an operation") + " result=\"done\"");
    assert!(!lines.concat().contains("canary"), "{lines:?}");
}

// Seeded fault: an operator takes a change that may have been made for one that was not.
#[tokio::test(start_paused = true)]
async fn the_event_of_a_change_that_may_have_been_made_says_so() {
    let store = TestStore::new();
    leave_interrupted(&store, "k").await;
    let store = store.reopen();
    let operations = IdempotencyLayer::new(store.clone()).operations();
    let seen = operations.inspect(id("k")).await.unwrap().unwrap();
    let log = Log::begin(Level::INFO);
    for _ in 0..4 {
        store.lose_answer(StoreCall::Resolve);
    }
    let _ = change(&operations, &seen, answer("settled")).await.unwrap_err();
    let lines = log.lines();
    assert!(lines.iter().any(|line| line.contains("result=\"uncertain\"")), "{lines:?}");
    assert!(!lines.concat().contains("result=\"failed\""), "{lines:?}");
}

#[tokio::test]
async fn a_change_whose_caller_goes_away_is_made_and_logged() {
    let store = TestStore::new();
    leave_interrupted(&store, "k").await;
    let store = store.reopen();
    let layer = IdempotencyLayer::new(store.clone());
    let operations = layer.operations();
    let seen = operations.inspect(id("k")).await.unwrap().unwrap();
    let log = Log::begin(Level::INFO);
    let stall = store.stall(StoreCall::Resolve);
    let mut changing = Box::pin(change(&operations, &seen, answer("settled")));
    assert!(at_once(&mut changing).is_none());
    drop(changing);
    drop(stall);
    settle().await;
    assert_eq!(operations.inspect(id("k")).await.unwrap().unwrap().state.kind(), StateKind::Completed);
    assert!(log.lines().iter().any(|line| line.contains("actor=\"alice\" action=\"answer\"")));
}
