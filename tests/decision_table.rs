//! wip
mod common;
use common::lab::*;
use tower_idempotency::*;
#[tokio::test]
async fn a_new_key_runs_and_its_retry_is_replayed() {
    let lab = Lab::counting(IdempotencyLayer::new(MemoryStore::new()));
    let first = lab.post("k", "a").await;
    let second = lab.post("k", "a").await;
    assert_eq!(first.body, second.body);
    assert!(second.is_replay());
    assert_eq!(lab.post("k", "b").await.refusal(), (422, "key-reused".to_owned()));
}
