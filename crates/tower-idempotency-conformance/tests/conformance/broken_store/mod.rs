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
use tower_idempotency::test_util::TestStore;
use tower_idempotency_conformance::memory_backend::MemoryBackend;
use tower_idempotency_conformance::store::{RULES, StoreSubject, rule};
use tower_idempotency_shared::SharedStore;

use crate::stores::{TokioClock, shared};

const MOST: usize = 1_500;

/// A store that one process has alone.
fn alone(fault: Fault) -> StoreSubject<Broken<TestStore>> {
    let clock = ManualClock::new(Timestamp::from_millis(1_790_000_000_000));
    let store = Broken::alone(fault, clock.clone(), MOST);
    let (disk, time) = (store.clone(), clock.clone());
    let subject = StoreSubject::new(store).most_records(MOST).clock(move |by: Duration| clock.advance(by));
    subject.reopened_by(move || std::future::ready(disk.reopened(time.clone())))
}

/// A store of one of two processes that share their records.
async fn one_of_two(fault: Fault) -> StoreSubject<Broken<SharedStore<MemoryBackend>>> {
    let backend = MemoryBackend::with_clock(TokioClock::default());
    let other = Broken::over(shared(backend.another_process()).await, fault);
    StoreSubject::new(Broken::over(shared(backend).await, fault)).another_process(other)
}

/// Returns whether a fault has an effect only if there is another process.
fn needs_another_process(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::TakesOthersForDead
            | Fault::OwnsQuestionsThatAreOver
            | Fault::TakesTheDeadForAlive
            | Fault::RemembersWhatItSaw
    )
}

/// The failure that a rule reports for a fault; `None` if the rule holds.
async fn verdict(fault: Fault, name: &str, is_alone: bool) -> Option<String> {
    let tried =
        async { if is_alone { rule(name, alone(fault)).await } else { rule(name, one_of_two(fault).await).await } };
    let panic = AssertUnwindSafe(tried).catch_unwind().await.err()?;
    Some(panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic without words".to_owned()))
}

#[tokio::test(start_paused = true)]
async fn each_fault_is_caught_by_the_rule_that_forbids_it() {
    let mut missed = Vec::new();
    for (fault, rule) in CAUGHT {
        let said = verdict(*fault, rule, !needs_another_process(*fault)).await;
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
