//! Reads rows, and returns their records once they may be returned: for a look, for a step, and for operators.

use tokio::time::Instant;
use tower_idempotency::RecordId;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::internals::{Fence, ListedRecord, Record};
use tower_idempotency::store::StoreError;

use super::Protocol;
use super::rows::{Decoded, View, is_of_transaction, listed};
use crate::backend::{Backend, Kind, Row};
use crate::database::snapshot::RowSnapshot;

impl<B: Backend> Protocol<B> {
    /// Reads the row of `id`.
    pub(crate) async fn read(&self, id: RecordId) -> Result<RowSnapshot, StoreError> {
        let asked = Instant::now();
        if !self.large.has(&id) {
            let known = self.database.reads.get(id).await;
            if known.is_ok() || asked.elapsed() < self.database.state.timeout {
                return known;
            }
        }
        // A row that is late may be large. So it is met without its bytes.
        self.filled(self.database.meets.get(id).await?).await
    }

    /// Returns the record of `id`, as this process sees it.
    pub(crate) async fn load(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        if let Some(record) = self.recall(id) {
            return Ok(Some(record));
        }
        let known = self.read(id).await?;
        self.durable_filled(id, known).await
    }

    /// Returns the whole record of a row that was read, or that the database has answered with.
    pub(crate) async fn durable_whole(&self, id: RecordId, known: RowSnapshot) -> Result<Option<Record>, StoreError> {
        let known = self.filled(known).await?;
        self.durable_filled(id, known).await
    }

    /// Returns the same, where no bytes of the row were left out.
    pub(crate) async fn durable_filled(&self, id: RecordId, known: RowSnapshot) -> Result<Option<Record>, StoreError> {
        let record = known.row.as_ref().and_then(|row| self.whole(row, known.earliest)).transpose()?;
        self.durable(id, &known, record).await
    }

    /// Returns the whole record of a row that is judged at this earliest time.
    pub(crate) fn whole(&self, row: &Row, earliest: Timestamp) -> Option<Result<Record, StoreError>> {
        let held = self.view(earliest).of(row)?;
        if matches!(held, Decoded::Damaged(..)) {
            // From now on `listing.rs` lists the record for operators.
            self.damaged.note(row);
        }
        Some(held.whole(row.id))
    }

    /// Returns what this process knows of `id` without a call: a completed record that has not expired by any clock.
    /// Otherwise the row decides. If this process judged by a clock that is behind another process's, it could still
    /// answer for an operation after its key was claimed anew.
    pub(crate) fn recall(&self, id: RecordId) -> Option<Record> {
        // The record stays in the cache: a clock that was wrong for a moment must not make this process forget a record
        // that a failover may lose.
        Record::clone(&*self.cache.get(&id)?).live(self.clocks().latest())
    }

    /// Forgets the record with this fence, also where it is just being read.
    pub(crate) fn forget(&self, id: RecordId, fence: Fence) {
        self.large.forget(&id);
        self.cache.forget(id, fence);
    }

    /// Forgets a record that was forgotten in another process: the row is its tombstone, which has its fence. The
    /// tombstone of a later run says nothing of the record: a failover may have lost it. A consumed row may be what is
    /// left of a record whose answer was forgotten there: behind a barrier, it takes the record's place.
    pub(crate) async fn note_forgotten(&self, known: &RowSnapshot) {
        let Some(row) = &known.row else { return };
        match row.kind {
            Kind::Released => self.forget(row.id, row.fence),
            Kind::Consumed => {
                if let Some(Ok(left)) = self.whole(row, known.earliest) {
                    // Where the barrier is not reached, the record stays.
                    let _ = self.durable(row.id, known, Some(left)).await;
                }
            }
            _ => {}
        }
    }

    /// Returns what the database says of `id`, for operators: never from the cache.
    pub(crate) async fn inspect(&self, id: RecordId) -> Result<Option<ListedRecord>, StoreError> {
        let known = self.read(id).await?;
        self.note_forgotten(&known).await;
        let Some(row) = known.row else { return Ok(None) };
        Ok(self.view(known.earliest).of(&row).map(|held| listed(&row, held)))
    }

    /// Returns a record that was read, for an answer. A completed or consumed record is returned only behind a barrier,
    /// and cached.
    pub(crate) async fn durable(
        &self,
        id: RecordId,
        known: &RowSnapshot,
        record: Option<Record>,
    ) -> Result<Option<Record>, StoreError> {
        let Some(record) = record else { return Ok(None) };
        if record.state.is_done() {
            if let Some(server) = known.server {
                // This renews the session, unless the server has answered a write as durable since it was started.
                self.sessions.barrier(server).await?;
            }
            let is_of_transaction = known.row.as_ref().is_some_and(is_of_transaction);
            self.cache.put_unless_forgotten(id, record.clone(), is_of_transaction);
        }
        Ok(Some(record))
    }

    /// Returns how this process sees rows that are judged at this earliest time.
    pub(crate) fn view(&self, earliest: Timestamp) -> View<'_> {
        let own = &self.sessions.own;
        View { own: own.own(), earliest, others: own.holds_half().then(|| self.sessions.others()) }
    }
}
