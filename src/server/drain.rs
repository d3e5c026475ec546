//! The operators' functions of a layer: drain and count. `operations` has all others.

use std::sync::Arc;
use std::time::Duration;

use super::answer::snapshot::Recorder;
use super::layer::IdempotencyLayer;
use crate::engine::{Drained, Engine, Stats, drain};
use crate::store::Store;

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
        drain(self.state().engine.store.slots(), timeout).await
    }

    pub(crate) fn engine(&self) -> &Arc<Engine<St>> {
        &self.state().engine
    }

    /// Returns what records this layer's answers.
    pub(crate) fn recorder(&self) -> &Arc<Recorder> {
        &self.state().options.recorder
    }

    /// Returns what this process has counted over this store.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.state().engine.store.slots().stats()
    }
}
