//! The context of a run.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::commitment::Commitment;
use crate::fingerprint::OperationDigest;
use crate::key::RecordId;
use crate::record::{Fence, Hold, Operation};

/// The answer to the question whether the operation may have run before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rerun {
    /// There is no trace of an earlier run, and the policy is not `Rerun`, under which there may be none. Two earlier
    /// runs leave no trace: one that an operator said to forget, and one that was interrupted longer than
    /// `interrupted_retention` ago.
    No,
    /// It ran before and was interrupted, so it may have taken effect.
    Yes,
    /// It is not known: under `Rerun`, a run whose outcome is unknown leaves no trace, for example because its handler
    /// panicked, or because its process died over an embedded store. Nor is it known of a run that `fail_open` lets go
    /// ahead without a store.
    Maybe,
}

/// The context of a run: its fence, its attempt, and keys for its downstream calls.
#[derive(Debug, Clone)]
pub struct RunContext {
    id: RecordId,
    /// The operation that the record names, if there is a record; otherwise the one that the request names.
    operation: OperationDigest,
    /// The fence of the claim, for systems downstream; `Fence(0)` without a store.
    fence: Fence,
    attempt: u32,
    rerun: Rerun,
    /// Decides whether the run can commit a transaction, and knows when it is over.
    protection: ProtectedBy,
}

#[derive(Debug, Clone)]
enum ProtectedBy {
    /// The run is protected by the store.
    Store(Arc<Commitment>),
    /// The run is not protected. It is over once its [`Unprotected`] is dropped.
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "only a layer asks"))]
    None(Weak<Unprotected>),
}

/// A run without protection, for as long as it goes on.
#[derive(Debug)]
pub(super) struct Unprotected;

impl RunContext {
    pub(super) fn new(rerun: Rerun, commitment: Arc<Commitment>) -> Self {
        let (Hold { fence, attempt }, Operation { id, fingerprint, .. }) = (commitment.hold, &commitment.operation);
        let (id, operation) = (*id, fingerprint.operation);
        Self { id, operation, fence, attempt, rerun, protection: ProtectedBy::Store(commitment) }
    }

    /// Creates the context of a run that no store protects, and a guard that is kept until it is over.
    pub(super) fn fail_open(operation: &Operation) -> (Self, Arc<Unprotected>) {
        let (id, operation) = (operation.id, operation.fingerprint.operation);
        let run = Arc::new(Unprotected);
        let protection = ProtectedBy::None(Arc::downgrade(&run));
        (Self { id, operation, fence: Fence(0), attempt: 1, rerun: Rerun::Maybe, protection }, run)
    }

    /// Returns the state of the run's transaction; `None` for a run without a store, which cannot commit.
    #[doc(hidden)]
    #[must_use]
    pub fn commitment(&self) -> Option<&Arc<Commitment>> {
        match &self.protection {
            ProtectedBy::Store(commitment) => Some(commitment),
            ProtectedBy::None(_) => None,
        }
    }

    /// Returns whether the run is over, or being settled.
    #[cfg(feature = "server")]
    pub(crate) fn is_over(&self) -> bool {
        match &self.protection {
            ProtectedBy::Store(commitment) => commitment.is_over(),
            ProtectedBy::None(run) => run.strong_count() == 0,
        }
    }

    /// Returns for how long this process certainly holds its lease: no other takes the operation over before that.
    /// `None` for a store that this process has alone.
    ///
    /// A store that several processes share renews the lease of each every third of its length. If that fails for so
    /// long that the lease is nearly over, a run is dropped under `Rerun` or with a reconciler, because another process
    /// may take it over; under `Refuse` it goes on. A handler can check this before an effect that it can't undo. A
    /// paused process does not notice that its lease has ended: pass the [`fence`](Self::fence) to each system that the
    /// operation changes.
    #[must_use]
    pub fn lease_left(&self) -> Option<Duration> {
        let commitment = self.commitment()?;
        commitment.session.map(|session| commitment.slots.lease.left(session))
    }

    /// Returns the digest of scope and key, as operators see it.
    #[must_use]
    pub fn record_id(&self) -> RecordId {
        self.id
    }

    /// Returns the run's fence. Pass it to each system that the operation changes, so that this run cannot undo a later
    /// run's change. It is `Fence(0)`, older than any other, for a run that `fail_open` lets go ahead without a store.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.fence
    }

    /// Returns the number of this attempt, counted from 1, as far as earlier ones left a trace.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns whether the operation may have run before.
    #[must_use]
    pub fn rerun(&self) -> Rerun {
        self.rerun
    }

    /// Returns an idempotency key for a downstream call: 32 hex digits, the same in every attempt of the operation, and
    /// another one for every `step`, for another operation, and under another record id.
    ///
    /// The fingerprint without the credentials identifies the operation; over HTTP, it is method, path, query and body,
    /// without the host, the headers and the layer's options. So an attempt that finds no record of an earlier one
    /// derives the same key all the same. So does a request that is sent with the same key after the retention is over,
    /// if it is the same operation.
    #[must_use]
    pub fn derived_key(&self, step: &str) -> String {
        self.operation.derived_key(&self.id, step)
    }
}
