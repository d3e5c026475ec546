//! Takes executions through many schedules.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use shuttle::scheduler::{
    PctScheduler, RandomScheduler, ReplayScheduler, Scheduler, UncontrolledNondeterminismCheckScheduler,
};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

use crate::bounded::Bounded;
use crate::life::live;
use crate::runs;
use crate::scenarios::Scenario;
use crate::trail::{Recorded, Trail};

/// Turns that a schedule of PCT takes from tasks that could go on.
const PCT_DEPTH: usize = 4;
/// More than any execution has; one that comes here goes round in circles.
const MOST_STEPS: usize = 100_000;
const STACK: usize = 256 * 1024;

/// What an exploration has come to.
#[derive(Debug, Default)]
pub struct Explored {
    pub schedules: usize,
    pub violations: Vec<String>,
    /// How to see them once more.
    pub trails: Vec<(&'static str, Trail)>,
    /// In how many schedules what was to be seen was seen.
    pub seen: BTreeMap<String, usize>,
    /// What was to be seen, and was not.
    pub unseen: Vec<String>,
    /// Whether there are no further schedules.
    pub complete: bool,
}

impl Explored {
    pub fn add(&mut self, other: Self) {
        self.schedules += other.schedules;
        self.violations.extend(other.violations);
        self.trails.extend(other.trails);
        self.unseen.extend(other.unseen);
        for (what, count) in other.seen {
            *self.seen.entry(what).or_default() += count;
        }
        self.complete |= other.complete;
    }
}

/// So many schedules, half of them random, the others by PCT. It ends with the first that fails.
pub fn at_random(scenario: Scenario, schedules: usize) -> Explored {
    let mut explored = run(RandomScheduler::new(schedules.div_ceil(2)), scenario);
    if explored.violations.is_empty() {
        explored.add(run(PctScheduler::new(PCT_DEPTH, schedules / 2), scenario));
    }
    explored
}

/// All schedules with at most so many preemptions, as far as `most` reaches.
pub fn exhaustively(scenario: Scenario, preemptions: usize, most: usize) -> Explored {
    let complete = Arc::new(AtomicBool::new(false));
    let mut explored = run(Bounded::new(preemptions, most, complete.clone()), scenario);
    explored.complete = complete.load(Ordering::SeqCst);
    explored
}

/// One schedule once more.
pub fn again(scenario: Scenario, trail: &Trail) -> Explored {
    run(ReplayScheduler::new_from_schedule(trail.schedule()), scenario)
}

/// So many random schedules, each twice: that the same schedule does the same.
pub fn twice(scenario: Scenario, schedules: usize) -> Explored {
    run(UncontrolledNondeterminismCheckScheduler::new(RandomScheduler::new(schedules)), scenario)
}

fn run(scheduler: impl Scheduler + 'static, scenario: Scenario) -> Explored {
    runs::hook();
    let trail = Arc::new(Mutex::new(Trail::default()));
    let runner = Runner::new(Recorded::new(scheduler, trail.clone()), config());
    let explored = Arc::new(Mutex::new(Explored::default()));
    let counted = explored.clone();
    runs::forget();
    let result = catch_unwind(AssertUnwindSafe(|| {
        runner.run(move || {
            counted.lock().expect("no holder panics").schedules += 1;
            let plan = (scenario.plan)();
            let ledger = live(plan.clone());
            let violations = ledger.violations(&plan);
            assert!(violations.is_empty(), "{}\nin {plan:?}", violations.join("\n"));
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
        explored.trails.push((scenario.name, trail.lock().expect("no holder panics").clone()));
    }
    explored
}

fn config() -> Config {
    let mut config = Config::new();
    config.stack_size = STACK;
    config.max_steps = MaxSteps::FailAfter(MOST_STEPS);
    // We keep the trail ourselves, with the scenario's name.
    config.failure_persistence = FailurePersistence::None;
    config.silence_warnings = true;
    config
}

/// What a panic says: our own, or that all wait for each other.
fn lines(scenario: &str, panic: &(dyn Any + Send)) -> Vec<String> {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("a panic without words");
    let said = text.split("\nin Plan").next().unwrap_or(text);
    said.lines().map(|line| format!("{scenario}: {line}")).collect()
}
