//! Duplicates of runs in other processes. One task of this process looks for the end of such a run, however many wait
//! (`engine/watch.rs`). It holds no slot, is no run for drain, and never claims.

use std::sync::Arc;
use std::time::Duration;

use dashmap::mapref::entry::Entry;
use tokio::sync::watch;
use tokio::time::Instant;

use super::map::{Place, Slots};
use super::phase::{Ended, Phase};
use super::wait::Waiter;
use crate::fingerprint::Fingerprint;
use crate::key::RecordId;

/// The task to look for the end of a run in another process.
#[derive(Debug)]
pub(crate) struct EndWatch {
    slots: Arc<Slots>,
    id: RecordId,
    /// Sends the end to the waiters. Its receiver in `Slots::elsewhere` identifies the place.
    phase: watch::Sender<Phase>,
}

impl Slots {
    /// Returns a waiter for the run that another process has under `id`, for a request with this `fingerprint`. Also
    /// returns the task to look for the end of the run, unless another request has it already.
    pub(crate) fn watch(self: &Arc<Self>, id: RecordId, fingerprint: Fingerprint) -> (Waiter, Option<EndWatch>) {
        match self.elsewhere.entry(id) {
            // The entry is locked, so of two requests that come at once only one gets the task.
            Entry::Occupied(place) => (self.waiter(place.get()), None),
            Entry::Vacant(vacant) => {
                let (phase, watched) = watch::channel(Phase::Running(fingerprint));
                let place = vacant.insert(Place::new(watched));
                (self.waiter(&place), Some(EndWatch { slots: Arc::clone(self), id, phase }))
            }
        }
    }
}

impl EndWatch {
    pub(crate) fn id(&self) -> RecordId {
        self.id
    }

    /// Returns when to read after such a pause.
    pub(crate) fn tick(&self, pause: Duration) -> Instant {
        self.slots.ticks.after(pause)
    }

    /// Returns whether a request waits. If not, the task is over.
    pub(crate) fn is_wanted(&self) -> bool {
        // The place itself has one receiver. A waiter that comes at this moment is seen, as it comes under the lock.
        self.slots.elsewhere.remove_if(&self.id, |_, _| self.phase.receiver_count() == 1).is_none()
    }

    /// Passes the run's end to the waiters.
    pub(crate) fn end(self, ended: impl Into<Ended>) {
        self.phase.send_replace(Phase::Ended(ended.into()));
    }
}

impl Drop for EndWatch {
    fn drop(&mut self) {
        // After `is_wanted` has removed the place, a later request may have made another one.
        let own = |_: &RecordId, place: &Place| place.is_of(&self.phase);
        self.slots.elsewhere.remove_if(&self.id, own);
    }
}
