//! All the ways an exchange can end.

use bytes::Bytes;

use crate::fingerprint::{Fingerprint, Match};
use crate::record::{Owner, Record, State};
use crate::slots::{End, Refusal};

/// What the work of a run produced, and what is to be remembered of it.
#[derive(Debug)]
pub(crate) struct Finished<T> {
    pub(crate) answer: T,
    pub(crate) ended: Ended,
}

/// How the work of a run ended.
#[derive(Debug, Clone)]
pub(crate) enum Ended {
    /// With an outcome that is replayed from now on.
    Outcome(Bytes),
    /// With an outcome that can't be stored.
    Consumed { status: u16 },
    /// Without an effect.
    Released,
    /// Nobody knows whether with or without. `status` is what its client was answered, where the answer said so.
    Unknown { status: Option<u16> },
}

/// How an exchange ended, for one request.
#[derive(Debug)]
pub(crate) enum Verdict<T> {
    /// It was the first, and this is what its own run produced.
    Answered(T),
    /// It was the first, and this is what was recorded together with its effect.
    Committed(Bytes),
    /// The run's transaction may or may not be durable.
    InDoubt,
    /// The outcome of an earlier run.
    Replayed(Bytes),
    /// An earlier run ended with an outcome that can't be stored.
    Consumed { status: u16 },
    /// The key belongs to another request.
    Mismatch(Match),
    /// The run goes on, or ended without an effect while this request waited for it.
    InFlight,
    /// An earlier run was interrupted.
    Interrupted,
    /// Its own run was: it panicked, or took too long.
    CutShort,
    /// Nothing ran.
    Refused(Refusal),
}

impl<T> Verdict<T> {
    /// Whether the request's own run says it, which records it too: its requester may be gone.
    pub(super) fn is_of_own_run(&self) -> bool {
        matches!(self, Self::Answered(_) | Self::Committed(_) | Self::CutShort)
    }

    /// Its name in logs.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Answered(_) | Self::Committed(_) => "ran",
            Self::Replayed(_) => "replayed",
            Self::Consumed { .. } => "not-replayable",
            Self::Mismatch(Match::OtherCredentials) => "credentials-changed",
            Self::Mismatch(Match::NotVerifiable) => "not-verifiable",
            Self::Mismatch(_) => "key-reused",
            Self::InFlight => "in-flight",
            Self::Interrupted | Self::CutShort | Self::InDoubt => "outcome-unknown",
            Self::Refused(Refusal::Full) => "store-full",
            Self::Refused(Refusal::ShuttingDown) => "shutting-down",
            Self::Refused(Refusal::Overloaded) => "overloaded",
            Self::Refused(_) => "store-unavailable",
        }
    }

    /// What a request is told that finds this record. Which request it is, is compared before anything else.
    pub(crate) fn of_record(record: Record, presented: &Fingerprint) -> Self {
        match record.fingerprint.compare(presented) {
            Match::Same => {}
            other => return Self::Mismatch(other),
        }
        match record.state {
            State::Completed { outcome } => Self::Replayed(outcome),
            State::Consumed { status } => Self::Consumed { status },
            State::Running { .. } => Self::InFlight,
            // Another process asks about it.
            State::Interrupted { .. } if record.owner == Owner::Elsewhere => Self::InFlight,
            State::Interrupted { .. } => Self::Interrupted,
        }
    }

    /// What a request is told that meets a run that ended so.
    pub(crate) fn of_end(end: End, presented: &Fingerprint) -> Self {
        let (fingerprint, verdict) = match end {
            End::Found(record) => return Self::of_record(record, presented),
            End::Refused(refusal) => return Self::Refused(refusal),
            End::Completed(fingerprint, outcome) => (fingerprint, Self::Replayed(outcome)),
            End::Consumed(fingerprint, status) => (fingerprint, Self::Consumed { status }),
            // A waiter never claims: it is told to come again.
            End::Released(fingerprint) => (fingerprint, Self::InFlight),
            End::Interrupted(fingerprint) => (fingerprint, Self::Interrupted),
            End::InDoubt(fingerprint) => (fingerprint, Self::InDoubt),
        };
        match fingerprint.compare(presented) {
            Match::Same => verdict,
            other => Self::Mismatch(other),
        }
    }
}
