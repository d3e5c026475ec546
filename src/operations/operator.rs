//! Changes operations, one or many, and asks the application about those that were interrupted.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::Instrument as _;

use super::audit;
use super::change::{Action, Applied, Change, ChangeError, Purged, Reconciliation};
use super::filter::Filter;
use super::reader::{Listing, Operations};
use super::record::{OperationRecord, OperationState, StateKind};
use crate::engine::{Reconciled, reconcile_one, resolve};
use crate::key::RecordId;
use crate::laboratory;
use crate::record::{Fence, Reply, Resolution};
use crate::store::page::Cursor;
use crate::store::{Store, StoreError};
use crate::timeouts::STORE_TIMEOUT;

/// The number of changes that are made at a time, and of questions that are put to the application at a time.
const MAX_AT_ONCE: usize = 64;
const MAX_QUESTIONS: usize = 16;
/// The number of interrupted operations that are listed at a time.
const PAGE: usize = 1_000;

/// Changes operations in the name of an actor: see [`Operations::by`].
#[derive(Debug)]
pub struct Operator<St> {
    pub(super) operations: Operations<St>,
    pub(super) actor: Arc<str>,
}

impl<St: Store> Operations<St> {
    /// Returns the interface by which `actor` changes operations. The name is for the audit events: a person, or a
    /// program.
    #[must_use]
    pub fn by(&self, actor: impl Into<Arc<str>>) -> Operator<St> {
        Operator { operations: self.clone(), actor: actor.into() }
    }
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
        let seen = Some(change.fence);
        self.make(change, seen).await
    }

    /// Makes a change under the fence that the operation had when it was `seen`; `None`, for a question: under any
    /// fence.
    async fn make(&self, change: Change, seen: Option<Fence>) -> Result<Applied, ChangeError> {
        let limit = self.limit(&change.action);
        let (operator, (reply, applied)) = (self.clone(), oneshot::channel());
        // A drain waits until the event is logged, also if the operation's slot is not taken yet.
        let under_way = self.operations.engine.store.slots().retrying();
        let is_question = matches!(change.action, Action::Reconcile);
        let mut changing = async move {
            let Change { id, fence, action } = change;
            let name = action.name();
            let result = operator.change(id, fence, seen, action).await;
            audit::log(&operator.actor, name, id, fence, &result);
            drop(under_way);
            // The caller may have gone away.
            let _ = reply.send(result);
        }
        .in_current_span()
        .boxed();
        if is_question {
            changing = self.operations.engine.wrapped(changing);
        }
        // The first poll takes the operation's slot, so that a drain that begins afterwards waits for the change.
        if poll_fn(|context| Poll::Ready(changing.as_mut().poll(context))).await.is_pending() {
            laboratory::spawn(changing);
        }
        let unknown = |reason| Err(StoreError::uncertain(reason).into());
        match timeout(limit, applied).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => unknown("the task of the change was dropped with its runtime; look at the operation again"),
            Err(_) => unknown("the store has not answered; look at the operation again"),
        }
    }

    /// Returns how long a caller waits for a change. The change itself goes on.
    fn limit(&self, action: &Action) -> Duration {
        match (action, &self.operations.engine.policy.reconciler) {
            // The time for a look-up, a new fence, the question and the record.
            (Action::Reconcile, Some(reconciler)) => reconciler.limit().saturating_add(3 * STORE_TIMEOUT),
            // A look at the status, and the step.
            (Action::ForgetAnswer, _) => 2 * STORE_TIMEOUT,
            _ => STORE_TIMEOUT,
        }
    }

    /// Makes many changes, and returns the result of each, in their order.
    ///
    /// # Cancel safety
    /// If the future is dropped, changes that were begun are still made, and no others are begun.
    pub async fn apply_all(&self, changes: Vec<Change>) -> Vec<(RecordId, Result<Applied, ChangeError>)> {
        let one = |change: Change| async move { (change.id, self.apply(change).await) };
        // `buffered` returns the results in the order of the changes.
        futures_util::stream::iter(changes).map(one).buffered(MAX_AT_ONCE).collect().await
    }

    /// Asks the reconciler about all interrupted operations, 16 at a time, and settles those whose outcome it knows:
    /// [`Action::Reconcile`] for each, whose audit event says what came of it. A process may call it when it starts. It
    /// does nothing without a reconciler.
    ///
    /// # Errors
    /// [`StoreError`] if the operations cannot be listed. If the change of a single operation fails, the operation
    /// counts as unknown.
    ///
    /// # Cancel safety
    /// If the future is dropped, questions that were asked are still finished, and no others are asked.
    pub async fn reconcile_all(&self) -> Result<Reconciliation, StoreError> {
        let (mut sum, mut after) = (Reconciliation::default(), None);
        let interrupted = Filter::all().in_state(StateKind::Interrupted);
        while self.operations.can_reconcile() {
            let Listing { operations, next, .. } = self.operations.list(&interrupted, after.as_ref(), PAGE).await?;
            // Each question takes a new fence, those of a retry or of another process too. So none is expected.
            let ask = |operation: OperationRecord| {
                self.make(Change::new(operation.id, operation.fence, Action::Reconcile), None)
            };
            let mut asked = futures_util::stream::iter(operations).map(ask).buffer_unordered(MAX_QUESTIONS);
            while let Some(result) = asked.next().await {
                match result {
                    Ok(Applied::Done) => sum.settled += 1,
                    Ok(Applied::RunsAgain) => sum.run_again += 1,
                    // The operation is no longer interrupted, or a retry handles it.
                    Ok(Applied::Stale) => {}
                    Ok(Applied::StillUnknown) | Err(_) => sum.unknown += 1,
                }
            }
            if next.is_none() {
                break;
            }
            after = next;
        }
        Ok(sum)
    }

    /// Forgets the done operations of one page of the list that `filter` selects: at most `limit` (1 to 1,000), from
    /// `after` on; see [`Action::Forget`]. Interrupted and running operations stay, whatever the filter says, and so do
    /// [disputed](Operations::disputed) outcomes, which expire after 30 days.
    ///
    /// # Errors
    /// [`StoreError`] if the records cannot be listed.
    ///
    /// # Cancel safety
    /// If the future is dropped, operations may be forgotten that were selected before.
    pub async fn purge(&self, filter: &Filter, after: Option<&Cursor>, limit: usize) -> Result<Purged, StoreError> {
        self.forget_page(filter, after, limit, Action::Forget).await
    }

    /// Deletes the answers of the completed operations of one page of the list that `filter` selects: at most `limit`
    /// (1 to 1,000), from `after` on; see [`Action::ForgetAnswer`]. The keys stay used. An operation in any other state
    /// stays as it is, whatever the filter says, and so do [disputed](Operations::disputed) outcomes, which expire
    /// after 30 days.
    ///
    /// # Errors
    /// [`StoreError`] if the records cannot be listed.
    ///
    /// # Cancel safety
    /// If the future is dropped, answers may be deleted that were selected before.
    pub async fn forget_answers(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Purged, StoreError> {
        self.forget_page(filter, after, limit, Action::ForgetAnswer).await
    }

    /// Takes this action on each operation of a page that has an answer or a record to forget.
    async fn forget_page(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: usize,
        action: Action,
    ) -> Result<Purged, StoreError> {
        let listing = self.operations.list(filter, after, limit).await?;
        let is_meant = |operation: &&OperationRecord| match operation.state {
            OperationState::Completed { .. } => true,
            // It has no answer.
            OperationState::Consumed { .. } => matches!(action, Action::Forget),
            _ => false,
        };
        let meant = listing.operations.iter().filter(is_meant);
        let changes = meant.map(|operation| Change::new(operation.id, operation.fence, action.clone())).collect();
        let mut results = self.apply_all(changes).await;
        let before = results.len();
        results.retain(|(_, result)| !matches!(result, Ok(Applied::Done)));
        Ok(Purged { forgotten: before - results.len(), left: results, next: listing.next })
    }

    async fn change(
        &self,
        id: RecordId,
        fence: Fence,
        seen: Option<Fence>,
        action: Action,
    ) -> Result<Applied, ChangeError> {
        let Operations { engine, encoding } = &self.operations;
        let resolution = match action {
            Action::Answer(answer) => Resolution::Outcome(encoding.outcome(answer)?),
            Action::Release => Resolution::Release,
            Action::Forget => Resolution::Forget,
            // The drain waits for this read, too: see `make`.
            Action::ForgetAnswer => match self.operations.inspect(id).await? {
                Some(operation) if operation.fence == fence => {
                    Resolution::ForgetAnswer { status: operation.state.status().unwrap_or(0) }
                }
                _ => return Ok(Applied::Stale),
            },
            Action::Reconcile => {
                let reconciler = engine.policy.reconciler.as_ref().ok_or(ChangeError::NoReconciler)?;
                return Ok(match reconcile_one(engine, reconciler, id, seen).await? {
                    Some(Reconciled::Outcome(())) => Applied::Done,
                    Some(Reconciled::RunAgain) => Applied::RunsAgain,
                    Some(Reconciled::StillUnknown) => Applied::StillUnknown,
                    None => Applied::Stale,
                });
            }
        };
        Ok(match resolve(engine, id, fence, resolution).await? {
            Reply::Taken => Applied::Done,
            Reply::Refused => Applied::Stale,
        })
    }
}

impl<St> Clone for Operator<St> {
    fn clone(&self) -> Self {
        Self { operations: self.operations.clone(), actor: Arc::clone(&self.actor) }
    }
}
