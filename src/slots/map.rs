//! The slots of an opened store: a request looks here before it does anything (`look`), and a run's slot is freed here
//! at its end (`leave`). `slot.rs` takes one. An operator's change is counted here while it is tried again
//! (`retrying`), so that a shutdown waits for it.
//!
//! `point` is empty, except in the laboratory of interleavings, which lets another thread come between there.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use ahash::RandomState;
use dashmap::DashMap;
use tokio::sync::{Notify, watch};

use super::clients::{Client, Clients};
use super::lease::Lease;
use super::mismatches::Mismatches;
use super::read_times::ReadTimes;
use super::shared_phase::SharedPhase;
use super::stats::Stats;
use super::telemetry::Telemetry;
use super::unsaved::UnsavedEnds;
use super::wait::Waiter;
use crate::key::RecordId;
use crate::laboratory::point;
use crate::until::until;

/// The slots of one opened store, and what this process counts about its runs. A store owns this value, counts in its
/// telemetry, and asks which runs are alive. The engine does all else.
#[derive(Default)]
pub struct Slots {
    /// The runs under way in this process. Ids are digests of keys that clients choose. Without a secret of its own,
    /// the map's hash could be attacked.
    pub(super) places: DashMap<RecordId, SharedPhase, RandomState>,
    /// The runs that are over and whose end is not recorded.
    pub(crate) unsaved: UnsavedEnds,
    /// The runs of other processes for which duplicates wait here.
    pub(super) elsewhere: DashMap<RecordId, SharedPhase, RandomState>,
    /// The times at which the tasks for `elsewhere` read the store.
    pub(super) ticks: ReadTimes,
    /// The last requests that used the key of another one.
    pub(crate) mismatches: Mismatches,
    /// Until when other processes take this one for alive.
    pub lease: Lease,
    /// The number of slots that are taken. `max_runs` bounds it, and drain waits until it is 0.
    pub(super) live: AtomicUsize,
    /// The number of them that each client has.
    pub(super) clients: Clients,
    /// The number of ends that are still being recorded. Drain waits until it is 0 too.
    retrying: AtomicUsize,
    /// The number of the next slot: see `Slot::turn`.
    pub(super) turns: AtomicU64,
    /// Notifies drain when `live` or `retrying` has become 0.
    idle: Notify,
    /// Set before a drain that is announced, and never cleared: the process is no longer ready.
    leaving: AtomicBool,
    /// Set by drain, and never cleared: from then on new requests begin no run.
    draining: AtomicBool,
    /// `true` once runs are to stop that another process may run again.
    stopping: watch::Sender<bool>,
    /// The number of duplicates that wait, over all runs. `Waiter::join` bounds it.
    waiters: Arc<AtomicUsize>,
    /// The counters of this process, and the throttles of its log.
    pub telemetry: Telemetry,
}

/// Shows how many there are of each, and no outcome.
impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots")
            .field("live", &self.live())
            .field("places", &self.places.len())
            .field("elsewhere", &self.elsewhere.len())
            .field("unsaved", &self.unsaved)
            .field("waiters", &self.waiters.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

impl Slots {
    /// Returns the run under way for `id`, or the one that only this process remembers.
    pub(crate) fn look(&self, id: &RecordId) -> Option<Waiter> {
        point();
        if let Some(phase) = self.places.get(id) {
            return Some(self.waiter(&phase));
        }
        point();
        self.look_unsaved(id)
    }

    /// Returns whether a run of `id` is under way, or this process alone remembers its end.
    #[must_use]
    pub fn has(&self, id: &RecordId) -> bool {
        self.look(id).is_some()
    }

    /// Returns what this process has counted.
    pub(crate) fn stats(&self) -> Stats {
        self.telemetry.counters.read(self.live())
    }

    /// Frees a slot that [`take`](Self::take) in `slot.rs` has given, so that the next request with this id may run;
    /// and then the room that the run took. A slot calls it when it is dropped.
    pub(super) fn leave(&self, id: RecordId, client: Option<Client>) {
        point();
        self.places.remove(&id);
        point();
        self.clients.dismiss(client);
        self.decrement_live();
    }

    /// Counts one slot less, and notifies drain if none is left.
    pub(super) fn decrement_live(&self) {
        if self.live.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.idle.notify_waiters();
        }
    }

    /// Counts an end that is still being recorded, for which drain waits.
    pub(crate) fn retrying(self: &Arc<Self>) -> Retrying {
        self.retrying.fetch_add(1, Ordering::SeqCst);
        Retrying(Arc::clone(self))
    }

    /// Announces that the process will drain soon.
    pub(crate) fn announce_drain(&self) {
        self.leaving.store(true, Ordering::SeqCst);
    }

    /// Returns whether the process drains, or will soon.
    #[cfg(feature = "server")]
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst) || self.is_draining()
    }

    /// Refuses new runs from now on, and waits until no run is left and no end is being recorded.
    pub(crate) async fn drained(&self) {
        self.draining.store(true, Ordering::SeqCst);
        let is_idle = || self.live() == 0 && self.retrying.load(Ordering::SeqCst) == 0;
        until(&self.idle, || is_idle().then_some(())).await;
    }

    /// Stops the runs that another process may run again.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Waits until such runs are to stop.
    pub(crate) async fn stopped(&self) {
        let mut stopping = self.stopping.subscribe();
        // An error: the slots are gone, with all runs.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }

    /// Returns whether new runs are refused.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Returns the number of runs under way.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live.load(Ordering::SeqCst)
    }

    /// Returns the number of duplicates that wait.
    #[cfg(feature = "metrics")]
    pub(crate) fn waiters(&self) -> usize {
        self.waiters.load(Ordering::Relaxed)
    }

    pub(super) fn waiter(&self, phase: &SharedPhase) -> Waiter {
        Waiter { phase: phase.clone(), all: Arc::clone(&self.waiters) }
    }

    /// Returns a waiter for a run that is over and that only this process remembers.
    pub(super) fn look_unsaved(&self, id: &RecordId) -> Option<Waiter> {
        Some(self.waiter(&self.unsaved.get(id)?))
    }
}

/// Held while the store records how a run ended.
#[derive(Debug)]
pub(crate) struct Retrying(pub(crate) Arc<Slots>);

impl Drop for Retrying {
    fn drop(&mut self) {
        if self.0.retrying.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}
