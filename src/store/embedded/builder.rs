//! The settings of an [`EmbeddedStore`].

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::layout::storage_engine::StorageEngine;
use super::space::Limits;
use super::store::EmbeddedStore;
use crate::clock::{Clock, SystemClock};
use crate::record::Fence;
use crate::store::OpenError;

/// Sets up an [`EmbeddedStore`].
#[derive(Debug, Clone)]
#[must_use]
pub struct EmbeddedStoreBuilder<E: StorageEngine> {
    /// The engine's own settings.
    pub(in crate::store) engine_options: E::Options,
    pub(super) outcome_cache_bytes: u64,
    pub(super) limits: Limits,
    pub(super) clock: Arc<dyn Clock>,
    /// `true` if a store is made when there is none.
    pub(super) create: bool,
    /// The step after which a loss is accepted.
    pub(super) accept_loss_after: Option<u64>,
    /// New fences are above this one.
    pub(super) fences_above: Fence,
}

impl<E: StorageEngine> Default for EmbeddedStoreBuilder<E> {
    fn default() -> Self {
        Self {
            engine_options: E::Options::default(),
            outcome_cache_bytes: 16 * 1024 * 1024,
            limits: Limits { max_records: 10_000_000, max_bytes: u64::MAX, min_free: None },
            clock: Arc::new(SystemClock::default()),
            create: true,
            accept_loss_after: None,
            fences_above: Fence(0),
        }
    }
}

impl<E: StorageEngine> EmbeddedStore<E> {
    /// Opens the store in `directory`, which is made with mode 0700 if it does not exist.
    ///
    /// Blocks while the lists of the records are read. If they are damaged, all records are read, and listed anew.
    ///
    /// # Errors
    /// [`OpenError`]: the directory is in use or not a store's, or the operating system refused.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::builder().open(directory)
    }

    /// Opens the store in `directory` as [`open`](Self::open) does, and waits for at most `timeout` while it is in
    /// use; see [`EmbeddedStoreBuilder::open_within`].
    ///
    /// # Errors
    /// As [`open`](Self::open); [`OpenError::InUse`] only after `timeout`.
    pub fn open_within(directory: impl AsRef<Path>, timeout: Duration) -> Result<Self, OpenError> {
        Self::builder().open_within(directory, timeout)
    }

    /// Returns a builder, to set what differs from the defaults.
    pub fn builder() -> EmbeddedStoreBuilder<E> {
        EmbeddedStoreBuilder::default()
    }
}

impl<E: StorageEngine> EmbeddedStoreBuilder<E> {
    /// Sets the bytes of memory in which recent outcomes are kept, to be replayed without a read. Default: 16 MiB.
    pub fn outcome_cache_bytes(mut self, bytes: u64) -> Self {
        self.outcome_cache_bytes = bytes;
        self
    }

    /// Sets how many records the store may hold before new keys are refused, so that the disk does not fill up. Runs
    /// under way whose claims leave no trace (`Rerun`) are not counted. Default: 10 million.
    pub fn max_records(mut self, records: u64) -> Self {
        self.limits.max_records = records;
        self
    }

    /// Sets how many bytes of outcomes may be recorded before new keys are refused, so that the disk does not fill up.
    /// Runs under way still record theirs. Default: no limit; `min_free_space` protects the disk.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.limits.max_bytes = bytes;
        self
    }

    /// Sets the bytes of the disk that are to be left free. With less, new keys are refused, and the free space is for
    /// the outcomes of the runs under way. So leave more if many of them may end with long outcomes: they need
    /// `max_runs` times `max_response_body` at most. The store checks before each batch of writes, and eight times a
    /// second; if the operating system does not say how much is free, nothing is refused. 0 means no limit. Default: a
    /// tenth of what the user may use of the disk, at most 1 GiB.
    pub fn min_free_space(mut self, bytes: u64) -> Self {
        self.limits.min_free = Some(bytes);
        self
    }

    /// Sets whether a store is made if there is none. A new store has no keys, so every retry of an earlier request
    /// runs again. With `false`, opening fails with [`OpenError::NotFound`], for
    /// example if a container was started without its volume. Default: `true`.
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Opens a store that has lost records, if `batch` is the last batch that is there. The error
    /// [`OpenError::Lost`] says which one that is. **Requests whose keys are lost can
    /// run a second time.** The opening logs an ERROR and is counted in
    /// [`Stats::losses_accepted`](crate::engine::Stats::losses_accepted).
    ///
    /// The batch names one loss, so a later loss is refused again even if this setting stays. Default: no loss is
    /// accepted.
    pub fn accept_loss_after(mut self, batch: u64) -> Self {
        self.accept_loss_after = Some(batch);
        self
    }

    /// Lets all new fences be above this one, from this opening on. For a tool that moves records from another store.
    #[doc(hidden)]
    pub fn fences_above(mut self, fence: Fence) -> Self {
        self.fences_above = fence;
        self
    }

    /// Sets the clock. Default: [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }
}
