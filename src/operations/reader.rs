//! The interface's handle [`Operations`]: how it is made over a store, and the methods that read: lists, one operation,
//! its outcome. `operator.rs` has those that change.

use std::sync::Arc;
use std::time::Duration;

use super::answer::{Answer, Form};
use super::encoding::Encoding;
use super::filter::Filter;
use super::record::{OperationRecord, StateKind};
use crate::clock::Timestamp;
use crate::engine::{Engine, Policy, Stats};
use crate::key::{Key, RecordId, Scope};
use crate::record::{Fence, Record, State};
use crate::slots::Mismatched;
use crate::store::page::{Cursor, List, Page};
use crate::store::{Store, StoreError};

/// The most operations of one page.
const MAX_PAGE: usize = 1_000;
/// The most records that one call looks at, and the number that it reads at a time.
const MAX_LOOKED_AT: usize = 10_000;
/// The same of interrupted operations, each of which a store on disk reads where it lies.
const MAX_INTERRUPTED: usize = 5_000;
const MAX_AT_ONCE: usize = 500;

/// Lists, finds and inspects the operations of a store. [`by`](Self::by) returns the interface that changes them.
///
/// This is a handle, and its clones share everything. `layer.operations()` and `once.operations()` return one;
/// [`over`](Self::over) is for tools that have a store alone.
#[derive(Debug)]
pub struct Operations<St> {
    pub(super) engine: Arc<Engine<St>>,
    pub(super) encoding: Encoding,
}

/// A page of operations.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listing {
    /// The operations.
    pub operations: Vec<OperationRecord>,
    /// The place at which the next page begins; `None` if there are no more operations.
    pub next: Option<Cursor>,
    /// The time by the store's clock at which the list was made. Ages are counted to it.
    pub now: Timestamp,
}

impl<St: Store> Operations<St> {
    /// Returns the interface to a store whose operations may be a layer's or a consumer's. It has no reconciler. It
    /// keeps operators' answers for `retention`, counted from the settlement: give that of the layer. **A retry that
    /// comes later runs again.** It records an answer in the form in which it is given, so give a layer's operation an
    /// [`Answer::Http`].
    #[must_use]
    pub fn over(store: St, retention: Duration) -> Self {
        Self::over_arc(Arc::new(store), retention)
    }

    // The rules of conformance keep the store, too.
    #[doc(hidden)]
    #[must_use]
    pub fn over_arc(store: Arc<St>, retention: Duration) -> Self {
        let policy = Policy { retention, ..Policy::default() };
        let engine = Engine { store, policy, wrap_run: None };
        Self { engine: Arc::new(engine), encoding: Encoding::any() }
    }

    /// Returns the store.
    #[must_use]
    pub fn store(&self) -> &St {
        &self.engine.store
    }

