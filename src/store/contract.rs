//! The promises of a store, and its reports other than records: its health, and the interrupted operations.

use std::fmt::Debug;
use std::future::{Future, pending, ready};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, try_join_all};

use super::StoreError;
use super::listed::ListedRecord;
use super::page::{Cursor, List, Page};
use crate::clock::Timestamp;
use crate::fingerprint::OperationDigest;
use crate::key::RecordId;
use crate::observer::{AlreadyObserved, Observer};
use crate::record::{Cause, ClaimPolicy, Fence, Origin, Record, State, Stepped, Transition};
use crate::slots::Slots;

/// Restricts [`Records`] to the stores of this repository, and `Completable` to its contexts. Put your own database
/// behind `Backend` of the crate `tower-idempotency-shared`.
pub trait Sealed {}

/// A place where records are kept: one of the [stores](mod@crate::store), or [`AnyStore`](crate::AnyStore), which is
/// chosen at run time. The trait is sealed.
///
/// A value is a handle to an *opened* store, and clones share everything. The store has the runs of this process, so
/// that two layers over one store share them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a store",
    note = "the stores are `SledStore`, `FjallStore`, `MemoryStore`, `PostgresStore`, `SharedStore` over a backend of your own, and `AnyStore` \
            for one that is chosen at run time"
)]
pub trait Store: Records {
    /// Returns the name of the kind of store, for logs: `memory`, `sled`, `fjall`, or that of a shared store's backend.
    fn name(&self) -> &'static str;

    /// Returns the health of the store. It reads memory alone, so it returns at once even if the disk or the database
    /// hangs.
    fn health(&self) -> Health;

    /// Returns numbers of the store as they are now. It reads memory alone, so it returns at once even if the disk or
    /// the database hangs.
    fn gauges(&self) -> Gauges;

    /// Sets the observer of what happens over this store in this process, for all its handles, layers and consumers.
    /// It learns of what happens from then on, so set it before the layer serves.
    ///
    /// # Errors
    /// [`AlreadyObserved`], if there is one. Then nothing changes.
    fn observe(&self, observer: impl Observer) -> Result<(), AlreadyObserved>
    where
        Self: Sized,
    {
        self.slots().telemetry.observe(Box::new(observer))
    }

