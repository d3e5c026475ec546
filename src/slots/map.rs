//! All slots of an opened store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use ahash::RandomState;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::{Notify, watch};

use super::rare::Rare;
use super::slot::{Phase, Slot};
use super::sparingly::Sparingly;
use super::wait::Waiter;
use crate::key::RecordId;
use crate::laboratory::point;
use crate::record::Claim;

/// The most claims that are remembered as doubtful.
const MAX_DOUBTFUL: usize = 16_384;

/// How many kinds of refusals there may be.
pub(crate) const REFUSALS: usize = 20;

/// The slots of one opened store, with what this process counts about its runs. A store owns it and looks into none
/// of it.
#[derive(Debug, Default)]
pub struct Slots {
    // Ids are digests of what clients choose: without a secret of its own a map's hash could be aimed at.
    places: DashMap<RecordId, Place, RandomState>,
    // Runs that are over, and known to this process alone.
    remembered: Rare<watch::Receiver<Phase>>,
    // Claims that the store may hold, though it never said so; nothing ran under them.
    doubtful: Rare<Claim>,
    live: AtomicUsize,
    idle: Notify,
    draining: AtomicBool,
    pub(super) waiters: Arc<AtomicUsize>,
    pub(crate) tally: Tally,
}

/// What this process counts.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) runs: AtomicU64,
    pub(crate) replays: AtomicU64,
    pub(crate) interrupted: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) unknown_lines: Sparingly,
    pub(crate) unrecorded: AtomicU64,
    pub(crate) unprotected: AtomicU64,
    pub(crate) corrupt: AtomicU64,
    pub(crate) reconciled: AtomicU64,
    // By the kind of refusal, as the server numbers them.
    pub(crate) refused: [AtomicU64; REFUSALS],
}

#[derive(Debug)]
struct Place {
    phase: watch::Receiver<Phase>,
    waiters: Arc<AtomicUsize>,
}

/// What came of asking for a slot.
#[derive(Debug)]
pub(crate) enum Entered {
    /// It was free.
    Mine(Slot),
    /// It is another run's.
    Taken(Waiter),
}

impl Slots {
    /// The run under way for `id`, or the one that only this process remembers.
    pub(crate) fn look(&self, id: &RecordId) -> Option<Waiter> {
        point();
        if let Some(place) = self.places.get(id) {
            return Some(self.waiter(&place));
        }
        point();
        self.recall(id)
    }

    /// Takes the slot of `id`, unless a run has it.
    pub(crate) fn take(self: &Arc<Self>, id: RecordId) -> Entered {
        point();
        match self.places.entry(id) {
            Entry::Occupied(place) => Entered::Taken(self.waiter(place.get())),
            Entry::Vacant(place) => {
                // Looked up under the lock of the place: a run remembers before it leaves its place.
                if let Some(waiter) = self.recall(&id) {
                    return Entered::Taken(waiter);
                }
                let (phase, receiver) = watch::channel(Phase::Claiming);
                self.live.fetch_add(1, Ordering::SeqCst);
                place.insert(Place { phase: receiver, waiters: Arc::default() });
                Entered::Mine(Slot::new(Arc::clone(self), id, phase))
            }
        }
    }

    pub(super) fn vacate(&self, id: RecordId) {
        point();
        self.places.remove(&id);
        point();
    }

    pub(super) fn leave(&self, id: RecordId) {
        self.vacate(id);
        if self.live.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.idle.notify_waiters();
        }
    }

    pub(super) fn linger(&self, id: RecordId, phase: watch::Receiver<Phase>) {
        self.remembered.insert(id, phase);
    }

    /// Frees a slot whose end was remembered: the store knows it now.
    pub(crate) fn forget(&self, id: &RecordId) {
        point();
        self.remembered.remove(id);
    }

    /// Keeps a claim of which the store may or may not know, so that the next one can undo it. Beyond a bound it is let
    /// go; the operation is then refused as interrupted, though nothing ran.
    pub(crate) fn doubt(&self, claim: Claim) {
        if self.doubtful.len() < MAX_DOUBTFUL {
            self.doubtful.insert(claim.id, claim);
        }
    }

    /// Takes such a claim out.
    pub(crate) fn doubted(&self, id: &RecordId) -> Option<Claim> {
        self.doubtful.remove(id)
    }

    /// Refuses new runs from now on and waits until no run is left.
    pub(crate) async fn drained(&self) {
        self.draining.store(true, Ordering::SeqCst);
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            point();
            if self.live() == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Whether new runs are refused.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Runs under way.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::SeqCst)
    }

    fn waiter(&self, place: &Place) -> Waiter {
        Waiter::new(place.phase.clone(), Arc::clone(&place.waiters), Arc::clone(&self.waiters))
    }

    fn recall(&self, id: &RecordId) -> Option<Waiter> {
        let phase = self.remembered.get(id)?;
        Some(Waiter::new(phase, Arc::default(), Arc::clone(&self.waiters)))
    }
}
