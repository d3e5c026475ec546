//! Writes the [checkpoint](super::checkpoint), on a thread of its own, so that no batch waits for it.
//!
//! The thread looks once a second, and writes if there are new steps. The writer writes the last checkpoint when it
//! ends. If a checkpoint cannot be written, this is logged, and tried again a second later: records are durable without
//! it, and only a loss of those that came since the last checkpoint would go unnoticed. So it is no reason to refuse
//! requests.

use std::error::Error as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::store::OpenError;
use crate::store::embedded::layout::totals::Checkpoint;

/// The interval at which the thread looks, and so the greatest age of a step that no checkpoint covers.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// The least time between two log lines about checkpoints that cannot be written.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// The last durable step, and the step of the checkpoint.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    path: PathBuf,
    /// The last durable step.
    durable: Mutex<Checkpoint>,
    /// The step of the checkpoint. It is held while a checkpoint is written, so that two are never written at once.
    /// This lock is taken before `durable`.
    written: Mutex<u64>,
    /// By these, failures are logged at most once a minute, and the first success after them.
    failures: Mutex<Failures>,
    /// `true` once the writer has ended; `ends` wakes the thread then.
    over: Mutex<bool>,
    ends: Condvar,
}

/// The number of times in a row that no checkpoint could be written, and the last time that this was logged.
#[derive(Debug, Default)]
struct Failures {
    count: u64,
    said: Option<Instant>,
}

impl Checkpointer {
    /// Creates a checkpointer for a store in which `last` is the last step, and the checkpoint says so or less.
    pub(crate) fn new(path: PathBuf, last: Checkpoint) -> Self {
        let (durable, written) = (Mutex::new(last), Mutex::new(last.step));
        Self { path, durable, written, failures: Mutex::default(), over: Mutex::new(false), ends: Condvar::new() }
    }

    /// Notes that a step, and all before it, are durable.
    pub(crate) fn note_durable(&self, step: Checkpoint) {
        *self.durable.lock() = step;
    }

    /// Writes checkpoints until the writer ends.
    pub(crate) fn run(&self) {
        while !self.waits_until_over() {
            self.try_to_write();
        }
    }

    /// Writes the last checkpoint, and ends the thread.
    pub(crate) fn end(&self) {
        *self.over.lock() = true;
        self.ends.notify_all();
        self.try_to_write();
    }

    /// Waits until it is time to look, and returns whether the writer has ended.
    fn waits_until_over(&self) -> bool {
        let mut over = self.over.lock();
        self.ends.wait_while_for(&mut over, |over| !*over, CHECKPOINT_EVERY);
        *over
    }

    /// Writes a checkpoint, if there are steps that the last one does not cover.
    pub(crate) fn write(&self) -> Result<(), OpenError> {
        let mut written = self.written.lock();
        let durable = *self.durable.lock();
        if durable.step != *written {
            durable.write(&self.path)?;
            *written = durable.step;
        }
        Ok(())
    }

    /// Does the same, and logs if it fails.
    fn try_to_write(&self) {
        let result = self.write();
        let (mut failures, path) = (self.failures.lock(), self.path.display());
        let Err(error) = result else {
            let Failures { count, .. } = std::mem::take(&mut *failures);
            if count > 0 {
                tracing::info!(target: "tower_idempotency", %path, count, "the store's checkpoint is written again");
            }
            return;
        };
        failures.count += 1;
        if failures.said.is_none_or(|said| said.elapsed() >= LOG_EVERY) {
            failures.said = Some(Instant::now());
            tracing::error!(
                target: "tower_idempotency", %path, %error, source = error.source(), count = failures.count,
                "the store's checkpoint can't be written: if a damaged disk loses later records, that will go unnoticed"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::clock::Timestamp;
    use crate::store::embedded::files::checkpoint::{Found, read};
    use crate::store::embedded::files::directory::CHECKPOINT_FILE;

    fn checkpoint(step: u64) -> Checkpoint {
        Checkpoint { step, time: Timestamp::from_millis(step) }
    }

    #[test]
    fn an_idle_store_writes_nothing_and_a_checkpoint_that_failed_is_written_later() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("s");
        let checkpointer = Checkpointer::new(path.clone(), checkpoint(3));
        checkpointer.note_durable(checkpoint(4));
        // There is no such directory yet.
        checkpointer.try_to_write();
        assert_eq!(checkpointer.failures.lock().count, 1);
        fs::create_dir(&path).unwrap();
        checkpointer.try_to_write();
        assert_eq!((read(&path).unwrap(), checkpointer.failures.lock().count), (Found::Whole(checkpoint(4)), 0));
        fs::remove_file(path.join(CHECKPOINT_FILE)).unwrap();
        checkpointer.try_to_write();
        assert_eq!(read(&path).unwrap(), Found::Missing, "nothing is new");
        checkpointer.note_durable(checkpoint(5));
        checkpointer.end();
        assert_eq!(read(&path).unwrap(), Found::Whole(checkpoint(5)));
        checkpointer.run();
    }
}
