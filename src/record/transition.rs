//! The steps that an operation can take, and the values they carry: the claim, the right that it gives, and how a run
//! ended.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;

use super::cause::Cause;
use super::operation::Operation;
use super::state::{ClaimPolicy, Fence, Record};
use crate::clock::Timestamp;

/// A step of an operation, which a store is asked to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition<O = Bytes> {
    /// Runs an operation that has no record.
    Claim(Claim),
    /// Runs an interrupted operation again, if its record is still interrupted under this fence, and the reason is good
    /// enough for it.
    Reclaim(Claim, Fence, ReclaimReason),
    /// Asks about an interrupted operation, if its record is still interrupted under this fence. The new fence belongs
    /// to the question; the interrupted run may still end.
    Inquire {
        /// The fence of the record.
        fence: Fence,
        /// The longest time that the question may take; until then, other requests are answered that the operation is
        /// in flight.
        bound: Duration,
    },
    /// Records how a run ended.
    Complete(Completion<O>),
    /// Records that a run had no effect: the key is free.
    Release(Fence),
    /// Records that it is unknown how a run ended.
    Interrupt {
        /// The fence of the run.
        fence: Fence,
        /// The reason why it is unknown.
        cause: Cause,
        /// The record that is written if the run's claim was lost. `None` if no claim can be lost: then a run that has
        /// no record needs none.
        lost: Option<Lost>,
    },
    /// Settles an operation as an operator says, if its record still has this fence and a state that the resolution is
    /// for. An outcome is kept for this duration from now.
    Resolve(Fence, Resolution<O>, Duration),
    /// Writes a record of another store as it is, if there is none. A record of a run that is under way is refused.
    Adopt(Box<Record<O>>),
}

/// The reason why an interrupted operation may run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReclaimReason {
    /// The policy of the process says so. It counts only for a run that was claimed under [`ClaimPolicy::Rerun`]: any
    /// other was promised that it would not be repeated.
    Policy,
    /// The application was asked about this operation, and said so.
    Verdict,
}

/// An interrupted run whose claim may be lost by a failover of a database that several processes share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The operation.
    pub operation: Operation,
    /// The number of this attempt, counted from 1.
    pub attempt: u32,
    /// The policy under which the run was claimed.
    pub policy: ClaimPolicy,
    /// The time for which the record is kept, from now.
    pub retention: Duration,
}

/// The wish to run an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The operation, as the request names it.
    pub operation: Operation,
    /// The policy that applies if the operation's run is interrupted.
    pub policy: ClaimPolicy,
    /// `true` if the operation may run again when this process dies before it is completed. If so, an exclusive store
    /// need not keep any trace of the claim: the slot in this process is the claim.
    pub may_repeat: bool,
    /// The longest time that the run may take. In a store that several processes share, the run counts as interrupted
    /// afterwards.
    pub bound: Duration,
    /// The time for which the record is kept if the run is interrupted.
    pub interrupted_retention: Duration,
    /// The time that the requester waits. A store that comes to the claim later refuses it, so that nothing is claimed
    /// for a requester whose request was already refused.
    pub timeout: Duration,
}

/// The right to run an operation and to say how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// The fence that the claim took.
    pub fence: Fence,
    /// The number of this attempt, counted from 1.
    pub attempt: u32,
}

/// The end of a run that is to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion<O = Bytes> {
    /// The operation, for a record that is written anew because there is none.
    pub operation: Operation,
    /// The right under which the run took place.
    pub hold: Hold,
    /// The end of the run.
    pub result: RunResult<O>,
    /// The time for which the end is kept, from now.
    pub retention: Duration,
    /// The time at which the operation began, if its record is put back: over an older one of the same operation that
    /// is not done, which a failover has brought back.
    pub began: Option<Timestamp>,
}

/// The end of a run, if that has to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunResult<O = Bytes> {
    /// The run ended with an outcome that is replayed from now on.
    Outcome(O),
    /// The run ended with an outcome that cannot be stored.
    Consumed {
        /// The status, which is all that remains of the outcome.
        status: u16,
    },
}

/// An operator's verdict on an operation. `O` is an answer for a layer, and JSON for a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resolution<O = Bytes> {
    /// An interrupted operation took place. Retries get this outcome, for as long as they would get any other.
    Outcome(O),
    /// An interrupted operation did not take place, or may take place again. The key is free, and the next run does not
    /// learn of an earlier one.
    Release,
    /// The record of a done operation is deleted before its retention is over. **The key is free: a retry that still
    /// comes is a second effect.**
    Forget,
    /// The answer of a completed operation is deleted, and the fact is kept for as long as it would be: retries get
    /// this status, and do not run.
    ForgetAnswer {
        /// The status of the answer; 0 if it is not known.
        status: u16,
    },
}

impl<O> Transition<O> {
    /// Returns the claim, if this transition takes an operation for a requester who waits. Only such a transition may
    /// be refused because the store is full or because it is late.
    #[must_use]
    pub fn claim(&self) -> Option<&Claim> {
        match self {
            Self::Claim(claim) | Self::Reclaim(claim, ..) => Some(claim),
            // A question, a settlement, or the end of a run.
            _ => None,
        }
    }

    /// Returns the same transition with its outcome in another form.
    #[must_use]
    pub fn map<P>(self, form: impl FnOnce(&O) -> P) -> Transition<P> {
        match self {
            Self::Claim(claim) => Transition::Claim(claim),
            Self::Reclaim(claim, fence, reason) => Transition::Reclaim(claim, fence, reason),
            Self::Inquire { fence, bound } => Transition::Inquire { fence, bound },
            Self::Complete(Completion { operation, hold, result, retention, began }) => {
                let result = match result {
                    RunResult::Outcome(outcome) => RunResult::Outcome(form(&outcome)),
                    RunResult::Consumed { status } => RunResult::Consumed { status },
                };
                Transition::Complete(Completion { operation, hold, result, retention, began })
            }
            Self::Release(fence) => Transition::Release(fence),
            Self::Interrupt { fence, cause, lost } => Transition::Interrupt { fence, cause, lost },
            Self::Resolve(fence, resolution, retention) => {
                let resolution = match resolution {
                    Resolution::Outcome(outcome) => Resolution::Outcome(form(&outcome)),
                    Resolution::Release => Resolution::Release,
                    Resolution::Forget => Resolution::Forget,
                    Resolution::ForgetAnswer { status } => Resolution::ForgetAnswer { status },
                };
                Transition::Resolve(fence, resolution, retention)
            }
            Self::Adopt(record) => {
                let Ok(record) = record.form(|outcome| Ok::<_, Infallible>(form(outcome)));
                Transition::Adopt(Box::new(record))
            }
        }
    }

    /// Returns the outcome that the transition records.
    #[must_use]
    pub fn outcome(&self) -> Option<&O> {
        match self {
            Self::Complete(Completion { result: RunResult::Outcome(outcome), .. })
            | Self::Resolve(_, Resolution::Outcome(outcome), _) => Some(outcome),
            Self::Adopt(record) => record.state.outcome(),
            // Every other transition leaves no outcome.
            _ => None,
        }
    }
}
