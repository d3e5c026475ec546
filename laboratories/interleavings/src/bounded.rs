//! A scheduler that takes an execution through *all* schedules with at most a given number of preemptions.
//!
//! When a task waits or yields, the scheduler tries every choice of the next task. A task that yielded has its turn
//! when no other task can go on. An earlier turn costs a preemption, and so does taking the turn from a task that could
//! go on. Most races need one or two.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};

#[derive(Debug)]
pub struct Bounded {
    preemptions: usize,
    /// The most schedules.
    most: usize,
    schedules: usize,
    /// The choices of the last schedule, from its beginning.
    path: Vec<Choice>,
    step: usize,
    spent: usize,
    /// The tasks that yielded and have had no turn since.
    yielded: Vec<TaskId>,
    complete: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Choice {
    tasks: Vec<TaskId>,
    taken: usize,
}

impl Bounded {
    /// A scheduler that sets `complete` when there are no further schedules.
    pub fn new(preemptions: usize, most: usize, complete: Arc<AtomicBool>) -> Self {
        Self { preemptions, most, schedules: 0, path: Vec::new(), step: 0, spent: 0, yielded: Vec::new(), complete }
    }

    /// Goes to the next path, depth first. Returns whether there is one.
    fn advance(&mut self) -> bool {
        while let Some(last) = self.path.last_mut() {
            last.taken += 1;
            if last.taken < last.tasks.len() {
                return true;
            }
            self.path.pop();
        }
        false
    }

    /// The tasks that may come next, and the number of them, from the first on, that need no preemption.
    fn choices(&mut self, runnable: &[&Task], current: Option<TaskId>, is_yielding: bool) -> (Vec<TaskId>, usize) {
        self.yielded.extend(current.filter(|_| is_yielding));
        let all = || runnable.iter().map(|task| task.id());
        let goes_on = current.filter(|current| !is_yielding && all().any(|task| task == *current));
        let mut choices: Vec<_> = match goes_on {
            Some(current) => vec![current],
            None => all().filter(|task| !self.yielded.contains(task)).collect(),
        };
        if choices.is_empty() {
            // All have yielded: they go on in turn, so that none is left out.
            self.yielded.clear();
            choices.extend(all().find(|task| Some(*task) > current).or(all().next()));
        }
        let free = choices.len();
        if self.spent < self.preemptions {
            let others: Vec<_> = all().filter(|task| !choices.contains(task)).collect();
            choices.extend(others);
        }
        (choices, free)
    }
}

impl Scheduler for Bounded {
    fn new_execution(&mut self) -> Option<Schedule> {
        if self.schedules > 0 && !self.advance() {
            self.complete.store(true, Ordering::SeqCst);
            return None;
        }
        if self.schedules == self.most {
            return None;
        }
        self.schedules += 1;
        (self.step, self.spent) = (0, 0);
        self.yielded.clear();
        Some(Schedule::new(0))
    }

    fn next_task(&mut self, runnable: &[&Task], current: Option<TaskId>, is_yielding: bool) -> Option<TaskId> {
        let (choices, free) = self.choices(runnable, current, is_yielding);
        if self.step == self.path.len() {
            self.path.push(Choice { tasks: choices.clone(), taken: 0 });
        }
        let choice = &self.path[self.step];
        assert_eq!(choice.tasks, choices, "the same choices led elsewhere");
        let next = choice.tasks[choice.taken];
        self.step += 1;
        self.spent += usize::from(choice.taken >= free);
        self.yielded.retain(|task| *task != next);
        Some(next)
    }

    fn next_u64(&mut self) -> u64 {
        unreachable!("what is explored exhaustively draws no numbers")
    }
}
