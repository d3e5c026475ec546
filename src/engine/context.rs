//! What a run knows of itself.

use std::sync::Arc;

use super::commitment::Commitment;
use crate::key::RecordId;
use crate::record::{Fence, Hold};

/// Whether the operation may have run before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rerun {
    /// There is no trace of an earlier run, and the claims of this policy leave one. What leaves none: a run that an
    /// operator said to forget, and one that was cut short longer than `interrupted_retention` ago.
    No,
    /// It did, and was cut short: it may have taken effect.
    Yes,
    /// Not known: under `Rerun` a claim leaves no trace if the process dies.
    Unknown,
}

/// What a run knows of itself: its fence, its attempt, and keys for what it calls in turn.
#[derive(Debug, Clone)]
pub struct RunContext {
    id: RecordId,
    fence: Fence,
    attempt: u32,
    rerun: Rerun,
    // None for a run that no store protects.
    commitment: Option<Arc<Commitment>>,
}

impl RunContext {
    pub(super) fn new(rerun: Rerun, commitment: Arc<Commitment>) -> Self {
        let Hold { id, fence, attempt, .. } = commitment.hold;
        Self { id, fence, attempt, rerun, commitment: Some(commitment) }
    }

    /// Of a run that no store protects.
    pub(super) fn unprotected(id: RecordId) -> Self {
        Self { id, fence: Fence(0), attempt: 1, rerun: Rerun::Unknown, commitment: None }
    }

    #[cfg(any(feature = "sled", feature = "laboratory"))]
    pub(super) fn commitment(&self) -> Option<&Arc<Commitment>> {
        self.commitment.as_ref()
    }

    /// Whether the run is not being settled yet.
    #[cfg(feature = "server")]
    pub(crate) fn is_open(&self) -> bool {
        self.commitment.as_ref().is_none_or(|commitment| commitment.is_open())
    }

    /// Which operation.
    #[must_use]
    pub fn id(&self) -> RecordId {
        self.id
    }

    /// The run's fence: hand it to what the operation changes, so that a later run's change is not undone by this one.
    /// `Fence(0)`, older than any other, for a run that `fail_open` lets go ahead without a store.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.fence
    }

    /// The number of this attempt, from 1, as far as earlier ones left a trace.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Whether the operation may have run before.
    #[must_use]
    pub fn rerun(&self) -> Rerun {
        self.rerun
    }

    /// An idempotency key for a downstream call: 32 hex digits, the same in every attempt, another for every `step`.
    #[must_use]
    pub fn derived_key(&self, step: &str) -> String {
        self.id.derived_key(step)
    }
}
