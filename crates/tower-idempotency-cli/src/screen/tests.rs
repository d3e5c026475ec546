use bytes::Bytes;
use serde_json::json;
use testkit::lab::hold;
use testkit::lab::time::DAY;
use tower_idempotency::MemoryStore;
use tower_idempotency::internals::Records as _;
use tower_idempotency::operations::{Answer, Operations};

use super::*;

#[test]
fn the_outcome_of_a_consumer_is_written_as_it_is() {
    for (bytes, text, value) in [
        (&b"{\"paid\":5}"[..], "{\"paid\":5}", json!({ "body": "{\"paid\":5}" })),
        (b"a\x1b\n", "a\\u{1b}\n", json!({ "body": "a\u{1b}\n" })),
        (b"\xff\x0a", "\u{fffd}\n", json!({ "body": { "hex": "ff0a" } })),
    ] {
        let outcome = Answer::Bytes(Bytes::from_static(bytes));
        assert_eq!((&*answer(&outcome), answer_as_json(&outcome)), (text, value));
    }
}

#[tokio::test]
async fn a_run_of_this_process_is_shown_as_its_own() {
    let operations = Operations::over(MemoryStore::new(), DAY);
    let held = hold(operations.store(), "k").await;
    let (operation, now) = (operations.inspect(held.id).await.unwrap().unwrap(), operations.store().now());
    let text = details(&operation, now);
    assert!(text.contains("\nserver         this process"), "{text}");
    assert_eq!(operation_as_json(&operation, now)["server"], "here");
}
