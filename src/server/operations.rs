//! The operators' functions of a layer: list and settle interrupted operations, ask about them, drain, and count.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;

use super::answer::snapshot::Recorder;
use super::layer::IdempotencyLayer;
use crate::engine::{Drained, Engine, Reconciliation, Resolved, Stats};
use crate::key::RecordId;
use crate::record::{Fence, Resolution};
use crate::store::{InterruptedRun, Page, Store, StoreError};

/// Functions for operators.
impl<St: Store, M> IdempotencyLayer<St, M> {
    /// Refuses new keys from now on (503 `shutting-down`; replays are still given), and waits at most `timeout` for
    /// the runs under way on all layers over this store, and for the outcomes that could not be recorded when their
    /// runs ended and are tried again. Returns how many of each are left. Over a store that several processes share,
    /// handlers that another process may run again are dropped shortly before.
    ///
    /// New keys stay refused for as long as the store is open.
    ///
    /// # Cancel safety
    /// If the future is dropped, new keys are still refused.
    pub async fn drain(&self, timeout: Duration) -> Drained {
        self.shared.engine.drain(timeout).await
    }

    /// Returns a page of the interrupted operations of all layers and consumers over this store. It is unknown whether
    /// they took effect: their runs were interrupted, or their answers said so. An embedded store orders them by when
    /// they were interrupted, and a shared store by when they began.
    /// ```
    /// # use tower_idempotency::{MemoryStore, IdempotencyLayer, store::{Page, StoreError}};
    /// # async fn list(layer: IdempotencyLayer<MemoryStore>) -> Result<(), StoreError> {
    /// let mut page = layer.interrupted(100).await?;
    /// while let Some(last) = page.last() {
    ///     // …
    ///     page = layer.interrupted(Page::after(last, 100)).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`StoreError`] if the store is away, or a record is damaged.
    ///
    /// # Cancel safety
    /// This method only reads.
    pub async fn interrupted(&self, page: impl Into<Page>) -> Result<Vec<InterruptedRun>, StoreError> {
        self.shared.engine.interrupted(page.into()).await
    }

    /// Settles an interrupted operation, as [`interrupted`](Self::interrupted) lists it, or has a done one forgotten. The result is
    /// [`Resolved::Stale`] also if a request for the operation is just being answered.
    ///
    /// # Errors
    /// [`StoreError`] if the store is away, the answer cannot be stored, or the operation's last run is over and this
    /// process has yet to record its end in the store ([`Unavailable`](StoreError::Unavailable): try again once the
    /// store works). The error is [`Uncertain`](StoreError::Uncertain) if there is no answer after 5 s at most: the
    /// step may still take place, and until the store has said whether it did, requests for the operation are refused.
    ///
    /// # Cancel safety
    /// If the future was polled and is dropped, the operation is still settled.
    pub async fn resolve(
        &self,
        id: RecordId,
        fence: Fence,
        resolution: Resolution<Response<Bytes>>,
    ) -> Result<Resolved, StoreError> {
        self.shared.engine.resolve(id, fence, self.with_outcome(resolution)?).await
    }

    /// Settles many operations, each as [`resolve`](Self::resolve) does, and returns what became of each, in their
    /// order.
    /// ```
    /// # use http::StatusCode;
    /// # use tower_idempotency::{MemoryStore, IdempotencyLayer, Resolution, store::{Page, StoreError}};
    /// # async fn after_an_outage(layer: IdempotencyLayer<MemoryStore>) -> Result<(), StoreError> {
    /// // The card network says that it did nothing of what it answered 502 to.
    /// let answered = layer.interrupted(Page::first(1_000).answered_with(StatusCode::BAD_GATEWAY)).await?;
    /// let settled = layer.resolve_all(answered.into_iter().map(|record| (record, Resolution::Release))).await;
    /// # let _ = settled;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// If the future is dropped, decisions that were sent still take effect, and no others are sent.
    pub fn resolve_all(
        &self,
        decisions: impl IntoIterator<Item = (InterruptedRun, Resolution<Response<Bytes>>)>,
    ) -> impl Future<Output = Vec<(InterruptedRun, Result<Resolved, StoreError>)>> + Send {
        let decisions = decisions.into_iter();
        let decided: Vec<_> = decisions.map(|(record, resolution)| (record, self.with_outcome(resolution))).collect();
        self.shared.engine.resolve_all(decided)
    }

    pub(crate) fn engine(&self) -> &Arc<Engine<St>> {
        &self.shared.engine
    }

    /// Returns what records this layer's answers.
    pub(crate) fn recorder(&self) -> &Arc<Recorder> {
        &self.shared.options.recorder
    }

    /// Returns the resolution with its answer as an outcome.
    fn with_outcome(&self, resolution: Resolution<Response<Bytes>>) -> Result<Resolution, StoreError> {
        let answer = match resolution {
            Resolution::Outcome(answer) => answer,
            Resolution::Release => return Ok(Resolution::Release),
            Resolution::Forget => return Ok(Resolution::Forget),
        };
        let outcome = self.shared.options.recorder.record(&answer);
        let outcome = outcome.ok_or_else(|| StoreError::unavailable("the answer is longer than max_response_body"))?;
        Ok(Resolution::Outcome(outcome))
    }

    /// Asks the reconciler about all interrupted operations, without waiting for their clients, and settles those whose
    /// outcome it knows. A process may call it when it starts. It does nothing without
    /// [`reconcile_with`](Self::reconcile_with).
    ///
    /// # Errors
    /// [`StoreError`] if the operations cannot be listed. If the record of a single operation fails, the operation
    /// counts as unknown.
    ///
    /// # Cancel safety
    /// If the future is dropped, questions that were asked are still finished, and no others are asked.
    pub async fn reconcile_all(&self) -> Result<Reconciliation, StoreError> {
        self.shared.engine.reconcile_all().await
    }

    /// Returns what this process has counted over this store.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.engine.stats()
    }
}
