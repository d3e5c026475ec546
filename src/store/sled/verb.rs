//! What the handles ask of the writer.

use std::time::Instant;

use tokio::sync::oneshot;

use super::batch::Reply;
use super::transaction::Transact;
use crate::codec::MAX_INLINE;
use crate::key::RecordId;
use crate::record::{Claim, Claimed, Completion, Fence, Hold, Resolution, Settled, Settlement};
use crate::store::StoreError;

/// What a verb writes beside its outcome: its record, and its share of what lists it.
const VERB_BYTES: usize = 256;

/// A claim, and until when somebody waits for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    pub(super) claim: Claim,
    deadline: Option<Instant>,
}

impl Wish {
    pub(super) fn new(claim: Claim) -> Self {
        // A time too far away for the clock is none.
        Self { claim, deadline: Instant::now().checked_add(claim.patience) }
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
pub(super) enum Verb {
    Claim(Wish, Reply<Claimed>),
    Reclaim(Wish, Fence, Reply<Option<Hold>>),
    Inquire(RecordId, Fence, Reply<Option<Fence>>),
    Complete(Completion, Reply<Settled>),
    Transact(Box<Transact>),
    Release(RecordId, Fence, Reply<Settled>),
    Interrupt(RecordId, Fence, Option<u16>, Reply<Settled>),
    Resolve(RecordId, Fence, Resolution, Reply<Settled>),
    Sweep(usize, Reply<usize>),
    /// Makes durable what the application wrote to its own trees.
    Sync(Reply<()>),
    /// Ends the thread, once all that was sent before is answered.
    Close(oneshot::Sender<()>),
}

impl Verb {
    /// Of outcomes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Complete(Completion { settlement: Settlement::Outcome(outcome), .. }, _)
            | Self::Resolve(_, _, Resolution::Outcome { outcome, .. }, _) => outcome.len(),
            _ => 0,
        }
    }

    /// What of it is written in one step with all others of its batch.
    pub(super) fn step(&self) -> usize {
        VERB_BYTES + Some(self.bytes()).filter(|bytes| *bytes <= MAX_INLINE).unwrap_or(0)
    }
}
