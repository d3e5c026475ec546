//! What the handles ask of the writer.

use std::time::Instant;

use tokio::sync::oneshot;

use super::storage_engine::StorageEngine;
use super::transact::Transact;
use crate::codec::MAX_INLINE;
use crate::key::RecordId;
use crate::record::{Applied, Transition};
use crate::store::StoreError;

/// What a command writes beside its outcome: its record, and its share of what lists it.
const VERB_BYTES: usize = 256;

/// Where an answer goes.
pub(super) type ReplyTo<T> = oneshot::Sender<Result<T, StoreError>>;

/// A step that is to be taken on a record.
pub(super) struct Submitted {
    pub(super) id: RecordId,
    pub(super) transition: Transition,
    pub(super) reply: ReplyTo<Applied>,
    // Until when somebody waits for it. Only a claim has one.
    deadline: Option<Instant>,
}

impl Submitted {
    pub(super) fn new(id: RecordId, transition: Transition, reply: ReplyTo<Applied>) -> Self {
        // A time too far away for the clock is none.
        let deadline = transition.claim().and_then(|claim| Instant::now().checked_add(claim.patience));
        Self { id, transition, reply, deadline }
    }

    /// Refuses it if nobody waits any more.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(StoreError::unavailable("the store came to the claim too late; nothing was claimed"));
        }
        Ok(())
    }
}

/// What the handles send.
#[allow(clippy::large_enum_variant, reason = "nearly all are the largest")]
pub(super) enum Command<E: StorageEngine> {
    Apply(Submitted),
    Transact(Box<Transact<E::Transaction>>),
    Sweep(usize, ReplyTo<usize>),
    /// Makes durable what was written to the engine past the store.
    Sync(ReplyTo<()>),
    /// Ends the thread, once all that was sent before is answered.
    Close(oneshot::Sender<()>),
}

impl<E: StorageEngine> Command<E> {
    /// The bytes of its outcome.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Apply(step) => step.transition.outcome().map_or(0, bytes::Bytes::len),
            _ => 0,
        }
    }

    /// The bytes of it that are written in one step with all others of its batch.
    pub(super) fn step(&self) -> usize {
        VERB_BYTES + Some(self.bytes()).filter(|bytes| *bytes <= MAX_INLINE).unwrap_or(0)
    }
}
