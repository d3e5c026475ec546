//! Duplicates of runs in other processes. One task of this process looks for the end of such a run, however many wait
//! (`engine/watch.rs`). It holds no slot, is no run for drain, and never claims.

use std::sync::Arc;
use std::time::Duration;

use dashmap::mapref::entry::Entry;
use tokio::time::Instant;

use super::map::Slots;
use super::phase::{End, Ended, Phase};
use super::shared_phase::SharedPhase;
use super::wait::Waiter;
use crate::fingerprint::Fingerprint;
use crate::key::RecordId;

/// The task to look for the end of a run in another process.
#[derive(Debug)]
pub(crate) struct EndWatch {
    slots: Arc<Slots>,
    pub(crate) id: RecordId,
    /// Shows the waiters the end. A clone is in `Slots::elsewhere`.
    phase: SharedPhase,
}

impl Slots {
    /// Returns a waiter for the run that another process has under `id`, for a request with this `fingerprint`. Also
    /// returns the task to look for the end of the run, unless another request has it already.
    pub(crate) fn watch(self: &Arc<Self>, id: RecordId, fingerprint: Fingerprint) -> (Waiter, Option<EndWatch>) {
        match self.elsewhere.entry(id) {
            // The entry is locked, so of two requests that come at once only one gets the task.
            Entry::Occupied(place) => (self.waiter(place.get()), None),
            Entry::Vacant(vacant) => {
                let phase = SharedPhase::new(Phase::Running(fingerprint));
                vacant.insert(phase.clone());
                (self.waiter(&phase), Some(EndWatch { slots: Arc::clone(self), id, phase }))
            }
        }
    }
}

impl EndWatch {
    /// Returns when to read after such a pause.
    pub(crate) fn tick(&self, pause: Duration) -> Instant {
        self.slots.ticks.after(pause)
    }

    /// Returns whether a request waits. If not, the task is over.
    pub(crate) fn is_wanted(&self) -> bool {
        // The place and this task have one clone each. A waiter that comes at this moment is seen, as it comes under
        // the lock.
        self.slots.elsewhere.remove_if(&self.id, |_, _| self.phase.clones() == 2).is_none()
    }

    /// Passes the run's end to the waiters.
    pub(crate) fn end(self, ended: impl Into<Ended>) {
        self.phase.show(Phase::Ended(ended.into()));
    }
}

impl Drop for EndWatch {
    fn drop(&mut self) {
        // After `is_wanted` has removed the place, a later request may have made another one.
        self.slots.elsewhere.remove_if(&self.id, |_, phase| phase.is(&self.phase));
        // If the task was aborted, the waiters wait no longer: as far as is known, the run goes on.
        if let Phase::Running(fingerprint) = self.phase.read(Phase::clone) {
            self.phase.show(Phase::Ended(Ended::new(fingerprint, End::InFlight)));
        }
    }
}
