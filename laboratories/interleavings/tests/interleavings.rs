//! In every order of the threads' steps there is one run and one answer for all requests, and no request waits for
//! ever.
//!
//! A schedule is one order of steps. Some are drawn at random. For the smallest cases, all with few preemptions are
//! explored. The last line of the long form has the figures:
//!
//! ```text
//! SCHEDULES=100000 .ci/controls --release --package interleavings -- --nocapture
//! ```
//!
//! `SCHEDULES` is the number of each scenario's random schedules. shuttle prints a schedule that fails, and the panic
//! below it ends with the scenario (`of …`). This command repeats it:
//!
//! ```text
//! SCENARIO='duplicates' SCHEDULE='9102…' .ci/controls --package interleavings -- --nocapture
//! ```

#![cfg(idempotency_laboratory)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use interleavings::explore::{self, Explored};
use interleavings::scenarios::{AT_RANDOM, EXHAUSTIVELY, Scenario};
use testkit::control;

/// The number of schedules for each scenario, unless the environment sets another.
const SCHEDULES: usize = 300;
const PREEMPTIONS: usize = 1;
/// From this number of schedules on, there is one preemption more. Exhaustive explorations stop at this number, or at
/// `SCHEDULES` if that is greater.
const MANY: usize = 20_000;

#[test]
fn in_every_order_there_is_one_run_and_nobody_waits_for_ever() {
    if let Ok(schedule) = std::env::var("SCHEDULE") {
        return report(again(&std::env::var("SCENARIO").expect("SCENARIO says which"), &schedule));
    }
    let schedules = number("SCHEDULES").unwrap_or(SCHEDULES);
    let preemptions = number("PREEMPTIONS").unwrap_or(if schedules >= MANY { PREEMPTIONS + 1 } else { PREEMPTIONS });
    let random = AT_RANDOM.iter().map(|scenario| (scenario, None));
    let exhaustive = EXHAUSTIVELY.iter().map(|scenario| (scenario, Some(preemptions)));
    let all = exhaustive.chain(random).collect::<Vec<_>>();
    report(side_by_side(&all, |(scenario, preemptions)| look(**scenario, *preemptions, schedules)));
}

/// A control of the laboratory: without the slot it sees violations.
#[test]
fn a_slot_that_is_freed_before_the_record_is_durable_is_seen() {
    let test = "in_every_order_there_is_one_run_and_nobody_waits_for_ever";
    let violations = control::violations_when_broken(test, "slot", &[("SCHEDULES", "200")]);
    println!("interleavings without the slot: violations {violations}");
    assert!(violations > 0);
}

#[test]
fn the_same_schedule_does_the_same() {
    for scenario in AT_RANDOM {
        let explored = explore::twice(scenario, 30);
        assert!(explored.violations.is_empty(), "{:?}", explored.violations);
    }
}

fn number(variable: &str) -> Option<usize> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

fn again(name: &str, schedule: &str) -> Explored {
    let scenario = AT_RANDOM.iter().chain(&EXHAUSTIVELY).find(|scenario| scenario.name == name);
    explore::again(*scenario.expect("there is such a scenario"), schedule)
}

/// Explores one scenario, prints the result, and checks that it showed its sights.
fn look(scenario: Scenario, preemptions: Option<usize>, schedules: usize) -> Explored {
    let mut explored = match preemptions {
        None => explore::at_random(scenario, schedules),
        Some(preemptions) => explore::exhaustively(scenario, preemptions, schedules.max(MANY)),
    };
    let Explored { schedules, violations, seen, complete, .. } = &explored;
    let all = if *complete { "all of the " } else { "" };
    println!("{}: {all}schedules {schedules}, seen {seen:?}, violations {}", scenario.name, violations.len());
    let unseen = scenario.sees.iter().filter(|must| violations.is_empty() && !seen.contains_key(**must));
    explored.unseen = unseen.map(|must| format!("{}: {must}", scenario.name)).collect();
    explored
}

/// Explores all of them, with one thread for each processor, and returns the sum of the results.
fn side_by_side<T: Sync>(all: &[T], look: impl Fn(&T) -> Explored + Sync) -> Explored {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, sum) = (AtomicUsize::new(0), Mutex::new(Explored::default()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(one) = all.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let explored = look(one);
                    sum.lock().expect("no holder panics").add(explored);
                }
            });
        }
    });
    sum.into_inner().expect("no holder panics")
}

fn report(explored: Explored) {
    let Explored { schedules, violations, unseen, .. } = explored;
    for violation in &violations {
        println!("{violation}");
    }
    println!("interleavings: schedules {schedules}, violations {}", violations.len());
    assert!(violations.is_empty());
    assert!(unseen.is_empty(), "nothing was shown of {unseen:?}");
}
