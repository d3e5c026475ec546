//! Takes executions through many schedules.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use shuttle::scheduler::{
    PctScheduler, RandomScheduler, ReplayScheduler, Scheduler, UncontrolledNondeterminismCheckScheduler,
};
use shuttle::{Config, MaxSteps, Runner};

use crate::bounded::Bounded;
use crate::life::live;
use crate::runs;
use crate::scenarios::Scenario;

/// The number of turns that a schedule of PCT takes from tasks that could go on.
const PCT_DEPTH: usize = 4;
/// A number of steps that no correct execution reaches: one that does loops without end.
const MOST_STEPS: usize = 100_000;
const STACK: usize = 256 * 1024;

/// The result of an exploration.
#[derive(Debug, Default)]
pub struct Explored {
    pub schedules: usize,
    pub violations: Vec<String>,
    /// The number of schedules in which each sight was seen.
    pub seen: BTreeMap<String, usize>,
    /// The sights that were expected and were not seen.
    pub unseen: Vec<String>,
    /// `true` if there are no further schedules.
    pub complete: bool,
}

impl Explored {
    pub fn add(&mut self, other: Self) {
        self.schedules += other.schedules;
        self.violations.extend(other.violations);
        self.unseen.extend(other.unseen);
        for (what, count) in other.seen {
            *self.seen.entry(what).or_default() += count;
        }
        self.complete |= other.complete;
    }
}

/// Explores `schedules` schedules, half of them random, the others by PCT. Ends with the first that fails.
pub fn at_random(scenario: Scenario, schedules: usize) -> Explored {
    let mut explored = run(RandomScheduler::new(schedules.div_ceil(2)), scenario);
    if explored.violations.is_empty() {
        explored.add(run(PctScheduler::new(PCT_DEPTH, schedules / 2), scenario));
    }
    explored
}

/// Explores all schedules with at most `preemptions` preemptions, up to `most` of them.
pub fn exhaustively(scenario: Scenario, preemptions: usize, most: usize) -> Explored {
    let complete = Arc::new(AtomicBool::new(false));
    let mut explored = run(Bounded::new(preemptions, most, complete.clone()), scenario);
    explored.complete = complete.load(Ordering::SeqCst);
    explored
}

/// Runs one schedule once more, as shuttle printed it.
pub fn again(scenario: Scenario, schedule: &str) -> Explored {
    run(ReplayScheduler::new_from_encoded(schedule), scenario)
}

/// Runs `schedules` random schedules twice each, to check that the same schedule does the same.
pub fn twice(scenario: Scenario, schedules: usize) -> Explored {
    run(UncontrolledNondeterminismCheckScheduler::new(RandomScheduler::new(schedules)), scenario)
}

fn run(scheduler: impl Scheduler + 'static, scenario: Scenario) -> Explored {
    runs::hook();
    let runner = Runner::new(scheduler, config());
    let explored = Arc::new(Mutex::new(Explored::default()));
    let counted = explored.clone();
    runs::forget();
    let result = catch_unwind(AssertUnwindSafe(|| {
        runner.run(move || {
            counted.lock().expect("no holder panics").schedules += 1;
            let plan = (scenario.plan)();
            let ledger = live(plan.clone());
            let violations = ledger.violations(&plan);
            assert!(violations.is_empty(), "{}\nin {plan:?}\nof {}", violations.join("\n"), scenario.name);
            let mut counted = counted.lock().expect("no holder panics");
            for what in ledger.seen() {
                *counted.seen.entry(what).or_default() += 1;
            }
        })
    }));
    runs::forget();
    let mut explored = std::mem::take(&mut *explored.lock().expect("no holder panics"));
    if let Err(panic) = result {
        explored.violations = lines(scenario.name, &*panic);
    }
    explored
}

fn config() -> Config {
    let mut config = Config::new();
    config.stack_size = STACK;
    config.max_steps = MaxSteps::FailAfter(MOST_STEPS);
    config.silence_warnings = true;
    config
}

/// The lines of a panic's message: the laboratory's own, or shuttle's about a deadlock.
fn lines(scenario: &str, panic: &(dyn Any + Send)) -> Vec<String> {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("a panic without words");
    let said = text.split("\nin Plan").next().unwrap_or(text);
    said.lines().map(|line| format!("{scenario}: {line}")).collect()
}
