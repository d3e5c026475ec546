//! What this process reads, and what it tells of it.

use super::Protocol;
use super::rows::{Held, View, is_of_transaction};
use crate::clock::Timestamp;
use crate::key::RecordId;
use crate::record::Record;
use crate::store::StoreError;
use crate::store::shared::backend::{Backend, Row};
use crate::store::shared::database::large::is_left_out;
use crate::store::shared::database::reads::RowSnapshot;

impl<B: Backend> Protocol<B> {
    /// Reads the row of `id`.
    pub(crate) async fn read(&self, id: RecordId) -> Result<RowSnapshot, StoreError> {
        self.database.read(id).await
    }

    /// What was answered, with the bytes of its row, if the database has left them out.
    pub(crate) async fn filled(&self, known: RowSnapshot) -> Result<RowSnapshot, StoreError> {
        let Some(row) = known.row.as_ref().filter(|row| is_left_out(row)) else { return Ok(known) };
        let read = self.database.read_large(row).await?;
        match read.row {
            // The answer may be newer than what was read.
            Some(whole) if whole.token == row.token => {
                Ok(RowSnapshot { row: Some(Row { state: whole.state, ..row.clone() }), ..known })
            }
            row => Ok(RowSnapshot { row, ..read }),
        }
    }

    /// The record of `id`, as this process sees it.
    pub(crate) async fn load(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        if let Some(record) = self.recall(id) {
            return Ok(Some(record));
        }
        let known = self.read(id).await?;
        self.tell_whole(id, known).await
    }

    /// The whole record of a row that was read, or answered.
    pub(crate) async fn tell_whole(&self, id: RecordId, known: RowSnapshot) -> Result<Option<Record>, StoreError> {
        let known = self.filled(known).await?;
        let record = known.row.as_ref().and_then(|row| self.whole(row, known.earliest)).transpose()?;
        self.tell(id, known, record).await
    }

    /// The record of a row that is judged at this earliest time, for whoever needs all of it.
    pub(crate) fn whole(&self, row: &Row, earliest: Timestamp) -> Option<Result<Record, StoreError>> {
        let held = self.view(earliest).of(row)?;
        if matches!(held, Held::Damaged(..)) {
            self.damaged.note(row);
        }
        Some(held.whole(row.id))
    }

    /// What this process knows of `id` without asking: a completed record that has not expired by any clock. Otherwise
    /// the row decides: by an earlier clock than another process's, this one could go on answering for an operation
    /// after its key was claimed anew.
    pub(crate) fn recall(&self, id: RecordId) -> Option<Record> {
        // It stays: a clock that was wrong for a moment must not make this process forget what a failover may lose.
        Record::clone(&*self.cache.get(&id)?).live(self.clocks().latest())
    }

    /// Gives a record that was read to whoever answers from it. What is done is told only behind a barrier, and kept.
    pub(crate) async fn tell(
        &self,
        id: RecordId,
        known: RowSnapshot,
        record: Option<Record>,
    ) -> Result<Option<Record>, StoreError> {
        let Some(record) = record else { return Ok(None) };
        if record.state.is_done() {
            if let Some(server) = known.server {
                self.sessions.barrier(server).await?;
            }
            let is_of_transaction = known.row.as_ref().is_some_and(is_of_transaction);
            self.cache.put_of(id, record.clone(), is_of_transaction);
        }
        Ok(Some(record))
    }

    /// How this process sees rows that are judged at this earliest time.
    pub(crate) fn view(&self, earliest: Timestamp) -> View<'_> {
        let own = &self.sessions.own;
        View { own: own.own(), earliest, others: own.holds_half().then(|| self.sessions.others()) }
    }
}
