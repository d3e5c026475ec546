//! Which way a schedule went, written down so that it can be gone again.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};

/// A schedule: its seed, and whose turn it was at each step. A number that was drawn is a step without a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trail {
    seed: u64,
    steps: Vec<Option<usize>>,
}

impl Trail {
    pub fn schedule(&self) -> Schedule {
        let mut schedule = Schedule::new(self.seed);
        for step in &self.steps {
            match step {
                Some(task) => schedule.push_task(TaskId::from(*task)),
                None => schedule.push_random(),
            }
        }
        schedule
    }
}

impl fmt::Display for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.seed)?;
        for step in &self.steps {
            match step {
                Some(task) => write!(f, ".{task}")?,
                None => f.write_str(".x")?,
            }
        }
        Ok(())
    }
}

impl FromStr for Trail {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.trim().split('.');
        let seed = parts.next().unwrap_or_default().parse()?;
        let step = |part: &str| if part == "x" { Ok(None) } else { part.parse().map(Some) };
        Ok(Self { seed, steps: parts.map(step).collect::<Result<_, _>>()? })
    }
}

/// A scheduler, and the trail of its latest schedule.
#[derive(Debug)]
pub struct Recorded<S> {
    scheduler: S,
    trail: Arc<Mutex<Trail>>,
}

impl<S> Recorded<S> {
    pub fn new(scheduler: S, trail: Arc<Mutex<Trail>>) -> Self {
        Self { scheduler, trail }
    }

    fn step(&self, step: Option<usize>) {
        self.trail.lock().expect("no holder panics").steps.push(step);
    }
}

impl<S: Scheduler> Scheduler for Recorded<S> {
    fn new_execution(&mut self) -> Option<Schedule> {
        let schedule = self.scheduler.new_execution()?;
        let mut trail = self.trail.lock().expect("no holder panics");
        trail.seed = schedule.seed;
        trail.steps.clear();
        Some(schedule)
    }

    fn next_task(&mut self, runnable: &[&Task], current: Option<TaskId>, is_yielding: bool) -> Option<TaskId> {
        let next = self.scheduler.next_task(runnable, current, is_yielding)?;
        self.step(Some(next.into()));
        Some(next)
    }

    fn next_u64(&mut self) -> u64 {
        self.step(None);
        self.scheduler.next_u64()
    }
}
