//! What is written together: all that is queued, and what is about to be.
//!
//! A batch costs a sync, however little is in it. While other runs are under way, their commands often come a moment after
//! the first; a batch that waits that moment for them holds many more, and all are answered sooner. Whether that is
//! worth it is learned: after a wait in which nothing came, some batches don't wait, twice as many each time.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::command::Command;
use super::queue::Receiver;
use super::storage_engine::StorageEngine;

/// The most commands in one batch.
const MAX_VERBS: usize = 512;
/// The bytes of outcomes from which on a batch takes no more commands.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// How long a batch waits for more commands, and again as long as some come. Timers are coarse: a wait in which nothing
/// comes takes some 70 µs, less than a sync on most disks.
const GRACE: Duration = Duration::from_micros(20);
/// How long a batch waits in all.
const MOST_GRACE: Duration = Duration::from_micros(200);
/// The most commands that a batch waits for: so many are worth a sync, and the others come while it is made.
const MOST_AWAITED: usize = 32;
/// The most batches in a row that don't wait before one does again.
const MOST_SKIPPED: u32 = 64;

/// Whether it is worth waiting for more.
#[derive(Debug, Default)]
pub(super) struct Patience {
    // How many of the next batches don't wait.
    skips: u32,
    // How many won't after the next wait in which nothing comes.
    next_skips: u32,
}

impl Patience {
    /// Whether the batch that begins now may wait.
    fn may_wait(&mut self) -> bool {
        let may_wait = self.skips == 0;
        self.skips = self.skips.saturating_sub(1);
        may_wait
    }

    /// Learns from a wait whether something came.
    fn has_waited(&mut self, for_something: bool) {
        if for_something {
            *self = Self::default();
        } else {
            self.next_skips = (self.next_skips * 2).clamp(1, MOST_SKIPPED);
            self.skips = self.next_skips;
        }
    }
}

/// What a batch has taken so far.
#[derive(Default)]
pub(super) struct Load {
    commands: usize,
    bytes: usize,
    step: usize,
    /// Who asked for the store to be closed: nothing after that is taken.
    pub(super) close: Option<oneshot::Sender<()>>,
}

impl Load {
    fn is_full<E: StorageEngine>(&self) -> bool {
        self.close.is_some() || self.commands >= MAX_VERBS || self.bytes >= MAX_BYTES || self.step >= E::MAX_STEP
    }

    /// Whether it has taken nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.commands == 0
    }

    /// Takes the next command, if one is there and has room.
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
                self.bytes += command.bytes();
                self.step += command.step();
                Some(command)
            }
        }
    }

    /// Waits a moment for more, while it has little and some of `live` runs may be about to send.
    pub(super) fn gather<E: StorageEngine>(&self, queue: &Receiver<Command<E>>, live: usize, patience: &mut Patience) {
        let wanted = live.min(MOST_AWAITED);
        let missing = |there: usize| wanted.saturating_sub(self.commands + there);
        let Ok(before) = queue.wait(0, Duration::ZERO) else { return };
        if self.is_empty() || self.is_full::<E>() || missing(before) == 0 || !patience.may_wait() {
            return;
        }
        let (began, mut there) = (Instant::now(), before);
        while missing(there) > 0 && began.elapsed() < MOST_GRACE {
            match queue.wait(there + missing(there), GRACE) {
                Ok(more) if more > there => there = more,
                _ => break,
            }
        }
        patience.has_waited(there > before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waited_for_nothing_waits_ever_more_seldom_until_it_was_worth_it() {
        let mut patience = Patience::default();
        let mut skipped = Vec::new();
        for _ in 0..9 {
            let skips = std::iter::repeat_with(|| patience.may_wait()).take_while(|may_wait| !may_wait).count();
            skipped.push(skips);
            patience.has_waited(false);
        }
        assert_eq!(skipped, [0, 1, 2, 4, 8, 16, 32, 64, 64]);
        patience.has_waited(true);
        assert!(patience.may_wait() && patience.may_wait());
    }
}
