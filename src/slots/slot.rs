//! One slot: the phases a run goes through, as its duplicates see them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Slots;
use super::end::{End, Ended, Refusal};
use crate::fingerprint::{Fingerprint, Match};
use crate::key::RecordId;
use crate::laboratory::{self, Protection};

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
    Ended(Ended),
}

impl Phase {
    /// What a request is told that meets a run that stands so, and doesn't wait for it.
    pub(super) fn told(self, presented: &Fingerprint) -> Result<End, Match> {
        match self {
            Self::Claiming => Ok(End::InFlight),
            Self::Stalled => Ok(End::Refused(Refusal::Unavailable)),
            Self::Running(fingerprint) => Ended::new(fingerprint, End::InFlight).told(presented),
            Self::Ended(ended) => ended.told(presented),
        }
    }
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

impl Slot {
    pub(super) fn new(slots: Arc<Slots>, id: RecordId, turn: u64, phase: watch::Sender<Phase>) -> Self {
        Self { slots, id, turn, phase, settling: None }
    }

    pub(crate) fn id(&self) -> RecordId {
        self.id
    }

    /// Which of the slots of this id it is: see [`Remembered::forget`](super::remembered::Remembered::forget).
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
    pub(crate) fn end(self, ended: impl Into<Ended>) {
        self.enter(Phase::Ended(ended.into()));
    }

    /// Keeps telling how the run ended, after it has, for so long or until [`Remembered::forget`](super::remembered::Remembered::forget).
    pub(crate) fn linger(&self, retention: Duration) {
        self.keep(0, retention);
    }

    fn keep(&self, bytes: usize, retention: Duration) {
        self.slots.remembered.keep(self.id, self.turn, self.phase.subscribe(), bytes, retention);
    }

    /// Tells the duplicates how the run ended, and keeps telling those who come later, for so long: the store doesn't know
    /// it. [`Remembered::forget`](super::remembered::Remembered::forget) frees the slot. Where there is no room for the outcome, they are told that it is unknown; says
    /// whether there is.
    pub(crate) fn remember(self, ended: impl Into<Ended>, retention: Duration) -> bool {
        let ended = ended.into();
        let bytes = ended.bytes();
        let is_whole = bytes == 0 || self.slots.remembered.reserve(bytes);
        let (ended, bytes) = if is_whole { (ended, bytes) } else { (ended.emptied(), 0) };
        self.enter(Phase::Ended(ended));
        laboratory::point();
        self.keep(bytes, retention);
        is_whole
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Not ended: the run panicked, its task was aborted, or its runtime is gone.
        let settling = self.settling;
        let cut = self.phase.send_if_modified(|phase| {
            let ended = match phase {
                Phase::Ended(_) => return false,
                Phase::Claiming | Phase::Stalled => Refusal::Unavailable.into(),
                Phase::Running(fingerprint) => Ended::new(*fingerprint, End::Unknown { status: None }),
            };
            *phase = Phase::Ended(ended);
            true
        });
        laboratory::point();
        if cut && let Some(retention) = settling {
            self.linger(retention);
        }
        self.slots.leave(self.id);
    }
}
