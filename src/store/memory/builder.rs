//! The settings of a [`MemoryStore`](super::MemoryStore).

use std::sync::Arc;

use crate::clock::{Clock, SystemClock};

/// Sets up a [`MemoryStore`](super::MemoryStore).
#[derive(Debug, Clone)]
#[must_use]
pub struct MemoryStoreBuilder {
    pub(super) max_records: usize,
    pub(super) max_bytes: usize,
    pub(super) clock: Arc<dyn Clock>,
    /// `true` if a claim that may be repeated writes no row, as in a store on disk; only the test store sets this.
    pub(crate) volatile_claims: bool,
}

impl Default for MemoryStoreBuilder {
    fn default() -> Self {
        let clock = Arc::new(SystemClock::default());
        Self { max_records: 100_000, max_bytes: 64 * 1024 * 1024, clock, volatile_claims: false }
    }
}

impl MemoryStoreBuilder {
    /// Sets the most records that the store keeps, running ones included. Default: 100,000.
    pub fn max_records(mut self, records: usize) -> Self {
        self.max_records = records;
        self
    }

    /// Sets how many bytes of memory the records may take before the store takes no new keys. Outcomes of runs under
    /// way are kept even beyond that. Default: 64 MiB.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets the clock. Default: [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }
}
