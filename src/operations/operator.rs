//! Changes operations.

use std::sync::Arc;

use futures_util::StreamExt as _;

use super::answer::Answer;
use super::audit;
use super::cursor::Cursor;
use super::filter::Filter;
use super::operations::Operations;
use super::record::{OperationRecord, OperationState};
use crate::engine::{Reconciled, Resolved};
use crate::key::RecordId;
use crate::laboratory;
use crate::record::{Fence, Resolution};
use crate::store::{Store, StoreError};

/// The number of changes that are made at a time.
const AT_A_TIME: usize = 64;

/// Changes operations in the name of an actor: see [`Operations::by`].
#[derive(Debug)]
pub struct Operator<St> {
    pub(super) operations: Operations<St>,
    pub(super) actor: Arc<str>,
}

/// A change of one operation, as it was seen: it names the fence, so that nothing is changed that has changed since.
#[derive(Debug)]
#[non_exhaustive]
pub struct Change {
    /// The id of the operation.
    pub id: RecordId,
    /// The fence that the operation had when it was looked at.
    pub fence: Fence,
    /// What is to be done.
    pub action: Action,
}

impl Change {
    /// Returns the change of the operation with this id, if it still has this fence.
    #[must_use]
    pub fn new(id: RecordId, fence: Fence, action: Action) -> Self {
        Self { id, fence, action }
    }
}

/// What an operator does with an operation.
#[derive(Debug)]
#[non_exhaustive]
pub enum Action {
    /// Settles an interrupted operation that took place: retries get this answer, for as long as they would get any
    /// other.
    Answer(Answer),
    /// Settles an interrupted operation that did not take place, or may take place again: the key is free, and **the
    /// next retry runs**.
    Release,
    /// Deletes the record of a done operation before its retention is over. **The key is free: a retry that still comes
    /// is a second effect.** Another process that has the outcome in its cache goes on replaying it.
    Forget,
    /// Asks the reconciler about an interrupted operation now.
    Reconcile,
}

impl Action {
    /// Returns the action's name: `answer`, `release`, `forget` or `reconcile`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Answer(_) => "answer",
            Self::Release => "release",
            Self::Forget => "forget",
            Self::Reconcile => "reconcile",
        }
    }
}

/// The result of a change.
#[must_use = "`Stale` means that nothing was changed"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Applied {
    /// The operation is settled, or forgotten. Of [`Action::Reconcile`]: the application knew the outcome.
    Done,
    /// Nothing was changed: the operation is no longer in the state that the action is for under this fence, or a
    /// request for it is just being answered. Look at it again.
    Stale,
    /// Of [`Action::Reconcile`]: the application does not know. The operation is interrupted under a new fence.
    StillUnknown,
    /// Of [`Action::Reconcile`]: the application says that it may run again. It stays interrupted until a retry comes,
    /// which runs.
    RunsAgain,
}

impl Applied {
    /// Returns the result's name: `done`, `stale`, `still-unknown` or `runs-again`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Stale => "stale",
            Self::StillUnknown => "still-unknown",
            Self::RunsAgain => "runs-again",
        }
    }
}

impl From<Resolved> for Applied {
    fn from(resolved: Resolved) -> Self {
        match resolved {
            Resolved::Settled => Self::Done,
            Resolved::Stale => Self::Stale,
        }
    }
}

/// The reason why a change was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// There is no reconciler: set one with `reconcile_with`.
    #[error("there is no reconciler to ask; the layer's option `reconcile_with` sets one")]
    NoReconciler,
    /// The answer is bytes and the operations are a layer's, or the other way round.
    #[error(
        "the answer has another form than the recorded outcomes: a layer records HTTP answers, and a consumer bytes"
    )]
    WrongForm,
    /// The answer is longer than the layer's `max_response_body`.
    #[error("the answer is longer than `max_response_body`")]
    TooLong,
    /// The store failed. [`Uncertain`](StoreError::Uncertain): there is no answer after 5 seconds, and the change may
    /// still be made; look at the operation again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What became of the operations that were to be forgotten.
