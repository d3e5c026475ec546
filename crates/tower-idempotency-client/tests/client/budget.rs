//! The budget that calls share for their retries.

use std::time::Duration;

use tower::Layer as _;
use tower::retry::budget::TpsBudget;
use tower_idempotency_client::{KeyedRetryLayer, Reason};

use crate::script::Script;

#[tokio::test(start_paused = true)]
async fn trap_64_calls_share_a_budget_for_their_retries() {
    // A retry for each two calls of the last minute, and none besides.
    let layer = KeyedRetryLayer::new().budget(TpsBudget::new(Duration::from_secs(60), 0, 0.5));
    let first = Script::default().fails("reset").post(&layer).await.unwrap_err();
    assert_eq!(first.reason(), Reason::Budget);
    // The clone has what the first call has paid in.
    let second = Script::default().fails("reset").fails("reset").post(&layer.clone()).await.unwrap_err();
    assert_eq!((second.reason(), second.attempts()), (Reason::Budget, 2));
    assert!(format!("{:?}", layer.layer(())).starts_with("KeyedRetry"));
}
