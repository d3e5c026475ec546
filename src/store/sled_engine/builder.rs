//! How a [`SledStore`](super::SledStore) is set up.

use std::sync::Arc;

use super::engine::SledEngine;
use crate::clock::{Clock, SystemClock};
use crate::store::embedded::{Limits, Setup};

/// Sets up a [`SledStore`](super::SledStore).
#[derive(Debug, Clone)]
#[must_use]
pub struct SledStoreBuilder(pub(super) Setup<SledEngine>);

impl Default for SledStoreBuilder {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        let clock = Arc::new(SystemClock::default());
        let limits = Limits { max_records: 10_000_000, max_bytes: u64::MAX, min_free: None };
        Self(Setup { engine: 64 * MIB, outcome_cache_bytes: 16 * MIB, limits, clock })
    }
}

impl SledStoreBuilder {
    /// The bytes of memory in which sled keeps pages of the database. Default: 64 MiB.
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.0.engine = bytes;
        self
    }

    /// The bytes of memory in which recent outcomes are kept, to be replayed without a read. Default: 16 MiB.
    pub fn outcome_cache_bytes(mut self, bytes: u64) -> Self {
        self.0.outcome_cache_bytes = bytes;
        self
    }

    /// The records from which on no new key is taken, so that the disk doesn't fill up. Runs under way whose claims
    /// leave no trace (`Rerun`) come on top. Default: 10 million.
    pub fn max_records(mut self, records: u64) -> Self {
        self.0.limits.max_records = records;
        self
    }

    /// The bytes of recorded outcomes from which on no new key is taken, so that the disk doesn't fill up. Runs under
    /// way still record theirs. Default: no limit; `min_free_space` protects the disk.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.0.limits.max_bytes = bytes;
        self
    }

    /// The bytes of the disk that are to be left free: with less, no new key is taken, and runs under way still record
    /// their outcomes. That is what it is for, so leave more where many of them may end with long ones: `max_runs`
    /// times `max_response_body` is the most that they need. Looked at before each batch of writes, and eight times a
    /// second; where the operating system doesn't say how much is free, nothing is refused. 0: no limit. Default: a
    /// tenth of what the user may use of the disk, at most 1 GiB.
    pub fn min_free_space(mut self, bytes: u64) -> Self {
        self.0.limits.min_free = Some(bytes);
        self
    }

    /// Where the time comes from. Default: [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.0.clock = Arc::new(clock);
        self
    }
}
