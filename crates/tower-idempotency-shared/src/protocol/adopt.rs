//! Writes the records of another store as they are, for a tool that moves them.

use std::collections::HashSet;

use tower_idempotency::RecordId;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::internals;
use tower_idempotency::internals::{Current, Edit, Fence, Record, Reply, Stepped, Transition, next};
use tower_idempotency::store::StoreError;

use super::Protocol;
use super::rows;
use super::write::{between, outlives};
use crate::backend::{Backend, Clocks, Expect, GRACE, Kind, NewFence, Row, Write};
use crate::database::errors::{away, not_written};

/// The row that keeps the fences of a namespace growing, if a clock does not: a session that no process has. Each
/// process reads the sessions before its first claim, and gives greater fences than any that it has seen.
const FLOOR: RecordId = RecordId::from_bytes([0xff; 32]);

impl<B: Backend> Protocol<B> {
    /// Writes records of another store, each if there is none of its id.
    pub(crate) async fn adopt(&self, records: Vec<(RecordId, Record)>) -> Result<Vec<Stepped>, StoreError> {
        let clocks = self.clocks().now();
        let mut rows = Vec::with_capacity(records.len());
        for (id, record) in &records {
            rows.extend(row(*id, record, clocks)?);
        }
        let written = self.database.adopt(&rows).await.map_err(away)?;
        let written: HashSet<RecordId> = written.into_iter().collect();
        let mut applied = Vec::with_capacity(records.len());
        for (id, record) in records {
            applied.push(match written.contains(&id) {
                true => Stepped { reply: Reply::Taken, record: Some(record) },
                false => Stepped { reply: Reply::Refused, record: self.load(id).await? },
            });
        }
        Ok(applied)
    }

    /// Lets every process of this namespace give greater fences than this one, as soon as it has read the sessions.
    pub(crate) async fn raise_fences(&self, above: Fence) -> Result<(), StoreError> {
        loop {
            let row = self.read(FLOOR).await?.row;
            let clocks = self.clocks().now();
            // Until then no clock gives a greater fence by itself.
            let until = Timestamp::from_millis(above.0 / 1_000);
            if until < clocks.earliest || row.as_ref().is_some_and(|row| row.fence >= above) {
                return Ok(());
            }
            let expect = row.as_ref().map_or(Expect::Absent, |row| Expect::Token(row.token));
            let bare = Write::without_record(FLOOR, expect, between(clocks.earliest, until) + GRACE);
            // A session whose bytes can't be read is never over.
            let write = Write { fence: NewFence::Exactly(above), kind: Kind::Session, ..bare };
            let token = write.token;
            let put = self.database.writes.put(write, None).await.map_err(not_written)?;
            if put.row.is_some_and(|row| row.token == token) {
                return Ok(());
            }
        }
    }
}

/// Returns the row of a record, or `None` if it is refused.
fn row(id: RecordId, record: &Record, clocks: Clocks) -> Result<Option<Row>, StoreError> {
    let adopt = Transition::Adopt(Box::new(record.clone()));
    let (Edit::Put(draft), Reply::Taken) = next(Current::Absent, adopt) else { return Ok(None) };
    let &Record { fence, began, since, expires, .. } = record;
    let Some(expires) = expires else { return Ok(None) };
    let state = rows::encode(&id, &draft).ok_or_else(|| internals::unavailable("a record can't be encoded"))?;
    // The row may be kept for longer than its record: see `outlives`.
    let least = clocks.latest.plus(outlives(fence, clocks));
    Ok(Some(Row {
        id,
        token: crate::random_token(),
        fence,
        kind: rows::kind(&draft.state),
        session: None,
        until: (expires < least).then_some(expires),
        began,
        since,
        expires: expires.max(least),
        state,
    }))
}
