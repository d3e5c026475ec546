//! Stores that break one rule each: the suite catches each by the rule's name, and has no rule that catches none.

mod effects;
mod fault;
mod records;

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use fault::{CAUGHT, Fault};
use futures_util::FutureExt as _;
use records::Broken;
use tower_idempotency::clock::{ManualClock, Timestamp};
use tower_idempotency_conformance::store::{RULES, StoreSubject, rule};

const MOST: usize = 1_500;

/// A store alone, or one of two processes that share their records. Then every claim leaves a record, and every release
/// a tombstone.
fn subject(fault: Fault, is_alone: bool) -> StoreSubject<Broken> {
    let clock = ManualClock::new(Timestamp::from_millis(1_790_000_000_000));
    let store = Broken::new(fault, clock.clone(), MOST);
    let disk = store.clone();
    let subject = StoreSubject::new(store.clone());
    let subject = if is_alone { subject.most_records(MOST) } else { subject.another_process(store.another_process()) };
    subject.clock(move |by: Duration| clock.advance(by)).reopened_by(move || std::future::ready(disk.reopened()))
}

/// Returns whether a fault has an effect only if a claim or a release leaves no trace.
fn needs_one_process(fault: Fault) -> bool {
    matches!(fault, Fault::NeedsAClaimToComplete | Fault::HasNoLimit | Fault::RefusesEndingsWhenFull)
}

/// The failure that a rule reports for a fault; `None` if the rule holds.
async fn verdict(fault: Fault, name: &str, is_alone: bool) -> Option<String> {
    let panic = AssertUnwindSafe(rule(name, subject(fault, is_alone))).catch_unwind().await.err()?;
    Some(panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic without words".to_owned()))
}

#[tokio::test(start_paused = true)]
async fn each_fault_is_caught_by_the_rule_that_forbids_it() {
    let mut missed = Vec::new();
    for (fault, rule) in CAUGHT {
        let said = verdict(*fault, rule, needs_one_process(*fault)).await;
        let is_right = |said: &String| {
            said.starts_with(&format!("the rule `{rule}` does not hold: ")) && said.contains("\nWhat to do: ")
        };
        if !said.as_ref().is_some_and(is_right) {
            missed.push(format!("{fault:?} by {rule}: {said:?}"));
        }
    }
    assert!(missed.is_empty(), "{} faults of {} were missed:\n{}", missed.len(), CAUGHT.len(), missed.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn without_a_fault_all_rules_hold() {
    for rule in RULES {
        for is_alone in [true, false] {
            assert_eq!(verdict(Fault::Nothing, rule, is_alone).await, None);
        }
    }
}

#[test]
fn no_rule_is_without_a_fault_that_it_catches() {
    let rules: BTreeSet<&str> = RULES.iter().copied().collect();
    assert_eq!(rules, CAUGHT.iter().map(|(_, rule)| *rule).collect());
}
