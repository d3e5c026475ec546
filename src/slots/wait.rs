//! Waiting for another's run, within bounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::slot::{End, Phase, Refusal};
use crate::fingerprint::{Fingerprint, Match};
use crate::laboratory::point;

/// The most duplicates that wait for one run.
const MAX_WAITERS_PER_KEY: usize = 1_024;
/// The most duplicates that wait in one process, over all runs.
const MAX_WAITERS: usize = 16_384;

/// A duplicate that has met a run, and may wait for it.
#[derive(Debug)]
pub(crate) struct Waiter {
    phase: watch::Receiver<Phase>,
    here: Arc<AtomicUsize>,
    all: Arc<AtomicUsize>,
}

/// What came of waiting.
#[derive(Debug)]
pub(crate) enum Joined {
    /// The run is over.
    Ended(End),
    /// The run is another request's.
    Mismatch(Match),
    /// The run goes on, and it is time to answer.
    InFlight,
}

impl Waiter {
    pub(super) fn new(phase: watch::Receiver<Phase>, here: Arc<AtomicUsize>, all: Arc<AtomicUsize>) -> Self {
        Self { phase, here, all }
    }

    /// Waits for the run's end, at most `patience`. What the run's request is, is compared before that.
    ///
    /// # Cancel safety
    /// A waiter owns nothing: dropping it changes nothing for the run and for the others.
    pub(crate) async fn join(self, presented: &Fingerprint, patience: Duration) -> Joined {
        let Self { mut phase, here, all } = self;
        point();
        let Some(_seat) = Seat::take(&here, &all) else {
            return crowded(phase.borrow().clone(), presented);
        };
        // Until the claim is answered nobody knows what the run's request is. That wait is bounded by the claim's own
        // time-out and is not the client's patience.
        let answered = reach(&mut phase, |phase| !matches!(phase, Phase::Claiming)).await;
        let Phase::Running(fingerprint) = answered else { return ended(answered) };
        match fingerprint.compare(presented) {
            Match::Same => {}
            other => return Joined::Mismatch(other),
        }
        if patience.is_zero() {
            return Joined::InFlight;
        }
        let over = reach(&mut phase, |phase| matches!(phase, Phase::Ended(_)));
        match tokio::time::timeout(patience, over).await {
            Ok(phase) => ended(phase),
            Err(_) => Joined::InFlight,
        }
    }
}

/// The first phase from now on that `wanted` accepts; the last one, if the run is gone before.
async fn reach(phase: &mut watch::Receiver<Phase>, wanted: impl FnMut(&Phase) -> bool + Send) -> Phase {
    if let Ok(reached) = phase.wait_for(wanted).await {
        return reached.clone();
    }
    phase.borrow().clone()
}

/// What a duplicate is told that may not wait, because too many do.
fn crowded(phase: Phase, presented: &Fingerprint) -> Joined {
    match phase {
        Phase::Running(fingerprint) => match fingerprint.compare(presented) {
            Match::Same => Joined::InFlight,
            other => Joined::Mismatch(other),
        },
        Phase::Claiming => Joined::InFlight,
        Phase::Stalled | Phase::Ended(_) => ended(phase),
    }
}

fn ended(phase: Phase) -> Joined {
    match phase {
        Phase::Ended(end) => Joined::Ended(end),
        Phase::Claiming | Phase::Stalled | Phase::Running(_) => Joined::Ended(End::Refused(Refusal::Unavailable)),
    }
}

/// A place among the waiters, given back when dropped.
struct Seat<'a> {
    here: &'a AtomicUsize,
    all: &'a AtomicUsize,
}

impl<'a> Seat<'a> {
    fn take(here: &'a AtomicUsize, all: &'a AtomicUsize) -> Option<Self> {
        let seat = Self { here, all };
        // Taken first and given back by the drop, so that two who come at once can't both take the last.
        let before = (here.fetch_add(1, Ordering::Relaxed), all.fetch_add(1, Ordering::Relaxed));
        (before.0 < MAX_WAITERS_PER_KEY && before.1 < MAX_WAITERS).then_some(seat)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.here.fetch_sub(1, Ordering::Relaxed);
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}
