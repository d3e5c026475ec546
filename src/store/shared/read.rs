//! What this process reads, and what it tells of it.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::time::{Instant, timeout};

use super::backend::{Backend, BackendError, Row, ServerId};
use super::errors::away;
use super::rows::{Held, View};
use super::state::Shelf;
use crate::clock::Timestamp;
use crate::key::RecordId;
use crate::record::{Record, State};
use crate::store::StoreError;

/// What is known of a row, and at which time of the database.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) row: Option<Row>,
    pub(super) now: Timestamp,
    /// The server that has shown it; `None` if this process wrote it.
    pub(super) server: Option<ServerId>,
}

impl<B: Backend> Shelf<B> {
    /// Reads the row of `id`.
    pub(super) async fn read(&self, id: RecordId) -> Result<Known, StoreError> {
        let sent = Instant::now();
        let answer = match timeout(self.reach.timeout(), self.backend.get(&[id])).await {
            Ok(answer) => answer,
            Err(_) => Err(BackendError::Uncertain("it did not come in time".into())),
        };
        let answer = answer.inspect_err(|error| self.reach.failed(error)).map_err(away)?;
        self.reach.answered(answer.server, answer.now, sent, false, answer.rows.iter().flatten());
        let row = answer.rows.into_iter().next().flatten();
        Ok(Known { row, now: answer.now, server: Some(answer.server) })
    }

    /// The record of `id`, as this process sees it.
    pub(super) async fn load(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        if let Some(record) = self.recall(id) {
            return Ok(Some(record));
        }
        let known = self.read(id).await?;
        let record = match self.view(&known).of_row(known.row.as_ref()) {
            Some(held) => Some(held.whole(id)?),
            None => None,
        };
        self.tell(id, known, record).await
    }

    /// What this process knows of `id` without asking: a completed record that has not expired.
    pub(super) fn recall(&self, id: RecordId) -> Option<Record> {
        let record = self.cache.get(&id)?;
        let record = Record::clone(&record).live(self.reach.session.now());
        if record.is_none() {
            self.cache.remove(&id);
        }
        record
    }

    /// Gives a record that was read to whoever answers from it. What is done is told only behind a barrier, and kept.
    pub(super) async fn tell(
        &self,
        id: RecordId,
        known: Known,
        record: Option<Record>,
    ) -> Result<Option<Record>, StoreError> {
        let is_done = |record: &Record| matches!(record.state, State::Completed { .. } | State::Consumed { .. });
        let Some(record) = record else { return Ok(None) };
        if is_done(&record) {
            if let Some(server) = known.server
                && !self.reach.session.is_behind_barrier(server)
            {
                self.barrier(server).await?;
            }
            self.cache.put(id, record.clone());
        }
        Ok(Some(record))
    }

    /// Writes something that is durable when it is answered, and so is all that `server` had shown before.
    async fn barrier(&self, server: ServerId) -> Result<(), StoreError> {
        self.renew().await?;
        if self.reach.session.is_behind_barrier(server) {
            return Ok(());
        }
        Err(StoreError::unavailable("the database was started again meanwhile"))
    }

    /// How this process sees rows, as far as it knows the database's time.
    pub(super) fn view(&self, known: &Known) -> OwnView {
        OwnView { own: self.reach.session.own(), now: known.now, trusts_leases: self.reach.session.trusts_leases() }
    }
}

/// [`View`], with what it borrows.
#[derive(Debug)]
pub(super) struct OwnView {
    own: Arc<HashSet<RecordId>>,
    now: Timestamp,
    trusts_leases: bool,
}

impl OwnView {
    pub(super) fn of_row(&self, row: Option<&Row>) -> Option<Held> {
        let Self { own, now, trusts_leases } = self;
        row.and_then(|row| View { own, now: *now, trusts_leases: *trusts_leases }.of(row))
    }
}
