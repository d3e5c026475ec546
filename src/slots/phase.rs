//! The phases of a run, and the one list of how an operation ends. The list serves for what a run produced, for what is
//! recorded, and for the answers to duplicates.

use bytes::Bytes;

use crate::fingerprint::{Fingerprint, Match};
use crate::record::{Cause, Origin, Owner, Record, State};

/// The phase of a run.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    /// The run has asked the store for the operation and has no answer yet. The fingerprint of the operation's own
    /// request is not known.
    Claiming,
    /// The store takes too long to answer the claim.
    Stalled,
    /// The run is under way: a reconciler is asked, the handler runs, or its end is being recorded.
    Running(Fingerprint),
    /// The run is over.
    Ended(Ended),
}

impl Phase {
    /// Returns the answer to a request that meets a run in this phase and does not wait for it.
    pub(super) fn result_for(self, presented: &Fingerprint) -> Result<(End, Attempt), Match> {
        match self {
            // `InFlight` would say that it is the same request.
            Self::Claiming => Ok((End::Refused(Refusal::Overloaded), Attempt::default())),
            Self::Stalled => Ok((End::Refused(Refusal::Unavailable), Attempt::default())),
            Self::Running(fingerprint) => Ended::new(fingerprint, End::InFlight).result_for(presented),
            Self::Ended(ended) => ended.result_for(presented),
        }
    }

    /// Returns the same, if the fingerprint of the operation's own request is known.
    #[cfg(feature = "server")]
    pub(super) fn known_for(&self, presented: &Fingerprint) -> Option<Result<(End, Attempt), Match>> {
        match self {
            Self::Claiming | Self::Stalled | Self::Ended(Ended { fingerprint: None, .. }) => None,
            Self::Running(_) | Self::Ended(_) => Some(self.clone().result_for(presented)),
        }
    }
}

/// The end of an operation, as far as this process has learnt it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It ended with an outcome that is replayed from now on.
    Outcome(Bytes),
    /// It ended with an outcome that cannot be stored, or is not kept any longer.
    Consumed {
        /// The status, which is all that remains of the outcome.
        status: u16,
    },
    /// It ended without an effect, and the key is free. Or the request may be sent again, and a run of it begins: an
    /// interrupted operation may run again, or its record has changed meanwhile.
    Released,
    /// It is unknown whether it took effect.
    Interrupted {
        /// The reason.
        cause: Cause,
    },
    /// It ended with a transaction; whether that is durable is unknown until the store answers late, or is
    /// opened again.
    InDoubt,
    /// It has not ended: its run goes on, here or in another process.
    InFlight,
    /// Nothing ran.
    Refused(Refusal),
}

/// The reason why a request gets neither a run nor a recorded outcome. Nothing ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
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

/// An attempt at an operation, for logs. No decision depends on it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attempt {
    /// Its number, counted from 1; 0 if it is not known.
    pub(crate) number: u32,
    /// The origin of the operation.
    pub(crate) origin: Origin,
}

/// An end, with the fingerprint of the operation's request. Only a request with the same fingerprint gets the end.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    /// `None` if it is not known because nothing ran. Any request may get such an end.
    fingerprint: Option<Fingerprint>,
    end: End,
    attempt: Attempt,
}

impl Ended {
    pub(crate) fn new(fingerprint: Fingerprint, end: End) -> Self {
        Self { fingerprint: Some(fingerprint), end, attempt: Attempt::default() }
    }

    /// Returns the same end, of this attempt.
    pub(crate) fn of(self, attempt: Attempt) -> Self {
        Self { attempt, ..self }
    }

    /// Returns the answer to a request with the fingerprint `presented`.
    pub(crate) fn result_for(self, presented: &Fingerprint) -> Result<(End, Attempt), Match> {
        match self.fingerprint.as_ref().map(|fingerprint| fingerprint.compare(presented)) {
            None | Some(Match::Same) => Ok((self.end, self.attempt)),
            Some(other) => Err(other),
        }
    }

    /// Returns whether the run goes on, as far as is known.
    pub(crate) fn is_in_flight(&self) -> bool {
        matches!(self.end, End::InFlight)
    }

    /// Returns the length of the outcome, or 0 if there is none.
    pub(super) fn bytes(&self) -> usize {
        if let End::Outcome(outcome) = &self.end { outcome.len() } else { 0 }
    }

    /// Returns the same end without its outcome, so that it counts as unknown.
    pub(super) fn emptied(self) -> Self {
        Self { end: End::Interrupted { cause: Cause::Unsaved }, ..self }
    }
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        Self { fingerprint: None, end: End::Refused(refusal), attempt: Attempt::default() }
    }
}

impl From<Record> for Ended {
    fn from(record: Record) -> Self {
        let end = match record.state {
            State::Completed { outcome } => End::Outcome(outcome),
            State::Consumed { status } => End::Consumed { status },
            State::Running { .. } => End::InFlight,
            // Another process is asking about it.
            State::Interrupted { .. } if record.owner == Owner::Elsewhere => End::InFlight,
            State::Interrupted { cause, .. } => End::Interrupted { cause },
        };
        Self::new(record.fingerprint, end).of(Attempt { number: record.attempt, origin: record.origin })
    }
}
