//! The span of an exchange over a shared store.

use std::time::Duration;

use testkit::Gate;
use testkit::lab::post;
use testkit::log::{in_spans, logged};
use tower_idempotency::{IdempotencyLayer, OnInFlight};

use crate::world::{Effects, database, process};

#[test]
fn a_wait_for_a_run_of_this_process_and_for_its_record_is_one_wait() {
    let log = logged(async {
        let store = process(&database()).await;
        let gate = Gate::default();
        let layer = IdempotencyLayer::new(store).on_in_flight(OnInFlight::Wait(Duration::from_secs(1)));
        let lab = Effects::default().behind(layer, &gate);
        let first = lab.spawn(post("k", "a"));
        gate.arrival().await;
        assert_eq!(lab.post("k", "a").await.problem(), "in-flight");
        gate.open();
        first.await.unwrap();
    });
    let waited = in_spans(&log, "waited_ms");
    assert_eq!(waited.concat().len(), 1, "{waited:?}");
    assert_eq!(in_spans(&log, "outcome").concat(), ["in-flight", "ran"]);
}
