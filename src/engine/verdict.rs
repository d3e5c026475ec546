//! The answer that one request gets.

use super::event::{RAN, REPLAYED};
use crate::fingerprint::{Match, RequestPart};
use crate::slots::{Attempt, End, Refusal};

/// The result of an exchange, for one request.
#[derive(Debug)]
pub(crate) enum Verdict<T> {
    /// The request's own run produced this, and it counts.
    Own(T),
    /// The operation has this state or end, and the attempt that is in it.
    End {
        end: End,
        attempt: Attempt,
        /// `true` if the request's own run has ended so: a transaction decided, or its end is unknown. Otherwise the
        /// request has met it, as every request does that presents the fingerprint.
        is_own: bool,
    },
    /// The key belongs to another request.
    Mismatch(Match),
}

impl<T> Verdict<T> {
    /// Returns the verdict of a run that has ended in this way, for its own request.
    pub(super) fn own_end(end: End, attempt: Attempt) -> Self {
        Self::End { end, attempt, is_own: true }
    }

    /// Returns whether the verdict comes from the request's own run. That run records it in the span, because its
    /// requester may be gone.
    pub(crate) fn is_of_own_run(&self) -> bool {
        matches!(self, Self::Own(_) | Self::End { is_own: true, .. })
    }

    /// Returns whether the request got neither its own run's product nor an outcome.
    pub(crate) fn is_rejection(&self) -> bool {
        !matches!(self, Self::Own(_) | Self::End { end: End::Outcome(_), .. })
    }

    /// Returns the attempt that the verdict is about, if it is another one than the request's own.
    pub(crate) fn attempt(&self) -> Option<&Attempt> {
        if let Self::End { attempt, is_own: false, .. } = self { Some(attempt) } else { None }
    }

    /// Returns the part in which the request differs from the one that its key was used for. Its client does not learn
    /// it.
    pub(crate) fn differs(&self) -> Option<RequestPart> {
        if let Self::Mismatch(Match::Other(part)) = self { Some(*part) } else { None }
    }

    /// Returns the name of the verdict in logs; for a refusal, it is the one of `RejectionKind::slug`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Own(_) => RAN,
            Self::Mismatch(Match::OtherCredentials) => "credentials-changed",
            Self::Mismatch(Match::NotVerifiable) => "not-verifiable",
            // This is `Match::Other`, because `Match::Same` is no mismatch.
            Self::Mismatch(_) => "key-reused",
            Self::End { end, is_own, .. } => match end {
                End::Outcome(_) if *is_own => RAN,
                End::Outcome(_) => REPLAYED,
                End::Consumed { .. } => "not-replayable",
                // Its transaction was not committed, and the key is free.
                End::Released if *is_own => "store-unavailable",
                End::InFlight | End::Released => "in-flight",
                End::Interrupted { .. } | End::InDoubt => "outcome-unknown",
                End::Refused(Refusal::Full) => "store-full",
                End::Refused(Refusal::ShuttingDown) => "shutting-down",
                End::Refused(Refusal::Overloaded) => "overloaded",
                End::Refused(Refusal::Unavailable | Refusal::Corrupt) => "store-unavailable",
            },
        }
    }
}

impl<T> From<Result<(End, Attempt), Match>> for Verdict<T> {
    fn from(met: Result<(End, Attempt), Match>) -> Self {
        met.map_or_else(Self::Mismatch, |(end, attempt)| Self::End { end, attempt, is_own: false })
    }
}

impl<T> From<Refusal> for Verdict<T> {
    fn from(refusal: Refusal) -> Self {
        Self::from(Ok((End::Refused(refusal), Attempt::default())))
    }
}