    /// Finishes the work that was sent and closes the store, for all its handles. Does nothing for a store that needs
    /// no closing.
    ///
    /// # Errors
    /// As [`SledStore::close`](crate::SledStore::close).
    ///
    /// # Cancel safety
    /// If the future is dropped, the store may be closed or still closing; call it again.
    fn close(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// The functions with which the engine uses the records of a store, under the slots of this process.
///
/// # Contract
/// 1. A transition is one atomic step on one record. The function `next` of [`internals`](crate::internals) decides it.
/// 2. The store returns `Ok` only when the result would survive everything that the store survives. A refused
///    transition is an ordinary answer; `Err` is a fault.
/// 3. [`StoreError::Unavailable`], [`Full`](StoreError::Full), [`Overloaded`](StoreError::Overloaded) and
///    [`Corrupt`](StoreError::Corrupt) mean that nothing was done, and nothing will be done later.
///    [`Uncertain`](StoreError::Uncertain) means that the transition may have been done, and that this process will not
///    learn it, because the store was poisoned or closed meanwhile. A store whose network may lose an answer sends its
///    write again until it gets an answer. What certainly was not done, the engine passes again.
/// 4. Limits refuse claims, never a transition that ends a run. The same is true of a store that is behind, and of one
///    that comes to a claim after the claim's `timeout`.
/// 5. A fence never repeats and never shrinks, across restarts too, whether records were released, swept or expired.
/// 6. A record past its expiry counts as absent, whether it was swept or not.
/// 7. A run whose process is gone, as far as the store can see, is presented as interrupted; a process's own run never
///    is. If another living process has the run, the record's [`owner`](Record::owner) says so.
///
/// # Cancellation
/// A transition takes effect once `apply` was *called*: by the time that its future is ready, and also if the future is
/// dropped, polled or not, which undoes nothing that ends a run or settles an operation. A shared store may go on only
/// while the future is polled, or once it was dropped: so no caller keeps one without polling it. (A run that is
/// dropped reports that from its destructor, where nothing can be awaited.) A claim or a question whose caller has gone
/// may be given back: a shared store does that as soon as it is granted.
///
/// # Clocks
/// The store has its own clocks. Callers pass durations, and never a point in time.
pub trait Records: Sealed + Debug + Send + Sync + 'static {
    /// Returns the slots of this process: at most one for each record id, whose holder alone writes the record.
    fn slots(&self) -> &Arc<Slots>;

    /// Returns whether this process alone has the records. If so, its slots exclude all others, and a slot may take the
    /// place of a claim that [may be repeated](crate::internals::Claim::may_repeat).
    fn is_exclusive(&self) -> bool;

    /// Returns the record of `id` if this process has it in memory: it is completed, and durable. An exclusive
    /// store returns `None`, as its [`load`](Self::load) asks no other process.
    fn recall(&self, _id: RecordId) -> Option<Record> {
        None
    }

    /// Returns the record of `id`. It may show what is not durable yet. So a caller may answer from it only if it
    /// looked at the slot, loaded the record, and found the slot still free afterwards.
    fn load(&self, id: RecordId) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send;

    /// Applies a transition to the record of `id`, or refuses it. Operators settle operations through
    /// [`Operations`](crate::operations::Operations), which holds the slot meanwhile.
    fn apply(&self, id: RecordId, transition: Transition) -> impl Future<Output = Result<Stepped, StoreError>> + Send;

    /// Returns at most `limit` (at least 1) records of `list`, from `after` on, which is the `next` of the page before:
    /// a place in a list of the same order. Of [`List::All`] it looks at `limit` records, of which some may be past
    /// their expiry.
    fn list(
        &self,
        list: List,
        after: Option<Cursor>,
        limit: usize,
    ) -> impl Future<Output = Result<Page, StoreError>> + Send;

    /// Returns the present time of the clock by which the store judges records.
    fn now(&self) -> Timestamp;

    /// Returns what the store has of `id` now, for operators: a shared store asks its database, whatever this process
    /// remembers.
    fn inspect(&self, id: RecordId) -> impl Future<Output = Result<Option<ListedRecord>, StoreError>> + Send {
        async move { ListedRecord::of_load(id, self.load(id).await) }
    }

    /// Returns the disputed outcome of the run of `id` with this fence, if it has one.
    fn disputed_outcome(
        &self,
        _id: RecordId,
        _fence: Fence,
    ) -> impl Future<Output = Result<Option<Bytes>, StoreError>> + Send {
        ready(Ok(None))
    }

    /// Deletes at most `limit` records that are past their expiry, and returns how many. Stores sweep by themselves; no
    /// caller has to call this.
    fn sweep(&self, limit: usize) -> impl Future<Output = Result<usize, StoreError>> + Send;

    /// Writes records of another store as they are, each by [`Transition::Adopt`]: its fence, its times and all that it
    /// says. For a tool that moves records while no server runs. Ids do not repeat. The answers are in the order of the
    /// records. The fences that an embedded store gives have to be above those of the records: see its `fences_above`.
    ///
    /// # Errors
    /// As [`apply`](Self::apply); some of the records may be written then. No limit refuses one but the free space of
    /// the disk. A database may have no way to write such a row.
    fn adopt(&self, records: Vec<(RecordId, Record)>) -> impl Future<Output = Result<Vec<Stepped>, StoreError>> + Send {
        try_join_all(records.into_iter().map(|(id, record)| self.apply(id, Transition::Adopt(Box::new(record)))))
    }

    /// Returns a future that is ready when another process has changed the record of `id` since this call, as far as
    /// the store hears of it: it may miss a change. An exclusive store's future is never ready.
    fn changed(&self, _id: RecordId) -> BoxFuture<'static, ()> {
        pending().boxed()
    }
}

/// The health of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Health {
    /// The store works.
    Good,
    /// The store works, but a write has been under way for this long.
    Slow {
        /// The time that the write has taken so far.
        since: Duration,
    },
    /// The store works, and a limit is reached: new keys are refused until records expire or the limit is raised.
    Full {
        /// The limit, such as `max_records`.
        limit: &'static str,
    },
    /// The database can't be reached, or refuses. New keys are refused until it answers again.
    Away {
        /// The time so far.
        since: Duration,
        /// The last error.
        reason: String,
    },
    /// A write, sync or read failed, or a write never returned, so the content of the disk is unknown. The store
    /// refuses everything that memory cannot answer, until the process is started again.
    Poisoned {
        /// The failure.
        reason: String,
    },
    /// The store was closed.
    Closed,
}

/// Returns the stores, each once: clones share everything.
pub(crate) fn distinct<St: Store>(stores: impl IntoIterator<Item = St>) -> Vec<St> {
    let mut distinct: Vec<St> = Vec::new();
    for store in stores {
        if !distinct.iter().any(|other| Arc::ptr_eq(other.slots(), store.slots())) {
            distinct.push(store);
        }
    }
    distinct
}

