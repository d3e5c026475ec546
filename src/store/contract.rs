//! What a store promises.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::StoreError;
use crate::clock::Timestamp;
use crate::key::RecordId;
use crate::record::{Claim, Claimed, Completion, Fence, Hold, Record, Resolution, Settled};
use crate::slots::Slots;

/// Only the stores of this crate implement [`Store`], until the shared stores have passed the same contract.
pub trait Sealed {}

/// A place where records are kept. Sealed for now.
///
/// A handle to an *opened* store: clones share everything. It owns the slots of this process, so that two layers over
/// one store know each other's runs.
///
/// # Contract
/// 1. Every verb is one atomic step on one record, and takes the arrow that `record.rs` describes, or none.
/// 2. `Ok` is said only after what it says would survive what the store survives. Ordinary answers (held, superseded)
///    are `Ok`; `Err` is a fault.
/// 3. [`StoreError::Unavailable`], [`Full`](StoreError::Full), [`Overloaded`](StoreError::Overloaded) and
///    [`Corrupt`](StoreError::Corrupt) mean that nothing was done; [`Uncertain`](StoreError::Uncertain) that it may have been. A verb that is sent again answers as it
///    would have the first time, where it does not say otherwise.
/// 4. Limits refuse claims, never what ends a run. So does a store that is behind, and one that comes to a claim after its
///    `patience`.
/// 5. A fence never repeats and never shrinks, whatever was released, swept or expired, across restarts too.
/// 6. A record past its expiry is absent, swept or not.
/// 7. A `Running` record of a process that is gone is presented as `Interrupted`.
///
/// # Cancellation
/// A verb takes effect when it is *called*. The future is only the way to the answer: dropping it, polled or not,
/// undoes nothing. (A run that is dropped says so on its way out, where nothing can be awaited.)
///
/// # Clocks
/// The store tells the time. No caller's time goes in; durations do.
pub trait Store: Sealed + Debug + Send + Sync + 'static {
    /// The slots of this process.
    fn slots(&self) -> &Arc<Slots>;

    /// The record of `id`. It may show what is not yet durable, so only who looks at the slot, loads, and finds the
    /// slot free again afterwards may answer from it.
    fn load(&self, id: RecordId) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send;

    /// Claims an operation that has no record; answers the record where there is one.
    fn claim(&self, claim: Claim) -> impl Future<Output = Result<Claimed, StoreError>> + Send;

    /// Claims an operation that was interrupted under `interrupted`; `None` where it no longer is.
    fn reclaim(
        &self,
        claim: Claim,
        interrupted: Fence,
    ) -> impl Future<Output = Result<Option<Hold>, StoreError>> + Send;

    /// Takes a new fence for an operation that was interrupted under `interrupted`, which it stays, before somebody is asked
    /// about it; `None` where it no longer is. Sent again, it answers `None`: nothing was lost.
    fn inquire(
        &self,
        id: RecordId,
        interrupted: Fence,
    ) -> impl Future<Output = Result<Option<Fence>, StoreError>> + Send;

    /// Records how a run ended.
    fn complete(&self, completion: Completion) -> impl Future<Output = Result<Settled, StoreError>> + Send;

    /// Forgets a run that had no effect.
    fn release(&self, id: RecordId, fence: Fence) -> impl Future<Output = Result<Settled, StoreError>> + Send;

    /// Says of a run that nobody knows how it ended. `status` is what its client was answered, where the answer said so.
    fn interrupt(
        &self,
        id: RecordId,
        fence: Fence,
        status: Option<u16>,
    ) -> impl Future<Output = Result<Settled, StoreError>> + Send;

    /// Settles an operation that was interrupted under `fence`, under a new fence. Applications call the layer's `resolve`, or `Once`'s, which hold the slot
    /// meanwhile. Sent again, it answers `Superseded`: the record shows what the first one did.
    fn resolve(
        &self,
        id: RecordId,
        fence: Fence,
        resolution: Resolution,
    ) -> impl Future<Output = Result<Settled, StoreError>> + Send;

    /// The interrupted operations, the oldest first, at most `limit`; with a `status` those whose clients were answered so.
    fn interrupted(
        &self,
        limit: usize,
        status: Option<u16>,
    ) -> impl Future<Output = Result<Vec<InterruptedRecord>, StoreError>> + Send;

    /// Deletes at most `limit` records past their expiry and says how many. Stores sweep by themselves; nobody has
    /// to call this.
    fn sweep(&self, limit: usize) -> impl Future<Output = Result<usize, StoreError>> + Send;

    /// How the store is.
    fn health(&self) -> Health;
}

/// How a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Health {
    /// It works.
    Good,
    /// It works, but a write has been under way for this long.
    Slow {
        /// How long so far.
        since: Duration,
    },
    /// A write, sync or read failed, or a write never returned: what is on disk is unknown. It refuses everything but what memory can answer, until
    /// the process is started again.
    Poisoned {
        /// What failed.
        reason: String,
    },
    /// It was closed.
    Closed,
}

/// An operation of which nobody knows whether it took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct InterruptedRecord {
    /// Which operation.
    pub id: RecordId,
    /// Its fence, to settle it by.
    pub fence: Fence,
    /// The number of the interrupted attempt, from 1.
    pub attempt: u32,
    /// When the operation began: its first attempt.
    pub began: Timestamp,
    /// When it was first seen to be interrupted.
    pub since: Timestamp,
    /// When the record is forgotten.
    pub expires: Timestamp,
    /// The HTTP status that its client was answered, where the handler's answer was that nobody knows; `None` where it
    /// was cut short without an answer.
    pub status: Option<u16>,
}

impl InterruptedRecord {
    /// Whether its client was answered with `status`, where one is asked for.
    pub(crate) fn was_answered(&self, status: Option<u16>) -> bool {
        status.is_none() || self.status == status
    }

    /// What `record` says, if it is of an interrupted operation.
    pub(crate) fn of<O>(id: RecordId, record: &Record<O>) -> Option<Self> {
        let crate::record::State::Interrupted { since, expires, status } = record.state else { return None };
        let Record { fence, attempt, began, .. } = *record;
        Some(Self { id, fence, attempt, began, since, expires, status })
    }
}
