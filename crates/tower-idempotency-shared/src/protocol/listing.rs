//! The lists of operations: all, those under way, and what needs an operator: interrupted operations, disputed
//! outcomes, and completed records that can't be read.
//!
//! A database lists rows by their kind. So only the processes that have met a completed record with damaged bytes list
//! it, once they have refused a retry for it.

use bytes::Bytes;
use futures_util::future::join_all;
use tower_idempotency::RecordId;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::internals::{Cursor, Fence, List, ListedRecord, Page, Record, State, unavailable};
use tower_idempotency::store::StoreError;

use super::Protocol;
use super::disputed::disputed;
use super::large::LARGEST;
use super::rows::Decoded;
use crate::backend::{Backend, Kind, Row};
use crate::database::errors::away;
use crate::database::snapshot::Rows;

/// The most rows that are read at a time.
const PAGE: usize = 500;
/// The most pages that one list of disputed outcomes reads.
const MAX_PAGES: usize = 20;

/// The position behind a row, in the order of the database's index.
type Position = Option<(Timestamp, RecordId)>;

impl<B: Backend> Protocol<B> {
    /// Returns a page of a list, as this process sees the rows.
    pub(crate) async fn list(&self, list: List, after: Option<Cursor>, limit: usize) -> Result<Page, StoreError> {
        match list {
            List::All => self.all(after.and_then(Cursor::id), limit).await,
            List::Running => Ok(Page::of_all(list, self.running().await?, after, limit)),
            List::Interrupted => self.interrupted(after.and_then(Cursor::began), limit).await,
            List::Disputed => self.disputed(after.and_then(Cursor::began), limit).await,
        }
    }

    async fn interrupted(&self, after: Position, limit: usize) -> Result<Page, StoreError> {
        let (mut position, mut records) = (after, Vec::new());
        while records.len() < limit {
            let (rows, earliest) = self.page(&mut position, limit).await?;
            if rows.is_empty() {
                break;
            }
            let view = self.view(earliest);
            // What a later release has written is left to it.
            let columns = |row: &Row| Some(by_columns(row, &view.of(row)?.columns(row.id).ok()?));
            records.extend(rows.iter().filter_map(columns).filter(|listed| List::Interrupted.has(listed)));
        }
        let order = |listed: &ListedRecord| List::Interrupted.place(listed).began();
        let damaged = join_all(self.damaged.known().into_iter().map(|id| self.listed_damaged(id))).await;
        for listed in damaged {
            records.extend(listed?.filter(|listed| after < order(listed)));
        }
        records.sort_by_key(order);
        let may_have_more = records.len() >= limit;
        records.truncate(limit);
        let next = records.last().filter(|_| may_have_more).map(|last| List::Interrupted.place(last));
        Ok(Page { records, next })
    }

    /// Returns a completed record that was found to be damaged, as an operation whose end is unknown. Returns `None` if
    /// the operation was settled or has expired.
    async fn listed_damaged(&self, id: RecordId) -> Result<Option<ListedRecord>, StoreError> {
        let known = self.read(id).await?;
        if let Some(row) = known.row.filter(|row| row.kind.is_done())
            && let Some(Decoded::Damaged(record, _)) = self.view(known.earliest).of(&row)
        {
            return Ok(Some(by_columns(&row, &record)));
        }
        self.damaged.forget(&id);
        Ok(None)
    }

    async fn running(&self) -> Result<Vec<ListedRecord>, StoreError> {
        let (mut position, mut found) = (None, Vec::new());
        loop {
            // If no session counts as alive, the database leaves out no run.
            let (rows, earliest) = self.page_besides(&[], &mut position, PAGE).await?;
            if rows.is_empty() {
                return Ok(found);
            }
            let view = self.view(earliest);
            let listed = rows.iter().filter_map(|row| view.listed(row));
            found.extend(listed.filter(|listed| List::Running.has(listed)));
        }
    }

    async fn all(&self, after: Option<RecordId>, limit: usize) -> Result<Page, StoreError> {
        let scanned = self.database.scan(after, limit).await.map_err(away)?;
        let Rows { earliest, rows, .. } = scanned;
        let next = rows.last().filter(|_| rows.len() == limit).map(|row| Cursor::of_id(row.id));
        let view = self.view(earliest);
        Ok(Page { records: rows.iter().filter_map(|row| view.listed(row)).collect(), next })
    }

    /// Returns disputed outcomes. An absent row begins when it is written, so they are in the order of the index.
    async fn disputed(&self, mut position: Position, limit: usize) -> Result<Page, StoreError> {
        let (mut records, mut last) = (Vec::new(), None);
        // Interrupted operations have the same index, and there may be very many.
        for _ in 0..MAX_PAGES {
            let (rows, earliest) = self.page(&mut position, PAGE).await?;
            if rows.is_empty() {
                return Ok(Page { records, next: None });
            }
            let view = self.view(earliest);
            for row in &rows {
                if let Some(listed) = view.disputed(row) {
                    if records.len() == limit {
                        return Ok(Page { records, next: last });
                    }
                    records.push(listed);
                }
                last = Some(Cursor::of_time(row.since, row.began, row.id));
            }
        }
        Ok(Page { records, next: last })
    }

    /// Returns the disputed outcome of the run with this fence.
    pub(crate) async fn disputed_outcome(&self, id: RecordId, fence: Fence) -> Result<Option<Bytes>, StoreError> {
        let read = self.database.rows(&[disputed(id, fence)], LARGEST).await;
        let Rows { earliest, rows, .. } = read.map_err(away)?;
        let row = rows.into_iter().flatten().find(|row| row.kind == Kind::Disputed);
        let held = row.and_then(|row| self.view(earliest).decoded(&row));
        Ok(match held.map(|held| held.whole(id)).transpose()?.map(|record| record.state) {
            Some(State::Completed { outcome }) => Some(outcome),
            _ => None,
        })
    }

    /// Returns a page of the rows that may need an operator, and the earliest time by which they were judged. Moves the
    /// position to the end of the page.
    async fn page(&self, position: &mut Position, limit: usize) -> Result<(Vec<Row>, Timestamp), StoreError> {
        // The database leaves out the runs of these sessions while their bounds are not over: they are under way.
        let mut alive = self.sessions.others().alive();
        alive.extend(self.sessions.own.own().iter());
        self.page_besides(&alive, position, limit).await
    }

    /// Returns the same, where the sessions that count as alive are these.
    async fn page_besides(
        &self,
        alive: &[RecordId],
        position: &mut Position,
        limit: usize,
    ) -> Result<(Vec<Row>, Timestamp), StoreError> {
        let page = self.database.list(alive, *position, limit.min(PAGE)).await;
        let Rows { earliest, rows, .. } = page.map_err(away)?;
        let next = rows.last().map(|last| (last.began, last.id));
        if next.is_some() && next <= *position {
            return Err(unavailable("the database lists rows in no order, so a list would never end"));
        }
        *position = next.or(*position);
        Ok((rows, earliest))
    }
}

/// Returns what is listed of an operation that is known by the columns of its row.
fn by_columns(row: &Row, record: &Record) -> ListedRecord {
    ListedRecord { session: row.session, ..ListedRecord::without_outcome(row.id, record) }
}