    /// Returns what this process has counted over this store.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.engine.store.slots().stats()
    }

    /// Returns which requests this process has refused because they used the key of this operation for another request.
    /// It remembers the last 256 operations.
    #[must_use]
    pub fn mismatched(&self, id: RecordId) -> Option<Mismatched> {
        self.engine.store.slots().mismatches.of(id)
    }

    /// Returns the form in which outcomes are recorded.
    #[must_use]
    pub fn form(&self) -> Form {
        self.encoding.form()
    }

    /// Returns whether there is a reconciler to ask.
    #[must_use]
    pub fn can_reconcile(&self) -> bool {
        self.engine.policy.reconciler.is_some()
    }

    /// Returns a page of the operations that `filter` selects, at most `limit` (1 to 1,000), from `after` on, which is
    /// the [`next`](Listing::next) of the page before. With a place in a list of another order, such as that of another
    /// filter, the list begins anew.
    ///
    /// Interrupted operations are found by an index, at most 5,000 in one call, and those that are running in memory,
    /// or by an index of the database. For every other filter the store's records are read, at most 10,000. So a page
    /// may have fewer operations than `limit`, or none, while [`next`](Listing::next) says that there are more. Over an
    /// embedded store, a run that was claimed under [`OnInterrupted::Rerun`](crate::OnInterrupted::Rerun) leaves no
    /// claim and is in no list; [`Stats::live`] counts it.
    ///
    /// # Errors
    /// [`StoreError`] if the store is away, poisoned or closed.
    ///
    /// # Cancel safety
    /// This method only reads.
    pub async fn list(&self, filter: &Filter, after: Option<&Cursor>, limit: usize) -> Result<Listing, StoreError> {
        let limit = limit.clamp(1, MAX_PAGE);
        let list = match (filter.state, filter.cause) {
            // No other operation has a cause.
            (Some(StateKind::Interrupted), _) | (None, Some(_)) => List::Interrupted,
            (Some(StateKind::Running), _) => List::Running,
            _ => List::All,
        };
        let (mut after, mut operations, mut looked_at) = (after.copied(), Vec::new(), 0);
        let now = self.engine.store.now();
        let max_looked_at = if list == List::Interrupted { MAX_INTERRUPTED } else { MAX_LOOKED_AT };
        loop {
            let most = match list {
                // A store makes the whole list of these for each page.
                List::Running => usize::MAX,
                _ => MAX_AT_ONCE.min(max_looked_at - looked_at),
            };
            let Page { records, next } = self.engine.store.list(list, after, most).await?;
            for listed in records {
                let place = list.place(&listed);
                let operation = OperationRecord::of(listed, &self.encoding);
                if filter.selects(&operation, now) {
                    if operations.len() == limit {
                        return Ok(Listing { operations, next: after, now });
                    }
                    operations.push(operation);
                }
                after = Some(place);
            }
            (after, looked_at) = (next, most.saturating_add(looked_at));
            if next.is_none() || looked_at >= max_looked_at {
                return Ok(Listing { operations, next, now });
            }
        }
    }

    /// Returns the operation of a key: what a client can quote, and support staff know. `scope` is what the layer's
    /// option `scope` returns for the client, or `None` where it is not set.
    ///
    /// A key is a secret: it must not become a part of a URL, a command line or a log.
    ///
    /// # Errors
    /// As [`inspect`](Self::inspect).
    ///
    /// # Cancel safety
    /// This method only reads.
    pub async fn find(&self, scope: Option<&Scope>, key: &Key) -> Result<Option<OperationRecord>, StoreError> {
        self.inspect(RecordId::new(scope, key)).await
    }

    /// Returns what is known of an operation, or `None` if the store has no record of it. An operation may be under way
    /// all the same, if it was claimed under [`OnInterrupted::Rerun`](crate::OnInterrupted::Rerun) over an embedded
    /// store, or runs by `fail_open`: its run has no record yet.
    ///
    /// # Errors
    /// [`StoreError`] if the store is away, poisoned or closed. A damaged record is no error:
    /// [`OperationState::Damaged`](super::OperationState::Damaged).
    ///
    /// # Cancel safety
    /// This method only reads.
    pub async fn inspect(&self, id: RecordId) -> Result<Option<OperationRecord>, StoreError> {
        let listed = self.engine.store.inspect(id).await?;
        Ok(listed.map(|listed| OperationRecord::of(listed, &self.encoding)))
    }

    /// Returns the recorded outcome of an operation, with its body, or `None` if it has none. **A body may have
    /// personal data:** show it only on request.
    ///
    /// # Errors
    /// [`StoreError`] if the store is away, poisoned or closed, or the record is damaged.
    ///
    /// # Cancel safety
    /// This method only reads.
    pub async fn outcome(&self, id: RecordId) -> Result<Option<Answer>, StoreError> {
        // A copy of this process may be of a record that was forgotten.
        let Some(listed) = self.engine.store.inspect(id).await? else { return Ok(None) };
        match self.engine.store.load(id).await? {
            Some(Record { fence, state: State::Completed { outcome }, .. }) => {
                // It may be of an earlier run, which was forgotten or lost.
                if listed.record.is_ok_and(|record| record.fence != fence) {
                    return Err(StoreError::unavailable(
                        "this process still has the outcome of an earlier run in memory; ask another process, or idem",
                    ));
                }
                Ok(Some(self.encoding.answer(outcome)))
            }
            // There is no record, or it has no outcome.
            _ => Ok(None),
        }
    }

    /// Returns a page of the outcomes that came after their operation was taken over or settled, at most `limit` (1 to
    /// 1,000), from `after` on, in the order in which they came. Each may be a second effect. Only a shared store has
    /// such: over an embedded store, a run of an earlier process can't end any more. One call looks at most at 10,000
    /// rows, so a page may have fewer outcomes than `limit`, or none, while there are more. `after` is the
    /// [`next`](Listing::next) of a page of this list, and of no other.
    ///
    /// Each has the id of its operation, and is like a record of it that the run had written: the fence is that of the
    /// run, [`since`](OperationRecord::since) is when the outcome came, and [`began`](OperationRecord::began) is not
    /// known. What became of the operation is in its own record: see [`inspect`](Self::inspect).
    ///
    /// # Errors
    /// [`StoreError`] if the store is away or closed. A damaged outcome is no error:
    /// [`OperationState::Damaged`](super::OperationState::Damaged).
    ///
    /// # Cancel safety
    /// This method only reads.
    pub async fn disputed(&self, after: Option<&Cursor>, limit: usize) -> Result<Listing, StoreError> {
        let now = self.engine.store.now();
        let limit = limit.clamp(1, MAX_PAGE);
        let Page { records, next } = self.engine.store.list(List::Disputed, after.copied(), limit).await?;
        let operations = records.into_iter().map(|listed| OperationRecord::of(listed, &self.encoding)).collect();
        Ok(Listing { operations, next, now })
    }

    /// Returns the [disputed](Self::disputed) outcome of the run of `id` with this fence, with its body, or `None` if
    /// there is none. **A body may have personal data:** show it only on request.
    ///
    /// # Errors
    /// As [`outcome`](Self::outcome).
    ///
    /// # Cancel safety
    /// This method only reads.
    pub async fn disputed_outcome(&self, id: RecordId, fence: Fence) -> Result<Option<Answer>, StoreError> {
        let outcome = self.engine.store.disputed_outcome(id, fence).await?;
        Ok(outcome.map(|outcome| self.encoding.answer(outcome)))
    }
}

impl<St> Clone for Operations<St> {
    fn clone(&self) -> Self {
        Self { engine: Arc::clone(&self.engine), encoding: self.encoding.clone() }
    }
}
