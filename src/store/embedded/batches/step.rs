//! Writes what a batch has decided, in steps that are bounded in size. Each batch ends here.

use std::time::Instant;

use super::batch::{Batch, StepUnderWay};
use crate::store::StoreError;
use crate::store::embedded::layout::keys;
use crate::store::embedded::layout::storage_engine::StorageEngine;
use crate::store::embedded::layout::totals::MAX_LEAVING;
use crate::store::embedded::layout::writes::{MAX_IN_ORDER, Writes};
use crate::store::embedded::state::READERS;

/// The number of chunks of long outcomes that are written between two syncs: 128 KB.
const CHUNKS_AT_ONCE: usize = 32;
/// The most bytes that one command writes in addition to its chunks: a record with its outcome, and its listing.
const MAX_COMMAND_BYTES: usize = 8 * 1024;

/// The reason why a batch fails if the store was poisoned while it was decided.
const READ_FAILED: &str = "a read failed meanwhile";

impl<E: StorageEngine> Batch<'_, E> {
    /// Writes what was decided so far, if another command might not fit into the step. It is called between two
    /// commands. If it fails, the batch fails.
    pub(crate) fn write_if_full(&mut self) {
        if self.step.writes.bytes + MAX_COMMAND_BYTES > E::MAX_STEP {
            self.write_decided();
        }
    }

    /// Writes what was decided so far. It is made durable, and answered, at the end.
    fn write_decided(&mut self) {
        if self.early.is_err() {
            return;
        }
        if self.shared.is_poisoned() {
            // A poisoned store writes nothing any more.
            self.early = Err(READ_FAILED.to_owned());
        } else if self.step.has_writes {
            self.early = self.write_out().map(|()| true);
        }
    }

    /// Prepares for a transaction, which is written at once and whose size is unknown before. What was decided earlier
    /// is written, and made durable if it is much, because what a transaction writes in addition to its effect and its
    /// outcome comes on top of [`MAX_STEP`](StorageEngine::MAX_STEP).
    pub(crate) fn prepare_for_transaction(&mut self) -> Result<(), StoreError> {
        self.write_decided();
        if self.early.is_ok()
            && let Err(reason) = self.sync_from(E::MAX_STEP / 2 - MAX_COMMAND_BYTES)
        {
            self.early = Err(reason);
        }
        self.early.as_ref().map(drop).map_err(StoreError::uncertain)
    }

    fn sync_engine(&self) -> Result<(), String> {
        let began = Instant::now();
        let synced = self.engine.sync();
        self.shared.measured.note_sync(began.elapsed());
        synced
    }

    /// Makes durable what was written before, if it is more than `bytes`; see [`MAX_STEP`](StorageEngine::MAX_STEP).
    fn sync_from(&mut self, bytes: usize) -> Result<(), String> {
        if self.unsynced > bytes {
            self.sync_engine()?;
            self.unsynced = 0;
        }
        Ok(())
    }

    /// Returns the writes so far, with the totals that go with them.
    pub(crate) fn take_writes(&mut self) -> Writes {
        let StepUnderWay { writes, listings, leaving, is_transaction, .. } = &mut self.step;
        let written = listings.write(writes, || self.shared.next_number());
        self.totals.numbers = self.totals.numbers.wrapping_add(written);
        let mut leaving = std::mem::take(leaving);
        if leaving.len() > MAX_LEAVING || writes.entries.len() > MAX_IN_ORDER {
            writes.is_atomic = true;
        }
        if writes.is_atomic || *is_transaction {
            // The removals are recovered with these totals, which therefore need not name them.
            leaving.clear();
        }
        // The totals have the number of the step that they are a part of.
        self.totals.step += 1;
        (self.totals.below, self.totals.leaving) = (self.shared.unused_number(), leaving);
        self.step.writes.insert(keys::TOTALS, self.totals.encode());
        self.step.has_writes = false;
        std::mem::take(&mut self.step.writes)
    }

    /// Writes everything that is left, and makes it durable.
    pub(crate) fn write_all(&mut self) -> Result<(), String> {
        if self.shared.is_poisoned() {
            return Err(READ_FAILED.to_owned());
        }
        let early = self.early.clone()?;
        let has_writes = self.step.has_writes;
        if has_writes {
            self.write_out()?;
        }
        if early || has_writes { self.sync_engine() } else { Ok(()) }
    }

    /// Writes what was decided so far: first the chunks of long outcomes, a few at a time and each time made durable;
    /// then everything else in one step.
    fn write_out(&mut self) -> Result<(), String> {
        let ahead = std::mem::take(&mut self.step.ahead);
        if !ahead.is_empty() {
            // So these chunks alone are unsynced.
            self.sync_from(0)?;
        }
        for slice in ahead.chunks(CHUNKS_AT_ONCE) {
            let mut chunks = Writes::default();
            slice.iter().for_each(|(key, chunk)| chunks.insert(key, chunk.clone()));
            chunks.is_atomic = true;
            self.engine.write(chunks)?;
            self.sync_engine()?;
            self.unsynced = 0;
        }
        // A step is written key by key only while no thread reads; see `StorageEngine::write`. The permits are held
        // until this function returns.
        let alone = self.shared.readers.try_acquire_many(READERS);
        if alone.is_err() {
            self.step.writes.is_atomic = true;
        }
        let writes = self.take_writes();
        self.sync_from(E::MAX_STEP.saturating_sub(writes.bytes))?;
        self.unsynced += writes.bytes;
        self.engine.write(writes)
    }
}
