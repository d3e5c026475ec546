//! The commands that the handles send to the writer: a claim and an end are both a `Submitted`, with the
//! time by which it has to be durable. `Close`, at the end, has the writer write what is queued and stop.

use std::time::Instant;

use tokio::sync::oneshot;

use super::layout::storage_engine::StorageEngine;
use super::transact::Transact;
use crate::codec::MAX_INLINE;
use crate::key::RecordId;
use crate::record::{Stepped, Transition};
use crate::store::StoreError;

/// The bytes that a command writes in addition to its outcome: its record, and its share of the entries that list it.
const COMMAND_BYTES: usize = 256;

/// The sender for a command's answer.
pub(super) type ReplyTo<T> = oneshot::Sender<Result<T, StoreError>>;

/// A transition that is to be applied to a record.
pub(super) struct Submitted {
    pub(super) id: RecordId,
    pub(super) transition: Transition,
    pub(super) reply: ReplyTo<Stepped>,
    /// The time at which its requester stops waiting. Only a claim has a deadline.
    deadline: Option<Instant>,
}

impl Submitted {
    pub(super) fn new(id: RecordId, transition: Transition, reply: ReplyTo<Stepped>) -> Self {
        // A deadline that the clock cannot represent counts as none.
        let deadline = transition.claim().and_then(|claim| Instant::now().checked_add(claim.timeout));
        Self { id, transition, reply, deadline }
    }

    /// Refuses the transition if its requester has stopped waiting.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(StoreError::unavailable("the store came to the claim too late; nothing was claimed"));
        }
        Ok(())
    }
}

/// A sweep that was asked for. It is done slice by slice, in one batch after the other.
pub(super) struct Asked {
    /// The most records to delete, and how many were deleted so far, which is the answer.
    pub(super) limit: usize,
    pub(super) swept: usize,
    pub(super) reply: ReplyTo<usize>,
}

/// A command to the writer.
#[allow(clippy::large_enum_variant, reason = "nearly all are the largest")]
pub(super) enum Command<E: StorageEngine> {
    /// Applies a transition to one record.
    Apply(Submitted),
    /// Runs a transaction of the application, with or without the end of a run.
    Transact(Box<Transact<E::Transaction>>),
    /// Deletes expired records, over several batches.
    Sweep(Asked),
    /// Makes durable everything that was written to the engine, also past the store.
    Sync(ReplyTo<()>),
    /// Ends the thread, once all commands that were sent before are answered.
    Close(oneshot::Sender<()>),
}

impl<E: StorageEngine> Command<E> {
    /// Returns the length of the outcome, by which a batch is bounded.
    pub(super) fn outcome_bytes(&self) -> usize {
        // A transaction is written in a step of its own. The others have no outcome.
        let Self::Apply(step) = self else { return 0 };
        step.transition.outcome().map_or(0, bytes::Bytes::len)
    }

    /// Returns how many of its bytes are written in one step with the other commands of its batch. A longer outcome is
    /// written before, in chunks.
    pub(super) fn step_bytes(&self) -> usize {
        COMMAND_BYTES + Some(self.outcome_bytes()).filter(|bytes| *bytes <= MAX_INLINE).unwrap_or(0)
    }
}