/// Numbers of a store as they are now. `None`: the store has no such number, or does not know it yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Gauges {
    /// The records, expired ones included that were not deleted yet. A PostgreSQL store has an estimate, which is up to
    /// 30 seconds old.
    pub records: Option<u64>,
    /// The bytes of the recorded outcomes; of a memory store, of all that a record takes; of a PostgreSQL store, an
    /// estimate of what the table takes on disk.
    pub bytes: Option<u64>,
    /// The bytes of the disk that are free for users, those of `min_free_space` included.
    pub free_bytes: Option<u64>,
    /// Writes that wait.
    pub queue: Option<u64>,
    /// The writes of the last batch.
    pub batch: Option<u64>,
    /// The time that the last sync of the disk took.
    pub sync: Option<Duration>,
    /// The bytes that the store has written since it was opened: new entries, in each file that they are written to.
    /// fjall counts these.
    pub written: Option<u64>,
    /// The bytes that it has written anew since it was opened, to merge its tables. fjall counts these.
    pub merged: Option<u64>,
    /// By how much the oldest record that is not deleted yet has outlived its expiry.
    pub sweep_lag: Option<Duration>,
    /// The time that is left of this process's lease over a shared store.
    pub lease: Option<Duration>,
    /// The connections to the database that calls use now.
    pub connections: Option<u64>,
}

/// An operation of which it is unknown whether it took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InterruptedRun {
    /// The id of the operation.
    pub id: RecordId,
    /// The fence of the record, which is needed to settle it. A reconciler gets a fence that was taken for its question
    /// and is newer than the run's. If the reconciler changes anything, pass it on, so that a run that was only thought
    /// dead changes nothing more.
    pub fence: Fence,
    /// The number of the interrupted attempt, counted from 1.
    pub attempt: u32,
    /// The time at which the first attempt of the operation began, by the earliest of the store's clocks. It may be
    /// later than effects of that attempt, if it ran without a claim (`fail_open`) or its claim was lost: see
    /// [`derived_key`].
    ///
    /// [`derived_key`]: Self::derived_key
    pub began: Timestamp,
    /// The time at which it was first seen to be interrupted. Over a shared store, if its process died: when the run
    /// was claimed.
    pub since: Timestamp,
    /// The time at which the record expires.
    pub expires: Timestamp,
    /// The policy under which the run was claimed. Only after [`ClaimPolicy::Rerun`] does a retry run again by itself.
    pub policy: ClaimPolicy,
    /// The reason why it is unknown whether it took effect, with the HTTP status that the client got if the handler's
    /// answer says so.
    pub cause: Cause,
    /// The origin of the operation: see `label`.
    pub(crate) origin: Origin,
    /// The part of the fingerprint from which `derived_key` makes keys; `None` if the record is damaged.
    pub(crate) operation: Option<OperationDigest>,
}

impl InterruptedRun {
    /// Returns the application's name for the operation, which the `label` option of the layer or of
    /// [`Once`](crate::Once) gave it; `None` if it gave none, or if the record is damaged.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.origin.label()
    }

    /// Returns the [digest of the scope](crate::Scope::digest) that the operation's key belongs to; `None` if it
    /// belongs to none, or if the record is damaged.
    #[must_use]
    pub fn scope(&self) -> Option<[u8; 32]> {
        self.origin.0.as_ref()?.scope
    }

    /// Returns the trace id of the request that ran first, as its `traceparent` header gave it (W3C Trace Context,
    /// section 3.2); `None` if it had no such header, or if the record is damaged.
    #[must_use]
    pub fn trace_id(&self) -> Option<[u8; 16]> {
        self.origin.0.as_ref()?.trace
    }

    /// Returns the key that the run got for `step`. Services that the run called know the operation by it. `None` if
    /// the record is damaged, so that the key is not known; a reconciler is not asked about such a record.
    ///
    /// Compare what is found under the key with what the operation was to do before you rely on it: what was charged,
    /// and that it happened after [`began`](Self::began), give or take the difference between the clocks.
    #[must_use]
    pub fn derived_key(&self, step: &str) -> Option<String> {
        self.operation.map(|operation| operation.derived_key(&self.id, step))
    }

    /// Returns what `record` says, if its operation is interrupted.
    #[doc(hidden)]
    pub fn of<O>(id: RecordId, record: &Record<O>) -> Option<Self> {
        let (&State::Interrupted { policy, cause, .. }, Some(expires)) = (&record.state, record.expires) else {
            return None;
        };
        let Record { fence, attempt, began, since, fingerprint, ref origin, .. } = *record;
        let (origin, operation) = (origin.clone(), fingerprint.readable_operation());
        Some(Self { id, fence, attempt, began, since, expires, policy, cause, origin, operation })
    }
}
