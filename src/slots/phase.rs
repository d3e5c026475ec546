//! Where a run stands, and the one list of how an operation ended: for what a run produced, what is recorded of it, and what
//! its duplicates are told.

use bytes::Bytes;

use crate::fingerprint::{Fingerprint, Match};
use crate::record::{Owner, Record, State};

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

/// How an operation ended, as far as this process knows.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// With an outcome that is replayed from now on.
    Outcome(Bytes),
    /// With an outcome that can't be stored.
    Consumed { status: u16 },
    /// Without an effect: the key is free.
    Released,
    /// Nobody knows whether with or without. `status` is what its client was answered, where the answer said so.
    Unknown { status: Option<u16> },
    /// With a transaction of which nobody knows whether it is durable, until the store is opened again.
    InDoubt,
    /// Not yet: its run goes on, here or in another process.
    InFlight,
    /// Nothing ran.
    Refused(Refusal),
}

/// Why a request gets neither a run nor what was recorded. Nothing ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The store can't be reached, is poisoned or takes too long.
    Unavailable,
    /// There is a record, but its bytes are damaged.
    Corrupt,
    /// The store's limits are reached.
    Full,
    /// Too much is under way: runs, outcomes that could not be recorded, or the store's work.
    Overloaded,
    /// The process is shutting down.
    ShuttingDown,
}

/// An end, and which request's operation it is. Only that request is told: which one it is, is compared before anything else.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    /// `None`: not known, as nothing ran. That may be said to anybody.
    fingerprint: Option<Fingerprint>,
    end: End,
}

impl Ended {
    pub(crate) fn new(fingerprint: Fingerprint, end: End) -> Self {
        Self { fingerprint: Some(fingerprint), end }
    }

    /// What a request is told that presents this.
    pub(crate) fn told(self, presented: &Fingerprint) -> Result<End, Match> {
        match self.fingerprint.as_ref().map(|fingerprint| fingerprint.compare(presented)) {
            None | Some(Match::Same) => Ok(self.end),
            Some(other) => Err(other),
        }
    }

    /// The bytes of its outcome; none, if it has none.
    pub(super) fn bytes(&self) -> usize {
        if let End::Outcome(outcome) = &self.end { outcome.len() } else { 0 }
    }

    /// The same without its outcome: of it nobody knows how it ended.
    pub(super) fn emptied(self) -> Self {
        Self { end: End::Unknown { status: None }, ..self }
    }
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        Self { fingerprint: None, end: End::Refused(refusal) }
    }
}

impl From<Record> for Ended {
    fn from(record: Record) -> Self {
        let end = match record.state {
            State::Completed { outcome } => End::Outcome(outcome),
            State::Consumed { status } => End::Consumed { status },
            State::Running { .. } => End::InFlight,
            // Another process asks about it.
            State::Interrupted { .. } if record.owner == Owner::Elsewhere => End::InFlight,
            State::Interrupted { status, .. } => End::Unknown { status },
        };
        Self::new(record.fingerprint, end)
    }
}
