//! What this process reads, and what it tells of it.

use super::backend::{Backend, Row, ServerId};
use super::gets::Known;
use super::large::is_left_out;
use super::reach::Reach;
use super::rows::{Held, View, is_of_transaction};
use super::state::Shelf;
use crate::clock::Timestamp;
use crate::key::RecordId;
use crate::record::Record;
use crate::store::StoreError;

impl<B: Backend> Shelf<B> {
    /// Reads the row of `id`.
    pub(super) async fn read(&self, id: RecordId) -> Result<Known, StoreError> {
        self.gets.get(id).await
    }

    /// What was answered, with the bytes of its row, if the database has left them out.
    pub(super) async fn filled(&self, known: Known) -> Result<Known, StoreError> {
        let Some(row) = known.row.as_ref().filter(|row| is_left_out(row)) else { return Ok(known) };
        let read = self.gets.get_large(row).await?;
        match read.row {
            // The answer may be newer than what was read.
            Some(whole) if whole.token == row.token => {
                Ok(Known { row: Some(Row { state: whole.state, ..row.clone() }), ..known })
            }
            row => Ok(Known { row, ..read }),
        }
    }

    /// The record of `id`, as this process sees it.
    pub(super) async fn load(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        if let Some(record) = self.recall(id) {
            return Ok(Some(record));
        }
        let known = self.read(id).await?;
        self.tell_whole(id, known).await
    }

    /// The whole record of a row that was read, or answered.
    pub(super) async fn tell_whole(&self, id: RecordId, known: Known) -> Result<Option<Record>, StoreError> {
        let known = self.filled(known).await?;
        let record = known.row.as_ref().and_then(|row| self.whole(row, known.earliest)).transpose()?;
        self.tell(id, known, record).await
    }

    /// The record of a row that is judged at this earliest time, for whoever needs all of it.
    pub(super) fn whole(&self, row: &Row, earliest: Timestamp) -> Option<Result<Record, StoreError>> {
        let held = self.view(earliest).of(row)?;
        if matches!(held, Held::Damaged(..)) {
            self.damaged.note(row);
        }
        Some(held.whole(row.id))
    }

    /// What this process knows of `id` without asking: a completed record that has not expired by any clock. Otherwise
    /// the row decides: by an earlier clock than another process's, this one could go on answering for an operation
    /// after its key was claimed anew.
    pub(super) fn recall(&self, id: RecordId) -> Option<Record> {
        // It stays: a clock that was wrong for a moment must not make this process forget what a failover may lose.
        Record::clone(&*self.cache.get(&id)?).live(self.reach.clocks.latest())
    }

    /// Gives a record that was read to whoever answers from it. What is done is told only behind a barrier, and kept.
    pub(super) async fn tell(
        &self,
        id: RecordId,
        known: Known,
        record: Option<Record>,
    ) -> Result<Option<Record>, StoreError> {
        let Some(record) = record else { return Ok(None) };
        if record.state.is_done() {
            if let Some(server) = known.server
                && !self.reach.session.is_behind_barrier(server)
            {
                self.barrier(server).await?;
            }
            let is_of_transaction = known.row.as_ref().is_some_and(is_of_transaction);
            self.cache.put_of(id, record.clone(), is_of_transaction);
        }
        Ok(Some(record))
    }

    /// Writes something that is durable when it is answered, and so is all that `server` had shown before.
    async fn barrier(&self, server: ServerId) -> Result<(), StoreError> {
        // In a task: whoever waits here may stand still, and would keep this process from renewing its session.
        let shelf = self.itself.upgrade().ok_or_else(|| StoreError::unavailable("the store is gone"))?;
        let written = tokio::spawn(async move {
            // One after the other: who comes later finds it written.
            let _turn = shelf.barriers.lock().await;
            if shelf.reach.session.is_behind_barrier(server) { Ok(()) } else { shelf.renew().await.map(drop) }
        });
        written.await.unwrap_or_else(|_| Err(StoreError::unavailable("the store's runtime is gone")))?;
        if self.reach.session.is_behind_barrier(server) {
            return Ok(());
        }
        Err(StoreError::unavailable("the database was started again meanwhile"))
    }

    /// How this process sees rows that are judged at this earliest time.
    pub(super) fn view(&self, earliest: Timestamp) -> View<'_> {
        let Reach { session, others, .. } = &*self.reach;
        View { own: session.own(), earliest, others: session.holds_half().then_some(others) }
    }
}
