//! What one request gets, and the one table of the ends of operations: [`Verdict::of`] reads an end, and each row of
//! [`Unanswered`] has its [name](Unanswered::name) here, its rejection in `server/reject/reasons.rs`, and its error for
//! consumers in `once_result.rs`.

use bytes::Bytes;

use crate::fingerprint::{Match, RequestPart};
use crate::slots::{Attempt, End, Refusal};

/// The names of what requests get, in spans, logs, counts and headers. A rejection has its name as its slug.
pub(crate) mod name {
    pub(crate) const RAN: &str = "ran";
    pub(crate) const REPLAYED: &str = "replayed";
    pub(crate) const STORE_UNAVAILABLE: &str = "store-unavailable";
    pub(crate) const STORE_FULL: &str = "store-full";
    pub(crate) const OVERLOADED: &str = "overloaded";
    pub(crate) const SHUTTING_DOWN: &str = "shutting-down";
    pub(crate) const KEY_REUSED: &str = "key-reused";
    pub(crate) const CREDENTIALS_CHANGED: &str = "credentials-changed";
    pub(crate) const NOT_VERIFIABLE: &str = "not-verifiable";
    pub(crate) const IN_FLIGHT: &str = "in-flight";
    pub(crate) const NOT_REPLAYABLE: &str = "not-replayable";
    pub(crate) const OUTCOME_UNKNOWN: &str = "outcome-unknown";
}

/// The result of an exchange, for one request. `is_own` is `true` if the request's own run has ended so: a transaction
/// decided, or its end is unknown. Otherwise the request has met it, as every request does that presents the
/// fingerprint.
#[derive(Debug)]
pub(crate) enum Verdict<T> {
    /// The request's own run produced this, and it counts.
    Own(T),
    /// The operation has this outcome, of this attempt.
    Outcome { outcome: Bytes, attempt: Attempt, is_own: bool },
    /// There is none, as far as this attempt goes.
    Unanswered { why: Unanswered, attempt: Attempt, is_own: bool },
}

/// Why a request gets neither its own run's product nor an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// The key belongs to another request.
    Mismatch(Match),
    /// The operation was done, with this status, and its outcome is not stored.
    NotReplayable(u16),
    /// The transaction of its own run was not committed, and the key is free.
    NotCommitted,
    /// Its operation goes on, here or in another process.
    InFlight,
    /// The key was freed while it waited, or another process took a step first. This request does not run any more: its
    /// client retries.
    Freed,
    /// Its own run was interrupted.
    Interrupted,
    /// An earlier run was, and nothing lets it run again.
    Unknown,
    /// A transaction was sent that may or may not be durable.
    InDoubt,
    /// Nothing ran.
    Refused(Refusal),
}

impl Unanswered {
    /// Returns the name of the row.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mismatch(Match::OtherCredentials) => name::CREDENTIALS_CHANGED,
            Self::Mismatch(Match::NotVerifiable) => name::NOT_VERIFIABLE,
            // `Match::Same` is no mismatch.
            Self::Mismatch(Match::Other(_) | Match::Same) => name::KEY_REUSED,
            Self::NotReplayable(_) => name::NOT_REPLAYABLE,
            Self::InFlight | Self::Freed => name::IN_FLIGHT,
            Self::Interrupted | Self::Unknown | Self::InDoubt => name::OUTCOME_UNKNOWN,
            Self::Refused(Refusal::Full) => name::STORE_FULL,
            Self::Refused(Refusal::ShuttingDown) => name::SHUTTING_DOWN,
            Self::Refused(Refusal::Overloaded) => name::OVERLOADED,
            Self::NotCommitted | Self::Refused(Refusal::Unavailable | Refusal::Corrupt) => name::STORE_UNAVAILABLE,
        }
    }
}

impl<T> Verdict<T> {
    /// Reads an end.
    fn of(end: End, attempt: Attempt, is_own: bool) -> Self {
        let why = match end {
            End::Outcome(outcome) => return Self::Outcome { outcome, attempt, is_own },
            End::Consumed { status } => Unanswered::NotReplayable(status),
            End::Released if is_own => Unanswered::NotCommitted,
            End::Released => Unanswered::Freed,
            End::Interrupted { .. } if is_own => Unanswered::Interrupted,
            End::Interrupted { .. } => Unanswered::Unknown,
            End::InDoubt => Unanswered::InDoubt,
            End::InFlight => Unanswered::InFlight,
            End::Refused(refusal) => Unanswered::Refused(refusal),
        };
        Self::Unanswered { why, attempt, is_own }
    }

    /// Returns the verdict of a run that has ended in this way, for its own request.
    pub(super) fn own_end(end: End, attempt: Attempt) -> Self {
        Self::of(end, attempt, true)
    }

    /// Returns whether the verdict comes from the request's own run. That run records it in the span, because its
    /// requester may be gone.
    pub(crate) fn is_of_own_run(&self) -> bool {
        matches!(self, Self::Own(_) | Self::Outcome { is_own: true, .. } | Self::Unanswered { is_own: true, .. })
    }

    /// Returns the attempt that the verdict is about, if it is another one than the request's own.
    pub(crate) fn attempt(&self) -> Option<&Attempt> {
        match self {
            Self::Outcome { attempt, is_own: false, .. } | Self::Unanswered { attempt, is_own: false, .. } => {
                Some(attempt)
            }
            _ => None,
        }
    }

    /// Returns the part in which the request differs from the one that its key was used for. Its client does not learn
    /// it.
    pub(crate) fn differs(&self) -> Option<RequestPart> {
        match self {
            Self::Unanswered { why: Unanswered::Mismatch(Match::Other(part)), .. } => Some(*part),
            _ => None,
        }
    }

    /// Returns the name of the verdict in logs.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Own(_) | Self::Outcome { is_own: true, .. } => name::RAN,
            Self::Outcome { .. } => name::REPLAYED,
            Self::Unanswered { why, .. } => why.name(),
        }
    }
}

impl<T> From<Result<(End, Attempt), Match>> for Verdict<T> {
    fn from(met: Result<(End, Attempt), Match>) -> Self {
        match met {
            Ok((end, attempt)) => Self::of(end, attempt, false),
            Err(found) => Unanswered::Mismatch(found).into(),
        }
    }
}

impl<T> From<Unanswered> for Verdict<T> {
    fn from(why: Unanswered) -> Self {
        Self::Unanswered { why, attempt: Attempt::default(), is_own: false }
    }
}

impl<T> From<Refusal> for Verdict<T> {
    fn from(refusal: Refusal) -> Self {
        Unanswered::Refused(refusal).into()
    }
}
