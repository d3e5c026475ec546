//! The phase of a run, which the run shows and its duplicates watch.
//!
//! tokio's `watch` would do the same with eight queues of waiters for each run. A run has a few duplicates at most.
//!
//! `point` is empty, except in the laboratory of interleavings, which lets another thread come between there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::phase::Phase;
use crate::until::until;

/// The phase of one run. All clones show the same phase.
#[derive(Debug, Clone)]
pub(crate) struct SharedPhase(Arc<Shown>);

#[derive(Debug)]
struct Shown {
    phase: Mutex<Phase>,
    changed: Notify,
    /// The number of duplicates that wait for this run.
    waiters: AtomicUsize,
    /// `true` if a record of the operation was read. If so, it does not run unprotected.
    has_record: AtomicBool,
}

impl SharedPhase {
    pub(super) fn new(phase: Phase) -> Self {
        let (phase, changed, waiters) = (Mutex::new(phase), Notify::new(), AtomicUsize::new(0));
        Self(Arc::new(Shown { phase, changed, waiters, has_record: AtomicBool::new(false) }))
    }

    /// Returns the number of duplicates that wait for this run.
    pub(super) fn waiters(&self) -> &AtomicUsize {
        &self.0.waiters
    }

    /// Notes that a record of the operation was read.
    pub(crate) fn note_record(&self) {
        self.0.has_record.store(true, Ordering::Relaxed);
    }

    /// Returns whether a record of the operation was read.
    pub(crate) fn has_record(&self) -> bool {
        self.0.has_record.load(Ordering::Relaxed)
    }

    /// Returns whether `other` is a clone of this one.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Returns the number of clones.
    pub(super) fn clones(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// Reads the present phase.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Phase) -> T) -> T {
        read(&self.0.phase.lock())
    }

    /// Shows the next phase.
    pub(super) fn show(&self, phase: Phase) {
        let _last = std::mem::replace(&mut *self.0.phase.lock(), phase);
        self.0.changed.notify_waiters();
    }

    /// Waits for a phase that `wanted` accepts, the present one included, and returns it.
    pub(crate) async fn reach(&self, mut wanted: impl FnMut(&Phase) -> bool) -> Phase {
        let look = || self.read(|phase| wanted(phase).then(|| phase.clone()));
        until(&self.0.changed, look).await
    }
}