#[must_use = "there may be more to forget"]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Purged {
    /// Operations that are forgotten.
    pub forgotten: usize,
    /// Operations that were selected and are not forgotten, because they changed meanwhile or the store failed.
    pub left: usize,
    /// The place at which the next call goes on; `None` if all records were looked at.
    pub next: Option<Cursor>,
}

impl<St: Store> Operator<St> {
    /// Makes one change, and logs it.
    ///
    /// # Errors
    /// [`ChangeError`] says why nothing was changed, or that it is unknown.
    ///
    /// # Cancel safety
    /// If the future was polled and is dropped, the change is still made, and logged.
    pub async fn apply(&self, change: Change) -> Result<Applied, ChangeError> {
        let (operator, (reply, applied)) = (self.clone(), tokio::sync::oneshot::channel());
        laboratory::spawn(async move {
            let Change { id, fence, action } = change;
            let name = action.name();
            let result = operator.change(id, fence, action).await;
            audit::log(&operator.actor, name, id, fence, &result);
            // The caller may have gone away.
            let _ = reply.send(result);
        });
        let gone = || {
            StoreError::uncertain("the task of the change was dropped with its runtime; look at the operation again")
        };
        applied.await.unwrap_or_else(|_| Err(gone().into()))
    }

    /// Makes many changes, and returns the result of each, in their order.
    ///
    /// # Cancel safety
    /// If the future is dropped, changes that were begun are still made, and no others are begun.
    pub async fn apply_all(&self, changes: Vec<Change>) -> Vec<(RecordId, Result<Applied, ChangeError>)> {
        let one = |change: Change| async move { (change.id, self.apply(change).await) };
        // `buffered` returns the results in the order of the changes.
        futures_util::stream::iter(changes).map(one).buffered(AT_A_TIME).collect().await
    }

    /// Forgets done operations that `filter` selects, among at most `limit` records, from `after` on: see
    /// [`Action::Forget`]. Interrupted and running operations stay, whatever the filter says. It frees the space of
    /// records whose retention is longer than what is wanted now, or that one owner wants to be deleted.
    ///
    /// # Errors
    /// [`StoreError`] if the records cannot be listed.
    ///
    /// # Cancel safety
    /// If the future is dropped, operations may be forgotten that were selected before.
    pub async fn purge(&self, filter: &Filter, after: Option<&Cursor>, limit: usize) -> Result<Purged, StoreError> {
        let listing = self.operations.list(filter, after, limit).await?;
        let is_done = |operation: &OperationRecord| {
            matches!(operation.state, OperationState::Completed { .. } | OperationState::Consumed { .. })
        };
        let done = listing.operations.iter().filter(|operation| is_done(operation));
        let changes = done.map(|operation| Change::new(operation.id, operation.fence, Action::Forget)).collect();
        let mut purged = Purged { next: listing.next, ..Purged::default() };
        for (_, result) in self.apply_all(changes).await {
            match result {
                Ok(Applied::Done) => purged.forgotten += 1,
                Ok(_) | Err(_) => purged.left += 1,
            }
        }
        Ok(purged)
    }

    async fn change(&self, id: RecordId, fence: Fence, action: Action) -> Result<Applied, ChangeError> {
        let Operations { engine, recording } = &self.operations;
        let resolution = match action {
            Action::Answer(answer) => Resolution::Outcome(recording.outcome(answer)?),
            Action::Release => Resolution::Release,
            Action::Forget => Resolution::Forget,
            Action::Reconcile => {
                let reconciler = engine.policy.reconciler.as_ref().ok_or(ChangeError::NoReconciler)?;
                return Ok(match engine.reconcile_one(reconciler, id, Some(fence)).await {
                    Some(Reconciled::Outcome(())) => Applied::Done,
                    Some(Reconciled::RunAgain) => Applied::RunsAgain,
                    Some(Reconciled::StillUnknown) => Applied::StillUnknown,
                    None => Applied::Stale,
                });
            }
        };
        Ok(engine.resolve(id, fence, resolution).await?.into())
    }
}

impl<St> Clone for Operator<St> {
    fn clone(&self) -> Self {
        Self { operations: self.operations.clone(), actor: Arc::clone(&self.actor) }
    }
}
