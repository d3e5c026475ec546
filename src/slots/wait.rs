//! Waits for another request's run, within bounds.
//!
//! `point` is empty, except in the laboratory of interleavings, which lets another thread come between there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use scopeguard::{ScopeGuard, guard};

use super::phase::{Attempt, End, Phase};
use super::shared_phase::SharedPhase;
use crate::fingerprint::{Fingerprint, Match};
use crate::laboratory::point;

/// The number of duplicates that may wait for one run.
const MAX_WAITERS_PER_KEY: usize = 1_024;
/// The number of duplicates that may wait in one process, over all runs.
const MAX_WAITERS: usize = 16_384;

/// A duplicate that has met a run, and may wait for it.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(super) phase: SharedPhase,
    /// The number of waiters for all runs of this process.
    pub(super) all: Arc<AtomicUsize>,
}

impl Waiter {
    /// Returns what a request with this fingerprint meets now; `None` if the fingerprint of the run's own request is
    /// not known.
    #[cfg(feature = "server")]
    pub(crate) fn glance(self, presented: &Fingerprint) -> Option<Result<(End, Attempt), Match>> {
        self.phase.read(|phase| phase.known_for(presented))
    }

    /// Waits for the run's end, for at most `timeout`, and then returns [`End::InFlight`]. Before it waits, it
    /// compares the fingerprint of the run's request.
    ///
    /// # Cancel safety
    /// A waiter owns nothing: dropping it changes nothing for the run and for the other waiters.
    pub(crate) async fn join(self, presented: &Fingerprint, timeout: Duration) -> Result<(End, Attempt), Match> {
        let Self { phase, all } = self;
        point();
        let Some(_seat) = take_seat(phase.waiters(), &all) else {
            // Too many duplicates wait already. This one is answered by the present phase.
            return phase.read(Phase::clone).result_for(presented);
        };
        // Until the claim is answered, the fingerprint of the run's request is unknown. This wait is bounded by the
        // claim's own timeout, and not by `timeout`.
        match phase.reach(|phase| !matches!(phase, Phase::Claiming)).await.result_for(presented) {
            Ok((End::InFlight, _)) if !timeout.is_zero() => {}
            result => return result,
        }
        let over = phase.reach(|phase| matches!(phase, Phase::Ended(_)));
        match tokio::time::timeout(timeout, over).await {
            Ok(phase) => phase.result_for(presented),
            Err(_) => Ok((End::InFlight, Attempt::default())),
        }
    }
}

/// Takes a place among the waiters, which is given back on drop. Returns `None` if the waiters for this run or for all
/// runs are too many.
fn take_seat<'a>(here: &'a AtomicUsize, all: &'a AtomicUsize) -> Option<ScopeGuard<(), impl FnOnce(()) + 'a>> {
    // The counts are raised first and lowered by the drop, so that two waiters that come at once cannot both take the
    // last place.
    let before = (here.fetch_add(1, Ordering::Relaxed), all.fetch_add(1, Ordering::Relaxed));
    let seat = guard((), |()| _ = (here.fetch_sub(1, Ordering::Relaxed), all.fetch_sub(1, Ordering::Relaxed)));
    (before.0 < MAX_WAITERS_PER_KEY && before.1 < MAX_WAITERS).then_some(seat)
}
