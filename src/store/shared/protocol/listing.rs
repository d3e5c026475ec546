//! Lists what needs an operator: interrupted operations, disputed outcomes, and completed records that can't be read.
//!
//! A database lists rows by their kind. So only the processes that have met a completed record with damaged bytes list
//! it, once they have refused a retry for it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;

use super::Protocol;
use super::damaged::is_done;
use super::rows::Decoded;
use super::takeover::disputed;
use crate::clock::Timestamp;
use crate::key::RecordId;
use crate::record::{Fence, State};
use crate::store::contract::{After, Disputed, InterruptedRun};
use crate::store::error::StoreError;
use crate::store::listed::{ListedRecord, Scanned};
use crate::store::shared::backend::{Backend, Kind, Row};
use crate::store::shared::database::errors::away;
use crate::store::shared::database::large::LARGEST;
use crate::store::shared::database::snapshot::Rows;

/// The most rows that are read at a time.
const PAGE: usize = 500;
/// The most pages that one list of disputed outcomes reads.
const MAX_PAGES: usize = 20;

/// The position at which a page begins.
type Cursor = Option<(Timestamp, RecordId)>;

impl<B: Backend> Protocol<B> {
    /// Returns the interrupted operations, as this process sees them.
    pub(crate) async fn interrupted(
        &self,
        after: Option<After>,
        limit: usize,
    ) -> Result<Vec<InterruptedRun>, StoreError> {
        let mut cursor = after.map(|after| (after.began, after.id));
        let mut found = Vec::new();
        while found.len() < limit {
            let (rows, earliest) = self.page(&mut cursor, limit).await?;
            if rows.is_empty() {
                break;
            }
            let view = self.view(earliest);
            for row in &rows {
                // A later release has to handle what it has written.
                let Some(Ok(record)) = view.of(row).map(|held| held.columns(row.id)) else { continue };
                let run = InterruptedRun::of(row.id, &record);
                found.extend(run.map(|run| InterruptedRun { session: row.session, ..run }));
            }
        }
        let damaged = join_all(self.damaged.known().into_iter().map(|id| self.listed_damaged(id))).await;
        let first = after.map(|after| (after.began, after.id));
        for run in damaged {
            found.extend(run?.filter(|run| first < Some((run.began, run.id))));
        }
        found.sort_by_key(|run| (run.began, run.id));
        found.truncate(limit);
        Ok(found)
    }

    /// Returns a completed record that was found to be damaged, as an operation whose end is unknown. Returns `None` if
    /// the operation was settled or has expired.
    async fn listed_damaged(&self, id: RecordId) -> Result<Option<InterruptedRun>, StoreError> {
        let known = self.read(id).await?;
        let done = known.row.filter(is_done);
        let Some(Decoded::Damaged(record, _)) = done.and_then(|row| self.view(known.earliest).of(&row)) else {
            self.damaged.forget(&id);
            return Ok(None);
        };
        Ok(InterruptedRun::of(id, &record))
    }

    /// Returns the operations whose runs are under way, as this process sees them.
    pub(crate) async fn running(&self) -> Result<Vec<ListedRecord>, StoreError> {
        let (mut cursor, mut found) = (None, Vec::new());
        loop {
            // If no session counts as alive, the database leaves out no run.
            let (rows, earliest) = self.page_besides(&[], &mut cursor, PAGE).await?;
            if rows.is_empty() {
                found.sort_by_key(|record: &ListedRecord| record.id);
                return Ok(found);
            }
            let view = self.view(earliest);
            found.extend(rows.iter().filter_map(|row| view.listed(row)).filter(ListedRecord::is_running));
        }
    }

    /// Looks at the first `limit` records after the id `after`.
    pub(crate) async fn scan(&self, after: Option<RecordId>, limit: usize) -> Result<Scanned, StoreError> {
        let scanned = self.database.scan(after, limit).await.map_err(|error| away(Arc::new(error)))?;
        let Rows { earliest, rows, .. } = scanned;
        let next = rows.last().map(|row| row.id).filter(|_| rows.len() == limit);
        let view = self.view(earliest);
        Ok(Scanned { records: rows.iter().filter_map(|row| view.listed(row)).collect(), next })
    }

    /// Returns disputed outcomes, in the order in which they came: an absent row begins when it is written.
    pub(crate) async fn disputed(&self, after: Option<After>, limit: usize) -> Result<Disputed, StoreError> {
        let mut cursor = after.map(|after| (after.began, after.id));
        let (mut records, mut last) = (Vec::new(), None);
        // Interrupted operations have the same index, and there may be very many.
        for _ in 0..MAX_PAGES {
            let (rows, earliest) = self.page(&mut cursor, PAGE).await?;
            if rows.is_empty() {
                return Ok(Disputed { records, next: None });
            }
            let view = self.view(earliest);
            for row in &rows {
                if let Some(listed) = view.disputed(row) {
                    if records.len() == limit {
                        return Ok(Disputed { records, next: last });
                    }
                    records.push(listed);
                }
                last = Some(After { since: row.since, began: row.began, id: row.id });
            }
        }
        Ok(Disputed { records, next: last })
    }

    /// Returns the disputed outcome of the run with this fence.
    pub(crate) async fn disputed_outcome(&self, id: RecordId, fence: Fence) -> Result<Option<Bytes>, StoreError> {
        let read = self.database.rows(&[disputed(id, fence)], LARGEST).await;
        let Rows { earliest, rows, .. } = read.map_err(|error| away(Arc::new(error)))?;
        let row = rows.into_iter().flatten().find(|row| row.kind == Kind::Disputed);
        let held = row.and_then(|row| self.view(earliest).decoded(&row));
        Ok(match held.map(|held| held.whole(id)).transpose()?.map(|record| record.state) {
            Some(State::Completed { outcome }) => Some(outcome),
            _ => None,
        })
    }

    /// Returns a page of the rows that may need an operator, and the earliest time by which they were judged. Moves the
    /// cursor to the end of the page.
    async fn page(&self, cursor: &mut Cursor, limit: usize) -> Result<(Vec<Row>, Timestamp), StoreError> {
        // The database leaves out the runs of these sessions while their bounds are not over: they are under way.
        let mut alive = self.sessions.others().alive();
        alive.extend(self.sessions.own.own().iter());
        self.page_besides(&alive, cursor, limit).await
    }

    /// Returns the same, where the sessions that count as alive are these.
    async fn page_besides(
        &self,
        alive: &[RecordId],
        cursor: &mut Cursor,
        limit: usize,
    ) -> Result<(Vec<Row>, Timestamp), StoreError> {
        let page = self.database.list(alive, *cursor, limit.min(PAGE)).await;
        let Rows { earliest, rows, .. } = page.map_err(|error| away(Arc::new(error)))?;
        if let Some(last) = rows.last() {
            *cursor = Some((last.began, last.id));
        }
        Ok((rows, earliest))
    }
}
