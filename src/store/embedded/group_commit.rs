//! Bounds what is written together: the commands that are queued, and those that other runs are about to send.
//!
//! A batch costs a sync, however little is in it. While other runs are under way, their commands often come a moment
//! after the first. A batch that waits for them holds many more, and all of them are answered sooner. PostgreSQL calls
//! this wait [`commit_delay`](https://www.postgresql.org/docs/current/runtime-config-wal.html#GUC-COMMIT-DELAY), and
//! the other runs `commit_siblings`. Here a batch learns whether the wait is worth it: after a wait in which no command
//! came, some batches do not wait, twice as many each time.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::command::Command;
use super::layout::storage_engine::StorageEngine;
use super::queue::Receiver;

/// The most commands in one batch. It bounds how long the first one waits for its answer.
const MAX_COMMANDS: usize = 512;
/// The number of bytes of outcomes from which a batch takes no more commands.
const MAX_OUTCOME_BYTES: usize = 8 * 1024 * 1024;
/// The time that a batch waits for the next command; it waits again after each one. Timers are coarse: a wait in which
/// no command comes takes some 70 µs, which is less than a sync on most disks.
const NEXT_COMMAND_DELAY: Duration = Duration::from_micros(20);
/// The time that a batch waits in all.
const COMMIT_DELAY: Duration = Duration::from_micros(200);
/// The most siblings that a batch waits for. This many commands are worth a sync, and the others come while it is made.
const MAX_COMMIT_SIBLINGS: usize = 32;
/// The most batches in a row that do not wait.
const MAX_SKIPPED: u32 = 64;

/// Decides whether a batch waits for more commands, and learns from the waits before.
#[derive(Debug, Default)]
pub(super) struct CommitDelay {
    /// The number of the next batches that do not wait.
    skips: u32,
    /// The number of batches that do not wait after the next wait in which no command comes.
    next_skips: u32,
}

impl CommitDelay {
    /// Returns whether the batch that begins now may wait.
    fn may_wait(&mut self) -> bool {
        let may_wait = self.skips == 0;
        self.skips = self.skips.saturating_sub(1);
        may_wait
    }

    /// Learns whether a command came during a wait.
    fn has_waited(&mut self, for_something: bool) {
        if for_something {
            *self = Self::default();
        } else {
            self.next_skips = (self.next_skips * 2).clamp(1, MAX_SKIPPED);
            self.skips = self.next_skips;
        }
    }
}

/// The load that a batch has taken so far.
#[derive(Default)]
pub(super) struct Load {
    /// The number of commands, the bytes of their outcomes, and the bytes that they write in one step.
    commands: usize,
    outcome_bytes: usize,
    step_bytes: usize,
    /// The sender for the answer to a `Close` command. Nothing after that command is taken.
    pub(super) close: Option<oneshot::Sender<()>>,
}

impl Load {
    fn is_full<E: StorageEngine>(&self) -> bool {
        self.close.is_some()
            || self.commands >= MAX_COMMANDS
            || self.outcome_bytes >= MAX_OUTCOME_BYTES
            || self.step_bytes >= E::MAX_STEP
    }

    /// Returns whether it has taken nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.commands == 0
    }

    /// Returns how many of the commands that are in the queue it takes at most.
    pub(super) fn room_for<E: StorageEngine>(&self, queue: &Receiver<Command<E>>) -> usize {
        // This only counts. An error says that the queue is closed and empty.
        queue.wait(0, Duration::ZERO).unwrap_or(0).min(MAX_COMMANDS - self.commands)
    }

    /// Takes the next command, if there is one and it has room.
    pub(super) fn take<E: StorageEngine>(&mut self, queue: &mut Receiver<Command<E>>) -> Option<Command<E>> {
        if self.is_full::<E>() {
            return None;
        }
        match queue.take()? {
            Command::Close(reply) => {
                self.close = Some(reply);
                None
            }
            command => {
                self.commands += 1;
                self.outcome_bytes += command.outcome_bytes();
                self.step_bytes += command.step_bytes();
                Some(command)
            }
        }
    }

    /// Waits a moment for more commands, if the batch has few and some of the `siblings` may be about to send theirs.
    /// `siblings` is the number of runs under way.
    pub(super) fn gather<E: StorageEngine>(
        &self,
        queue: &Receiver<Command<E>>,
        siblings: usize,
        delay: &mut CommitDelay,
    ) {
        let wanted = siblings.min(MAX_COMMIT_SIBLINGS);
        // The number of commands of siblings that are still to come, if `there` wait in the queue.
        let missing = |there: usize| wanted.saturating_sub(self.commands + there);
        // This only counts what is in the queue. An error says that the queue is closed and empty.
        let Ok(before) = queue.wait(0, Duration::ZERO) else { return };
        if self.is_empty() || self.is_full::<E>() || missing(before) == 0 || !delay.may_wait() {
            return;
        }
        let (began, mut there) = (Instant::now(), before);
        while missing(there) > 0 && began.elapsed() < COMMIT_DELAY {
            match queue.wait(there + missing(there), NEXT_COMMAND_DELAY) {
                Ok(more) if more > there => there = more,
                // No command came in time, or the queue is closed.
                _ => break,
            }
        }
        delay.has_waited(there > before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_useless_waits_batches_wait_ever_more_seldom_until_one_is_useful() {
        let mut delay = CommitDelay::default();
        let mut skipped = Vec::new();
        for _ in 0..9 {
            let skips = std::iter::repeat_with(|| delay.may_wait()).take_while(|may_wait| !may_wait).count();
            skipped.push(skips);
            delay.has_waited(false);
        }
        assert_eq!(skipped, [0, 1, 2, 4, 8, 16, 32, 64, 64]);
        delay.has_waited(true);
        assert!(delay.may_wait() && delay.may_wait());
    }
}
