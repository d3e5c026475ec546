//! How long the first page of each list takes, in a store with many records.

use std::time::{Duration, Instant};

use tower_idempotency::clock::Timestamp;
use tower_idempotency::engine::Cause;
use tower_idempotency::operations::{Filter, Operations, StateKind};
use tower_idempotency::store::Store;

use super::estimate::{Estimate, pairs};
use super::report::Report;

/// The longest time for a first page, in ms.
const MOST: f64 = 100.0;
const PAGE: usize = 100;

/// Measures the first page of each list, and of each filter that selects little or nothing.
pub async fn measure(report: &mut Report, group: &str, store: impl Store) {
    let operations = Operations::over(store, Duration::from_secs(3_600));
    let all = Filter::all;
    let states = StateKind::ALL.into_iter().map(|state| (state.to_string(), all().in_state(state)));
    let filters = [
        ("any", all()),
        ("a cause", all().caused_by(Cause::Panicked)),
        ("a label", all().labelled("nothing")),
        ("a status", all().answered_with(418)),
        ("a scope", all().of_scope([0; 32])),
        ("before", all().before(Timestamp::from_millis(1))),
        ("interrupted before", all().in_state(StateKind::Interrupted).before(Timestamp::from_millis(1))),
        ("interrupted with a label", all().in_state(StateKind::Interrupted).labelled("nothing")),
    ];
    for (name, filter) in states.chain(filters.map(|(name, filter)| (name.to_owned(), filter))) {
        let mut times = Vec::new();
        for _ in 0..pairs() {
            let began = Instant::now();
            operations.list(&filter, None, PAGE).await.expect("the store answers");
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
        tell(report, group, &name, times);
    }
    let mut times = Vec::new();
    for _ in 0..pairs() {
        let began = Instant::now();
        operations.disputed(None, PAGE).await.expect("the store answers");
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    tell(report, group, "disputed", times);
}

fn tell(report: &mut Report, group: &str, name: &str, times: Vec<f64>) {
    let times = Estimate::of(times);
    report.row(group, &format!("first page, {name}"), "ms", times);
    report.at_most(&format!("{group}/{name}"), times, MOST);
}
