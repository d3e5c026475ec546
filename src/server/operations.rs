//! What operators do with a layer: list and settle interrupted operations, ask about them, drain, and count.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};

use super::layer::IdempotencyLayer;
use crate::engine::{Counts, Drained, Reconciliation, Resolved};
use crate::key::RecordId;
use crate::record::{Fence, Resolution};
use crate::store::{InterruptedRun, Page, Store, StoreError};

/// For operators.
impl<St: Store, M> IdempotencyLayer<St, M> {
    /// Refuses new keys from now on (503 `shutting-down`; replays are still given), and waits at most `timeout` for
    /// the runs under way on all layers over this store, and for the outcomes that could not be recorded when their
    /// runs ended and are tried again. Says how many of each are left.
    ///
    /// New keys stay refused for as long as the store is open.
    ///
    /// # Cancel safety
    /// If the future is dropped, it waits no longer, and new keys are refused all the same.
    pub async fn drain(&self, timeout: Duration) -> Drained {
        self.shared.engine.drain(timeout).await
    }

    /// Lists the interrupted operations, of which nobody knows whether they took effect: their runs were interrupted, or
    /// their answers said so. They are those of all layers and consumers over this store. The oldest come first, and
    /// there are at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`]: the store is away, or a record damaged.
    ///
    /// # Cancel safety
    /// It only reads.
    pub async fn interrupted(&self, limit: usize) -> Result<Vec<InterruptedRun>, StoreError> {
        self.shared.engine.interrupted(Page::first(limit)).await
    }

    /// Lists the interrupted operations that come after `last`, at most `limit`: the next page of
    /// [`interrupted`](Self::interrupted).
    ///
    /// # Errors
    /// As [`interrupted`](Self::interrupted).
    ///
    /// # Cancel safety
    /// It only reads.
    pub async fn interrupted_after(
        &self,
        last: &InterruptedRun,
        limit: usize,
    ) -> Result<Vec<InterruptedRun>, StoreError> {
        self.shared.engine.interrupted(Page::after(last, limit)).await
    }

    /// Lists the interrupted operations whose handlers gave an answer with `status` which means that nobody knows: what an
    /// outage of a downstream service leaves, say. The oldest come first, and there are at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`]: the store is away, or a record damaged.
    ///
    /// # Cancel safety
    /// It only reads.
    pub async fn interrupted_with_status(
        &self,
        status: StatusCode,
        limit: usize,
    ) -> Result<Vec<InterruptedRun>, StoreError> {
        self.shared.engine.interrupted(Page { status: Some(status.as_u16()), ..Page::first(limit) }).await
    }

    /// Settles an interrupted operation, as [`interrupted`](Self::interrupted) lists it. The result is
    /// [`Resolved::Stale`] also if a request for the operation is just being answered.
    ///
    /// # Errors
    /// [`StoreError`]: the store is away, the answer can't be stored, or the operation's last run is over and this
    /// process has yet to tell the store how it ended ([`Unavailable`](StoreError::Unavailable): try again once the
    /// store works). [`Uncertain`](StoreError::Uncertain) after at most 5 s without an answer: it may still take place,
    /// and until the store has said whether it did, requests for the operation are refused.
    ///
    /// # Cancel safety
    /// If the future was polled and is dropped, the operation is settled all the same.
    pub async fn resolve(
        &self,
        id: RecordId,
        fence: Fence,
        resolution: Resolution<Response<Bytes>>,
    ) -> Result<Resolved, StoreError> {
        self.shared.engine.resolve(id, fence, self.recorded(resolution)?).await
    }

    /// Settles many operations, each as [`resolve`](Self::resolve) does, and returns what became of each, in their
    /// order.
    /// ```
    /// # use http::StatusCode;
    /// # use tower_idempotency::{MemoryStore, IdempotencyLayer, Resolution, store::StoreError};
    /// # async fn after_an_outage(layer: IdempotencyLayer<MemoryStore>) -> Result<(), StoreError> {
    /// // The card network says that it did nothing of what it answered 502 to.
    /// let answered = layer.interrupted_with_status(StatusCode::BAD_GATEWAY, 1_000).await?;
    /// let settled = layer.resolve_all(answered.into_iter().map(|record| (record, Resolution::Forget))).await;
    /// # let _ = settled;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// If the future is dropped, the decisions that were sent take effect all the same, and no others are sent.
    pub fn resolve_all(
        &self,
        decisions: impl IntoIterator<Item = (InterruptedRun, Resolution<Response<Bytes>>)>,
    ) -> impl Future<Output = Vec<(InterruptedRun, Result<Resolved, StoreError>)>> + Send {
        let decisions = decisions.into_iter();
        let decided: Vec<_> = decisions.map(|(record, resolution)| (record, self.recorded(resolution))).collect();
        self.shared.engine.resolve_all(decided)
    }

    /// A resolution whose answer is an outcome, as it is recorded.
    fn recorded(&self, resolution: Resolution<Response<Bytes>>) -> Result<Resolution, StoreError> {
        let Resolution::Outcome(answer) = resolution else { return Ok(Resolution::Forget) };
        let outcome = self.shared.options.recorder.record(&answer);
        let outcome = outcome.ok_or_else(|| StoreError::unavailable("the answer is longer than max_response_body"))?;
        Ok(Resolution::Outcome(outcome))
    }

    /// Asks the reconciler about all interrupted operations, without waiting for their clients, and settles those whose
    /// outcome it knows: at the start of a process, say. It does nothing without
    /// [`reconcile_with`](Self::reconcile_with).
    ///
    /// # Errors
    /// [`StoreError`]: the operations can't be listed. Those whose own records fail count as unknown.
    ///
    /// # Cancel safety
    /// If the future is dropped, a question that was asked is seen through, and no others are asked.
    pub async fn reconcile_all(&self) -> Result<Reconciliation, StoreError> {
        self.shared.engine.reconcile_all().await
    }

    /// What this process has counted over this store.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.engine.counts()
    }
}
