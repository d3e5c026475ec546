//! Databases that break one rule each: the suite catches each by the rule's name, and has no rule that catches none.

mod backend;
mod fault;
mod writes;

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use backend::Broken;
use fault::{CAUGHT, Fault};
use futures_util::FutureExt as _;
use tower_idempotency::clock::{ManualClock, Timestamp};
use tower_idempotency_conformance::backend::{self as suite, BackendSubject, RULES};
use tower_idempotency_conformance::memory_backend::{Call, MemoryBackend};

fn subject(fault: Fault) -> BackendSubject<Broken> {
    let clock = ManualClock::new(Timestamp::from_millis(1_790_000_000_000));
    let backend = Broken::new(MemoryBackend::with_clock(clock.clone()), fault, clock.clone());
    let (other, another) = (backend.another_process(), backend.another_namespace());
    let (held, database) = (backend.inner.clone(), backend.inner.database().clone());
    let hold = move || {
        let hold = held.hold(Call::Put);
        move || hold.release()
    };
    let restart = move || {
        database.restart();
        std::future::ready(())
    };
    let pass = move |by: Duration| clock.advance(by);
    let undurable = backend.clone();
    BackendSubject::new(backend)
        .another_process(other)
        .another_namespace(another)
        .clock(pass)
        .held_back_by(hold)
        .restarted_by(restart)
        .undurable_by(move |is_undurable| undurable.set_undurable(is_undurable))
}

/// The failure that a rule reports for a fault; `None` if the rule holds.
async fn verdict(fault: Fault, rule: &str) -> Option<String> {
    let subject = subject(fault);
    let panic = AssertUnwindSafe(suite::rule(rule, subject)).catch_unwind().await.err()?;
    Some(panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic without words".to_owned()))
}

#[tokio::test]
async fn each_fault_is_caught_by_the_rule_that_forbids_it() {
    let mut missed = Vec::new();
    for (fault, rule) in CAUGHT {
        let said = verdict(*fault, rule).await;
        let is_right = |said: &String| {
            said.starts_with(&format!("the rule `{rule}` does not hold: ")) && said.contains("\nWhat to do: ")
        };
        if !said.as_ref().is_some_and(is_right) {
            missed.push(format!("{fault:?} by {rule}: {said:?}"));
        }
    }
    assert!(missed.is_empty(), "{} faults of {} were missed:\n{}", missed.len(), CAUGHT.len(), missed.join("\n"));
}

#[tokio::test]
async fn without_a_fault_all_rules_hold() {
    for rule in RULES {
        assert_eq!(verdict(Fault::Nothing, rule).await, None);
    }
}

#[test]
fn no_rule_is_without_a_fault_that_it_catches() {
    let rules: BTreeSet<&str> = RULES.iter().copied().collect();
    assert_eq!(rules, CAUGHT.iter().map(|(_, rule)| *rule).collect());
}
