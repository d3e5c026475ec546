//! The steps that an operation can take, and what they carry: the claim, the right that it gives, how a run ended.

use std::time::Duration;

use bytes::Bytes;

use super::state::{Fence, Origin};
use crate::fingerprint::Fingerprint;
use crate::key::RecordId;

/// A step that an operation is to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition<O = Bytes> {
    /// To run an operation that has no record.
    Claim(Claim),
    /// To run one that was interrupted, as its record says under this fence.
    Reclaim(Claim, Fence),
    /// To ask somebody about one that was interrupted, as its record says under this fence. The new fence is the asker's, for
    /// what it asks; the run that was interrupted may still end.
    Inquire {
        /// The record's fence.
        fence: Fence,
        /// How long the question may take; others are told for so long that the operation is in flight.
        bound: Duration,
    },
    /// To say how a run ended.
    Complete(Completion<O>),
    /// To say of a run that it had no effect: the key is free.
    Release(Fence),
    /// To say of a run that nobody knows how it ended.
    Interrupt {
        /// The run's.
        fence: Fence,
        /// What its client was answered, where the answer said so.
        status: Option<u16>,
    },
    /// To settle an operation that was interrupted, as its record says under this fence. An outcome is kept for so long from
    /// now.
    Resolve(Fence, Resolution<O>, Duration),
}

/// A wish to run an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// What its request is.
    pub fingerprint: Fingerprint,
    /// Where it comes from.
    pub origin: Option<Box<Origin>>,
    /// Whether the operation may run again if this process dies before it is completed. Then a store that this process has
    /// alone need keep no trace of the claim: the slot in this process is the claim.
    pub may_repeat: bool,
    /// How long the run may take. Where several processes share the store, it counts as interrupted afterwards.
    pub bound: Duration,
    /// How long the record is kept if the run is interrupted.
    pub interrupted_retention: Duration,
    /// How long the claimer waits. A store that comes to the claim later refuses it: nothing is claimed for somebody who was
    /// told no.
    pub patience: Duration,
}

/// The right to run an operation and to say how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// Which operation.
    pub id: RecordId,
    /// Its fence.
    pub fence: Fence,
    /// The number of this attempt, from 1.
    pub attempt: u32,
}

/// The end of a run, to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion<O = Bytes> {
    /// Whose run.
    pub hold: Hold,
    /// What its request was.
    pub fingerprint: Fingerprint,
    /// How it ended.
    pub settlement: Settlement<O>,
    /// How long that is remembered, from now.
    pub retention: Duration,
}

/// How a run ended that has to be remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement<O = Bytes> {
    /// With an outcome that is replayed from now on.
    Outcome(O),
    /// With an outcome that can't be stored.
    Consumed {
        /// What remains of it.
        status: u16,
    },
}

/// What an operator says of an interrupted operation. `O` is an answer for a layer, and bytes for a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resolution<O = Bytes> {
    /// It took place. Retries get this outcome, for as long as they would get any other.
    Outcome(O),
    /// It did not take place, or may take place again. The key is free, and the next run is not told of an earlier one.
    Forget,
}

impl<O> Transition<O> {
    /// Whether it takes an operation for somebody who waits: what a store may refuse for its limits, or because it is late.
    #[must_use]
    pub fn claim(&self) -> Option<&Claim> {
        match self {
            Self::Claim(claim) | Self::Reclaim(claim, _) => Some(claim),
            _ => None,
        }
    }

    /// The same, with the outcome in another form.
    pub(crate) fn map<P>(self, form: impl FnOnce(O) -> P) -> Transition<P> {
        match self {
            Self::Claim(claim) => Transition::Claim(claim),
            Self::Reclaim(claim, fence) => Transition::Reclaim(claim, fence),
            Self::Inquire { fence, bound } => Transition::Inquire { fence, bound },
            Self::Complete(Completion { hold, fingerprint, settlement, retention }) => {
                let settlement = match settlement {
                    Settlement::Outcome(outcome) => Settlement::Outcome(form(outcome)),
                    Settlement::Consumed { status } => Settlement::Consumed { status },
                };
                Transition::Complete(Completion { hold, fingerprint, settlement, retention })
            }
            Self::Release(fence) => Transition::Release(fence),
            Self::Interrupt { fence, status } => Transition::Interrupt { fence, status },
            Self::Resolve(fence, resolution, retention) => {
                let resolution = match resolution {
                    Resolution::Outcome(outcome) => Resolution::Outcome(form(outcome)),
                    Resolution::Forget => Resolution::Forget,
                };
                Transition::Resolve(fence, resolution, retention)
            }
        }
    }

    /// The outcome that it records.
    pub(crate) fn outcome(&self) -> Option<&O> {
        match self {
            Self::Complete(Completion { settlement: Settlement::Outcome(outcome), .. })
            | Self::Resolve(_, Resolution::Outcome(outcome), _) => Some(outcome),
            _ => None,
        }
    }
}
