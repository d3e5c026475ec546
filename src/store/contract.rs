//! What a store promises, and what it tells beside records: how it is, and which operations are interrupted.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;

use super::StoreError;
use crate::clock::Timestamp;
use crate::key::RecordId;
use crate::record::{Applied, Fence, Record, State, Transition};
use crate::slots::Slots;

/// Only the stores of this crate implement [`Records`], until the shared stores have passed the same contract.
pub trait Sealed {}

/// A place where records are kept: [`SledStore`](crate::SledStore), [`MemoryStore`](crate::MemoryStore), or one chosen at
/// run time, [`AnyStore`](crate::AnyStore). Sealed for now.
///
/// A handle to an *opened* store: clones share everything. It knows the runs of this process, so that two layers over
/// one store know each other's.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a store",
    note = "the stores are `SledStore`, `MemoryStore`, and `AnyStore` for one that is chosen at run time"
)]
pub trait Store: Records {
    /// How the store is.
    fn health(&self) -> Health;

    /// Finishes what was asked for and closes the store, for all its handles. Does nothing where there is nothing to close.
    ///
    /// # Errors
    /// As [`SledStore::close`](crate::SledStore::close).
    ///
    /// # Cancel safety
    /// If dropped, the store may be closed or on its way to it; call it again.
    fn close(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// What the engine does with the records of a store, under the slots of this process.
///
/// # Contract
/// 1. A transition is one atomic step on one record, which one function of [`internals`](crate::internals), `next`, decides.
/// 2. `Ok` is said only after what it says would survive what the store survives. That a transition was refused is an
///    ordinary answer; `Err` is a fault.
/// 3. [`StoreError::Unavailable`], [`Full`](StoreError::Full), [`Overloaded`](StoreError::Overloaded) and
///    [`Corrupt`](StoreError::Corrupt) mean that nothing was done, nor will be. [`Uncertain`](StoreError::Uncertain)
///    means that it may have been, and that this process will not learn it: the store was poisoned or closed meanwhile.
///    Where a network may lose the answer, the store itself sends again until it knows.
/// 4. Limits refuse claims, never what ends a run. So does a store that is behind, and one that comes to a claim after
///    its `patience`.
/// 5. A fence never repeats and never shrinks, whatever was released, swept or expired, across restarts too.
/// 6. A record past its expiry is absent, swept or not.
/// 7. A run of a process that is gone, as far as the store knows, is presented as interrupted; to its own process it
///    never is. Of one that another living process has, the record's [`owner`](Record::owner) says so.
///
/// # Cancellation
/// A transition takes effect when `apply` is *called*. The future is only the way to the answer: dropping it, polled or
/// not, undoes nothing. (A run that is dropped says so on its way out, where nothing can be awaited.)
///
/// # Clocks
/// The store tells the time. No caller's time goes in; durations do.
pub trait Records: Sealed + Debug + Send + Sync + 'static {
    /// The slots of this process.
    fn slots(&self) -> &Arc<Slots>;

    /// Whether this process alone has the records. Then its slots exclude all others, and one may stand for a claim
    /// that [may be repeated](crate::internals::Claim::may_repeat).
    fn is_exclusive(&self) -> bool;

    /// The record of `id`. It may show what is not yet durable, so only who looks at the slot, loads, and finds the
    /// slot free again afterwards may answer from it.
    fn load(&self, id: RecordId) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send;

    /// Takes a step on the record of `id`, or refuses it. Applications settle operations with the layer's `resolve`, or
    /// `Once`'s, which hold the slot meanwhile.
    fn apply(&self, id: RecordId, transition: Transition) -> impl Future<Output = Result<Applied, StoreError>> + Send;

    /// A page of the interrupted operations, the oldest first.
    fn interrupted(&self, page: Page) -> impl Future<Output = Result<Vec<InterruptedRun>, StoreError>> + Send;

    /// Deletes at most `limit` records past their expiry and says how many. Stores sweep by themselves; nobody has
    /// to call this.
    fn sweep(&self, limit: usize) -> impl Future<Output = Result<usize, StoreError>> + Send;

    /// The ids of records that other processes have changed, as far as the store hears of them: some may be missing. It
    /// never ends. A store that this process has alone says nothing.
    fn changed(&self) -> BoxStream<'static, RecordId>;
}

/// Which interrupted operations are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Those after this one, the last of the page before; `None`: from the oldest on.
    pub after: Option<(Timestamp, RecordId)>,
    /// At most so many.
    pub limit: usize,
    /// Those whose clients were answered so; `None`: all.
    pub status: Option<u16>,
}

impl Page {
    /// The oldest ones, at most `limit`.
    #[must_use]
    pub fn first(limit: usize) -> Self {
        Self { after: None, limit, status: None }
    }

    /// Those after `last`, at most `limit`.
    #[must_use]
    pub fn after(last: &InterruptedRun, limit: usize) -> Self {
        Self { after: Some((last.since, last.id)), ..Self::first(limit) }
    }

    /// Whether an operation belongs to it, or to one after it.
    pub(crate) fn includes(&self, record: &InterruptedRun) -> bool {
        self.after.is_none_or(|after| after < (record.since, record.id))
            && (self.status.is_none() || self.status == record.status)
    }
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
    /// A write, sync or read failed, or a write never returned: what is on disk is unknown. It refuses everything but
    /// what memory can answer, until the process is started again.
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
pub struct InterruptedRun {
    /// Which operation.
    pub id: RecordId,
    /// Its fence, to settle it by. A reconciler is given one that was taken for its question, newer than that of the run:
    /// hand it to what the answer changes, if it changes anything, so that a run that was only thought dead changes
    /// nothing more.
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
    /// was interrupted without an answer.
    pub status: Option<u16>,
}

impl InterruptedRun {
    /// The key that the run was given for `step`: what it called in turn knows the operation by it.
    #[must_use]
    pub fn derived_key(&self, step: &str) -> String {
        self.id.derived_key(step)
    }

    /// What `record` says, if it is of an interrupted operation.
    pub(crate) fn of<O>(id: RecordId, record: &Record<O>) -> Option<Self> {
        let (State::Interrupted { status, .. }, Some(expires)) = (&record.state, record.expires) else { return None };
        let Record { fence, attempt, began, since, .. } = *record;
        Some(Self { id, fence, attempt, began, since, expires, status: *status })
    }
}
