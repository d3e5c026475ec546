//! Waits for what is under way, before the process ends.

use std::time::Duration;

use tokio::time::timeout;

use crate::slots::Slots;
use crate::timeouts::STORE_TIMEOUT;

/// The longest part of a drain that is left for the ends of runs that are dropped.
const MAX_DRAIN_RESERVE: Duration = STORE_TIMEOUT;

/// The runs and outcomes that are left when a process stops waiting.
#[must_use = "runs and outcomes may be left"]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Drained {
    /// Runs that are still under way. They are interrupted when the process ends.
    pub runs: usize,
    /// Runs that are over and whose end the store does not know. Their requesters were answered; after a restart,
    /// retries are refused, or run again under `Rerun`, or if `fail_open` let the run go ahead.
    pub unsaved: usize,
}

impl Drained {
    /// Returns whether nothing is left.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.runs == 0 && self.unsaved == 0
    }
}

/// Refuses new keys from now on, waits at most `limit` for the runs under way and for the outcomes that are still being
/// recorded, and returns what is left. Shortly before, runs are dropped that another process may run again, so that it
/// need not wait for the lease of this one.
pub(crate) async fn drain(slots: &Slots, limit: Duration) -> Drained {
    let drained = slots.drained();
    tokio::pin!(drained);
    let reserve = MAX_DRAIN_RESERVE.min(limit / 4);
    if timeout(limit.saturating_sub(reserve), drained.as_mut()).await.is_err() {
        slots.stop();
        let _ = timeout(reserve, drained).await;
    }
    Drained { runs: slots.live(), unsaved: slots.unsaved.count() }
}
