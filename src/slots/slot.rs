//! One slot: a run takes it, shows its duplicates through it which phase it is in, and frees it. So a story of a run
//! comes here twice; an operator's step takes one, too.
//!
//! `point` is empty, except in the laboratory of interleavings, which lets another thread come between there.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dashmap::mapref::entry::Entry;

use super::clients::Client;
use super::map::Slots;
use super::phase::{End, Ended, Phase, Refusal};
use super::shared_phase::SharedPhase;
use super::wait::Waiter;
use crate::key::RecordId;
use crate::laboratory::point;
use crate::record::Cause;

/// The right to be the only run of a record id in this process.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    pub(crate) id: RecordId,
    /// The number of this slot, which no other slot of the store has; see `UnsavedEnds::forget`. Later slots of the
    /// same id have greater ones.
    pub(crate) turn: u64,
    client: Option<Client>,
    /// Shows duplicates the run's phase. A clone is in the run's place.
    phase: SharedPhase,
    /// `Some` while the store records how the run ended: how long the unsaved end is kept.
    settling: Option<Duration>,
}

/// The result of asking for a slot.
#[derive(Debug)]
pub(crate) enum Entered {
    /// The slot was free, and is the caller's now.
    Mine(Slot),
    /// Another run has the slot.
    Occupied(Waiter),
    /// The slot was free, but there are as many runs as are allowed, for the reason that is given.
    Full(&'static str),
}

impl Slots {
    /// Takes the slot of `id`, unless a run has it, there are `most` runs, or `client` has its share of them. What has
    /// no client keeps to no share.
    pub(crate) fn take(self: &Arc<Self>, id: RecordId, most: usize, client: Option<Client>) -> Entered {
        point();
        // The entry locks the place. `unsaved` and `clients` are locked within it, never the other way round.
        match self.places.entry(id) {
            Entry::Occupied(place) => Entered::Occupied(self.waiter(place.get())),
            Entry::Vacant(place) => {
                // This is looked up under the lock of the place, because a run remembers its end before it leaves its
                // place.
                if let Some(waiter) = self.look_unsaved(&id) {
                    return Entered::Occupied(waiter);
                }
                // The run is counted first, so that two runs that come at once cannot both take the last place.
                let free = || most.saturating_sub(self.live.fetch_add(1, Ordering::SeqCst));
                if let Err(reason) = self.clients.admit(client, free) {
                    self.decrement_live();
                    return Entered::Full(reason);
                }
                let turn = self.turns.fetch_add(1, Ordering::Relaxed);
                let phase = SharedPhase::new(Phase::Claiming);
                place.insert(phase.clone());
                Entered::Mine(Slot { slots: Arc::clone(self), id, turn, client, phase, settling: None })
            }
        }
    }
}

impl Slot {
    /// Marks the run's end as being recorded from now on. If the slot is dropped before the store has answered, the end
    /// can perhaps be read in the store but may not be durable, and no request may be answered from it. The slot is
    /// then not freed for as long as an outcome is kept.
    pub(crate) fn begin_settling(&mut self, retention: Duration) {
        self.settling = Some(retention);
    }

    /// Returns the run's phase, for the requester.
    pub(crate) fn phase(&self) -> SharedPhase {
        self.phase.clone()
    }

    /// Shows the duplicates the run's phase.
    pub(crate) fn show_phase(&self, phase: Phase) {
        point();
        self.phase.show(phase);
    }

    /// Passes the run's end to the duplicates, and frees the slot.
    pub(crate) fn end(self, ended: impl Into<Ended>) {
        self.show_phase(Phase::Ended(ended.into()));
    }

    /// Keeps the run's end for later duplicates, for `retention` or until `UnsavedEnds::forget`. The bytes of its
    /// outcome were reserved there.
    pub(crate) fn keep(&self, bytes: usize, retention: Duration) {
        self.slots.unsaved.keep(self.id, self.turn, self.phase.clone(), bytes, retention);
    }

    /// Passes the run's end to the duplicates, and keeps it for those that come later, for `retention`, because the
    /// store does not know it. No run of the operation begins before `UnsavedEnds::forget`. If there is no room for the
    /// outcome, duplicates are answered that it is unknown. Returns whether there is room.
    pub(crate) fn remember(self, ended: impl Into<Ended>, retention: Duration) -> bool {
        let ended = ended.into();
        let bytes = ended.bytes();
        let is_whole = bytes == 0 || self.slots.unsaved.reserve(bytes);
        let (ended, bytes) = if is_whole { (ended, bytes) } else { (ended.emptied(), 0) };
        self.show_phase(Phase::Ended(ended));
        point();
        self.keep(bytes, retention);
        is_whole
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // If the run has not ended, its task panicked or was aborted, or its runtime is gone. The engine catches a
        // handler's panic.
        let cut = self.phase.read(|phase| match phase {
            Phase::Ended(_) => None,
            // No handler has started.
            Phase::Claiming | Phase::Stalled => Some(Refusal::Unavailable.into()),
            Phase::Running(fingerprint) => Some(Ended::new(*fingerprint, End::Interrupted { cause: Cause::Shutdown })),
        });
        if let Some(ended) = cut {
            self.show_phase(Phase::Ended(ended));
            point();
            // The end is kept before the slot is freed, so that no request finds neither.
            if let Some(retention) = self.settling {
                self.keep(0, retention);
            }
        }
        self.slots.leave(self.id, self.client);
    }
}
