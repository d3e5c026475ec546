//! The answer that one request gets.

use bytes::Bytes;

use super::event::{RAN, REPLAYED};
use crate::fingerprint::Match;
use crate::record::Origin;
use crate::slots::{Attempt, End, Refusal};

/// The result of an exchange, for one request.
#[derive(Debug)]
pub(crate) enum Verdict<T> {
    /// The request's own run produced this.
    Answered(T),
    /// The request's own run recorded this together with its effect.
    Committed(Bytes),
    /// The request's own run did not commit the transaction that was to hold its effect and its record. Nothing was
    /// done.
    RolledBack,
    /// The request's own run panicked, or took too long. Its operation has this origin.
    Interrupted(Origin),
    /// The request's own run has sent its transaction, and it is unknown whether that is durable.
    InDoubt(Origin),
    /// The operation's state or end, and the attempt that is in it. Every request that presents its fingerprint gets
    /// the same.
    Met(End, Attempt),
    /// The key belongs to another request.
    Mismatch(Match),
}

impl<T> Verdict<T> {
    /// Returns whether the verdict comes from the request's own run. That run records it in the span, because its
    /// requester may be gone.
    pub(crate) fn is_of_own_run(&self) -> bool {
        matches!(
            self,
            Self::Answered(_) | Self::Committed(_) | Self::RolledBack | Self::Interrupted(_) | Self::InDoubt(_)
        )
    }

    /// Returns whether the request got neither its own run's product nor an outcome.
    pub(crate) fn is_rejection(&self) -> bool {
        !matches!(self, Self::Answered(_) | Self::Committed(_) | Self::Met(End::Outcome(_), _))
    }

    /// Returns the attempt that the verdict is about, if it is another one than the request's own.
    pub(crate) fn attempt(&self) -> Option<&Attempt> {
        if let Self::Met(_, attempt) = self { Some(attempt) } else { None }
    }

    /// Returns the name of the verdict in logs; for a refusal, it is the one of `RejectionKind::slug`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Answered(_) | Self::Committed(_) => RAN,
            Self::Mismatch(Match::OtherCredentials) => "credentials-changed",
            Self::Mismatch(Match::NotVerifiable) => "not-verifiable",
            // This is `Match::Other`, because `Match::Same` is no mismatch.
            Self::Mismatch(_) => "key-reused",
            Self::Met(End::Outcome(_), _) => REPLAYED,
            Self::Met(End::Consumed { .. }, _) => "not-replayable",
            Self::Met(End::InFlight | End::Released, _) => "in-flight",
            Self::Met(End::Interrupted { .. } | End::InDoubt, _) | Self::Interrupted(_) | Self::InDoubt(_) => {
                "outcome-unknown"
            }
            Self::Met(End::Refused(Refusal::Full), _) => "store-full",
            Self::Met(End::Refused(Refusal::ShuttingDown), _) => "shutting-down",
            Self::Met(End::Refused(Refusal::Overloaded), _) => "overloaded",
            Self::RolledBack | Self::Met(End::Refused(Refusal::Unavailable | Refusal::Corrupt), _) => {
                "store-unavailable"
            }
        }
    }
}

impl<T> From<Result<(End, Attempt), Match>> for Verdict<T> {
    fn from(result: Result<(End, Attempt), Match>) -> Self {
        result.map_or_else(Self::Mismatch, |(end, attempt)| Self::Met(end, attempt))
    }
}

impl<T> From<Refusal> for Verdict<T> {
    fn from(refusal: Refusal) -> Self {
        Self::Met(End::Refused(refusal), Attempt::default())
    }
}
