//! What one request is told.

use bytes::Bytes;

use crate::fingerprint::Match;
use crate::slots::{End, Refusal};

/// What an exchange came to, for one request.
#[derive(Debug)]
pub(crate) enum Verdict<T> {
    /// It was the first, and this is what its own run produced.
    Answered(T),
    /// It was the first, and this is what was recorded together with its effect.
    Committed(Bytes),
    /// It was the first, and its own run panicked, or took too long.
    Interrupted,
    /// How the operation ended, as anybody is told who presents it.
    Met(End),
    /// The key belongs to another request.
    Mismatch(Match),
}

impl<T> Verdict<T> {
    /// Whether the request's own run says it, which records it too: its requester may be gone.
    pub(super) fn is_of_own_run(&self) -> bool {
        matches!(self, Self::Answered(_) | Self::Committed(_) | Self::Interrupted)
    }

    /// Its name in logs: for a refusal, as `RejectionKind::slug` has it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Answered(_) | Self::Committed(_) => "ran",
            Self::Mismatch(Match::OtherCredentials) => "credentials-changed",
            Self::Mismatch(Match::NotVerifiable) => "not-verifiable",
            Self::Mismatch(_) => "key-reused",
            Self::Met(End::Outcome(_)) => "replayed",
            Self::Met(End::Consumed { .. }) => "not-replayable",
            Self::Met(End::InFlight | End::Released) => "in-flight",
            Self::Met(End::Unknown { .. } | End::InDoubt) | Self::Interrupted => "outcome-unknown",
            Self::Met(End::Refused(Refusal::Full)) => "store-full",
            Self::Met(End::Refused(Refusal::ShuttingDown)) => "shutting-down",
            Self::Met(End::Refused(Refusal::Overloaded)) => "overloaded",
            Self::Met(End::Refused(Refusal::Unavailable | Refusal::Corrupt)) => "store-unavailable",
        }
    }
}

impl<T> From<Result<End, Match>> for Verdict<T> {
    fn from(told: Result<End, Match>) -> Self {
        told.map_or_else(Self::Mismatch, Self::Met)
    }
}

impl<T> From<Refusal> for Verdict<T> {
    fn from(refusal: Refusal) -> Self {
        Self::Met(End::Refused(refusal))
    }
}
