//! All slots of an opened store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use ahash::RandomState;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::{Notify, watch};

use super::remembered::Remembered;
use super::slot::{Phase, Slot};
use super::tally::Tally;
use super::wait::Waiter;
use crate::key::RecordId;
use crate::laboratory::point;

/// The slots of one opened store, with what this process counts about its runs. A store owns it and looks into none
/// of it.
#[derive(Debug, Default)]
pub struct Slots {
    // Ids are digests of what clients choose: without a secret of its own a map's hash could be aimed at.
    places: DashMap<RecordId, Place, RandomState>,
    // Runs that are over, and known to this process alone.
    pub(crate) remembered: Remembered,
    live: AtomicUsize,
    // How many of those that are remembered the store is still being told.
    retrying: AtomicUsize,
    turns: AtomicU64,
    idle: Notify,
    draining: AtomicBool,
    pub(super) waiters: Arc<AtomicUsize>,
    pub(crate) tally: Tally,
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
    /// It was free, and there are as many runs as there may be.
    Full,
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

    /// Takes the slot of `id`, unless a run has it or there are `most` runs.
    pub(crate) fn take(self: &Arc<Self>, id: RecordId, most: usize) -> Entered {
        point();
        match self.places.entry(id) {
            Entry::Occupied(place) => Entered::Taken(self.waiter(place.get())),
            Entry::Vacant(place) => {
                // Looked up under the lock of the place: a run remembers before it leaves its place.
                if let Some(waiter) = self.recall(&id) {
                    return Entered::Taken(waiter);
                }
                if self.live.fetch_add(1, Ordering::SeqCst) >= most {
                    self.one_less();
                    return Entered::Full;
                }
                let turn = self.turns.fetch_add(1, Ordering::Relaxed);
                let (phase, receiver) = watch::channel(Phase::Claiming);
                place.insert(Place { phase: receiver, waiters: Arc::default() });
                Entered::Mine(Slot::new(Arc::clone(self), id, turn, phase))
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
        self.one_less();
    }

    fn one_less(&self) {
        if self.live.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.idle.notify_waiters();
        }
    }

    /// Somebody goes on telling the store how a run ended: draining waits for it.
    pub(crate) fn retrying(self: &Arc<Self>) -> Retrying {
        self.retrying.fetch_add(1, Ordering::SeqCst);
        Retrying(Arc::clone(self))
    }

    /// Refuses new runs from now on and waits until no run is left, and nothing that the store is still being told.
    pub(crate) async fn drained(&self) {
        self.draining.store(true, Ordering::SeqCst);
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            point();
            if self.live() == 0 && self.retrying.load(Ordering::SeqCst) == 0 {
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

/// Held for as long as the store is being told how a run ended.
#[derive(Debug)]
pub(crate) struct Retrying(Arc<Slots>);

impl Drop for Retrying {
    fn drop(&mut self) {
        if self.0.retrying.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}
