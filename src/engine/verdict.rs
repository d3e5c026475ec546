//! The answer that one request gets.

use bytes::Bytes;

use crate::fingerprint::Match;
use crate::slots::{End, Refusal};

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
    /// The request's own run panicked, or took too long.
    Interrupted,
    /// The operation's state or end. Every request that presents its fingerprint gets the same.
    Met(End),
    /// The key belongs to another request.
    Mismatch(Match),
}

impl<T> Verdict<T> {
    /// Returns whether the verdict comes from the request's own run. That run records it in the span, because its
    /// requester may be gone.
    pub(crate) fn is_of_own_run(&self) -> bool {
        matches!(self, Self::Answered(_) | Self::Committed(_) | Self::RolledBack | Self::Interrupted)
    }

    /// Returns whether the request got neither its own run's product nor an outcome.
    pub(crate) fn is_rejection(&self) -> bool {
        !matches!(self, Self::Answered(_) | Self::Committed(_) | Self::Met(End::Outcome(_)))
    }

    /// Returns the name of the verdict in logs; for a refusal, it is the one of `RejectionKind::slug`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Answered(_) | Self::Committed(_) => "ran",
            Self::Mismatch(Match::OtherCredentials) => "credentials-changed",
            Self::Mismatch(Match::NotVerifiable) => "not-verifiable",
            // This is `Match::Other`, because `Match::Same` is no mismatch.
            Self::Mismatch(_) => "key-reused",
            Self::Met(End::Outcome(_)) => "replayed",
            Self::Met(End::Consumed { .. }) => "not-replayable",
            Self::Met(End::InFlight | End::Released) => "in-flight",
            Self::Met(End::Interrupted { .. } | End::InDoubt) | Self::Interrupted => "outcome-unknown",
            Self::Met(End::Refused(Refusal::Full)) => "store-full",
            Self::Met(End::Refused(Refusal::ShuttingDown)) => "shutting-down",
            Self::Met(End::Refused(Refusal::Overloaded)) => "overloaded",
            Self::RolledBack | Self::Met(End::Refused(Refusal::Unavailable | Refusal::Corrupt)) => "store-unavailable",
        }
    }
}

impl<T> From<Result<End, Match>> for Verdict<T> {
    fn from(result: Result<End, Match>) -> Self {
        result.map_or_else(Self::Mismatch, Self::Met)
    }
}

impl<T> From<Refusal> for Verdict<T> {
    fn from(refusal: Refusal) -> Self {
        Self::Met(End::Refused(refusal))
    }
}
