//! One slot: the phases a run goes through, as its duplicates see them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::Slots;
use crate::fingerprint::Fingerprint;
use crate::key::RecordId;
use crate::laboratory::{self, Protection};
use crate::record::Record;

/// Where a run stands.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    /// It asked the store for the operation and has no answer yet. What the operation's request *is* is not known.
    Claiming,
    /// The store takes too long to answer.
    Stalled,
    /// Its handler runs.
    Running(Fingerprint),
    /// It is over.
    Ended(End),
}

/// How a run ended, for those who waited.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// No run came of it: there was this record.
    Found(Record),
    /// No run came of it: the claim was refused.
    Refused(Refusal),
    /// With an outcome.
    Completed(Fingerprint, Bytes),
    /// With an outcome that can't be stored.
    Consumed(Fingerprint, u16),
    /// Without an effect; the key is free again.
    Released(Fingerprint),
    /// Nobody knows how.
    Interrupted(Fingerprint),
    /// With a transaction of which nobody knows whether it is durable, until the store is opened again.
    InDoubt(Fingerprint),
}

/// Why a claim was refused, though there is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The store can't be reached, is poisoned or takes too long. Nothing ran.
    #[error("the store is not available")]
    Unavailable,
    /// There is a record, but its bytes are damaged. Nothing ran.
    #[error("what is stored for this key can't be read")]
    Corrupt,
    /// The store's limits are reached. Nothing ran.
    #[error("the store is full")]
    Full,
    /// Too much is under way: runs, outcomes that could not be recorded, or the store's work. Nothing ran.
    #[error("too much is under way")]
    Overloaded,
    /// The process is shutting down. Nothing ran.
    #[error("the process is shutting down")]
    ShuttingDown,
}

/// The right to be the one run of a record id in this process.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    id: RecordId,
    turn: u64,
    phase: watch::Sender<Phase>,
    // While the store is being told how it ends: how long that is remembered.
    settling: Option<Duration>,
}

/// How a run's end is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// As it was.
    Whole,
    /// Without its outcome, for which there was no room.
    Emptied,
}

impl Slot {
    pub(super) fn new(slots: Arc<Slots>, id: RecordId, turn: u64, phase: watch::Sender<Phase>) -> Self {
        Self { slots, id, turn, phase, settling: None }
    }

    pub(crate) fn id(&self) -> RecordId {
        self.id
    }

    /// Which of the slots of this id it is: see [`Slots::forget`].
    pub(crate) fn turn(&self) -> u64 {
        self.turn
    }

    /// From here on the store is told how it ends. If this is dropped before the store has answered, nobody may be answered
    /// from what can be seen there but is perhaps not durable: the slot is not freed for as long as an outcome is kept.
    pub(crate) fn settles(&mut self, retention: Duration) {
        self.settling = Some(retention);
        if laboratory::is_broken(Protection::Slot) {
            self.slots.vacate(self.id);
        }
    }

    /// How it stands, for whoever asked for the run.
    pub(crate) fn watch(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Tells the duplicates where the run stands.
    pub(crate) fn enter(&self, phase: Phase) {
        laboratory::point();
        self.phase.send_replace(phase);
    }

    /// Tells the duplicates how the run ended, and frees the slot.
    pub(crate) fn end(self, end: End) {
        self.enter(Phase::Ended(end));
    }

    /// Keeps telling how the run ended, after it has, for so long or until [`Slots::forget`].
    pub(crate) fn linger(&self, retention: Duration) {
        self.keep(0, retention);
    }

    fn keep(&self, bytes: usize, retention: Duration) {
        self.slots.remembered.keep(self.id, self.turn, self.phase.subscribe(), bytes, retention);
    }

    /// Tells the duplicates how the run ended, and keeps telling those who come later, for so long: the store doesn't know
    /// it. [`Slots::forget`] frees the slot. Where there is no room for the outcome, they are told that it is unknown.
    pub(crate) fn remember(self, end: End, retention: Duration) -> Kept {
        let (end, bytes, kept) = match end {
            End::Completed(fingerprint, outcome) if !self.slots.remembered.reserve(outcome.len()) => {
                (End::Interrupted(fingerprint), 0, Kept::Emptied)
            }
            End::Completed(_, ref outcome) => {
                let bytes = outcome.len();
                (end, bytes, Kept::Whole)
            }
            end => (end, 0, Kept::Whole),
        };
        self.enter(Phase::Ended(end));
        laboratory::point();
        self.keep(bytes, retention);
        kept
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Not ended: the run panicked, its task was aborted, or its runtime is gone.
        let settling = self.settling;
        let cut = self.phase.send_if_modified(|phase| {
            let end = match phase {
                Phase::Ended(_) => return false,
                Phase::Claiming | Phase::Stalled => End::Refused(Refusal::Unavailable),
                Phase::Running(fingerprint) => End::Interrupted(*fingerprint),
            };
            *phase = Phase::Ended(end);
            true
        });
        laboratory::point();
        if cut && let Some(retention) = settling {
            self.linger(retention);
        }
        self.slots.leave(self.id);
    }
}
