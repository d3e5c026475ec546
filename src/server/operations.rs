//! The operators' functions of a layer: list and settle interrupted operations, ask about them, drain, and count.

use std::sync::Arc;
use std::time::Duration;

use super::answer::snapshot::Recorder;
use super::layer::IdempotencyLayer;
use crate::engine::{Drained, Engine, Reconciliation, Stats};
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

    pub(crate) fn engine(&self) -> &Arc<Engine<St>> {
        &self.shared.engine
    }

    /// Returns what records this layer's answers.
    pub(crate) fn recorder(&self) -> &Arc<Recorder> {
        &self.shared.options.recorder
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
