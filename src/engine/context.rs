//! What a run knows of itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::commitment::Commitment;
use crate::key::RecordId;
use crate::record::{Fence, Hold};

/// Whether the operation may have run before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rerun {
    /// There is no trace of an earlier run, and the claims of this policy leave one. What leaves none: a run that an
    /// operator said to forget, and one that was interrupted longer than `interrupted_retention` ago.
    No,
    /// It did, and was interrupted: it may have taken effect.
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
    protection: Protection,
}

#[derive(Debug, Clone)]
enum Protection {
    /// The store's.
    Store(Arc<Commitment>),
    /// None; and whether the run is over.
    None(Arc<AtomicBool>),
}

/// Says of a run that no store protects, when it is dropped, that it is over.
#[derive(Debug)]
pub(super) struct Over(Arc<AtomicBool>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl RunContext {
    pub(super) fn new(rerun: Rerun, commitment: Arc<Commitment>) -> Self {
        let Hold { id, fence, attempt } = commitment.hold;
        Self { id, fence, attempt, rerun, protection: Protection::Store(commitment) }
    }

    /// Of a run that no store protects, and what is kept until it is over.
    pub(super) fn unprotected(id: RecordId) -> (Self, Over) {
        let over = Arc::default();
        let protection = Protection::None(Arc::clone(&over));
        (Self { id, fence: Fence(0), attempt: 1, rerun: Rerun::Unknown, protection }, Over(over))
    }

    #[cfg(any(feature = "sled", idempotency_laboratory))]
    pub(super) fn commitment(&self) -> Option<&Arc<Commitment>> {
        match &self.protection {
            Protection::Store(commitment) => Some(commitment),
            Protection::None(_) => None,
        }
    }

    /// Whether the run is over, or being settled.
    #[cfg(feature = "server")]
    pub(crate) fn is_over(&self) -> bool {
        match &self.protection {
            Protection::Store(commitment) => commitment.is_over(),
            Protection::None(over) => over.load(Ordering::SeqCst),
        }
    }

    /// The digest of scope and key, as operators see it.
    #[must_use]
    pub fn record_id(&self) -> RecordId {
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
