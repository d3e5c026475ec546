//! Rows out of the database's answers: to a read, and to each write.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio_postgres::types::PgLsn;
use tokio_postgres::{Error, Row as Columns};

use super::types::{Time, Uuid};
use tower_idempotency::Fence;
use tower_idempotency::RecordId;
use tower_idempotency_shared::{Answer, BackendError, Kind, Row, ServerId};

/// Returns the answer with the rows read: every query for rows has the same columns, and at least one row, which has
/// the time.
pub(crate) fn answer(columns: &[Columns], system: u64) -> Result<Answer<Vec<Option<Row>>>, Unreadable> {
    let first = columns.first().ok_or(Unreadable::Empty)?;
    // The numbers are those of the columns, which each query in `queries.rs` has in the same order.
    let Time(now) = first.try_get(0)?;
    let started: SystemTime = first.try_get(1)?;
    let recovered: Option<PgLsn> = first.try_get(12)?;
    // Two servers that were started in the same microsecond are of two clusters.
    // The odd factors spread the bits, so that the parts do not cancel each other out in the XOR.
    let started = started.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64;
    let started = started.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let recovered = recovered.map_or(0, u64::from).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let server = ServerId(started ^ recovered ^ system);
    let rows = columns.iter().map(row).collect::<Result<_, _>>()?;
    Ok(Answer { now, server, rows })
}

/// A row, if there is one.
fn row(columns: &Columns) -> Result<Option<Row>, Unreadable> {
    // The row has the time alone: there is no record for it.
    let Some(id) = columns.try_get::<_, Option<&[u8]>>(2)? else { return Ok(None) };
    let time = |index| columns.try_get(index).map(|Time(time)| time);
    let time_if_any = |index| columns.try_get::<_, Option<Time>>(index).map(|time| time.map(|Time(time)| time));
    let Uuid(token) = columns.try_get(3)?;
    let session: Option<&[u8]> = columns.try_get(6)?;
    let record_id = |bytes: &[u8]| match bytes.try_into() {
        Ok(bytes) => Ok(RecordId::from_bytes(bytes)),
        Err(_) => Err(Unreadable::Id(hex(id))),
    };
    Ok(Some(Row {
        id: record_id(id)?,
        token,
        fence: Fence(u64::try_from(columns.try_get::<_, i64>(4)?).unwrap_or(0)),
        kind: Kind::of(columns.try_get(5)?),
        session: session.map(record_id).transpose()?,
        until: time_if_any(7)?,
        began: time(8)?,
        since: time(9)?,
        expires: time(10)?,
        state: Bytes::copy_from_slice(columns.try_get(11)?),
    }))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The database has answered with something else than was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("the database's answer is empty")]
    Empty,
    /// Another program has written the row with this id.
    #[error("the database's answer has a row whose id or session has not 32 bytes: {0}")]
    Id(String),
    #[error("the database's answer can't be read: {0}")]
    Column(#[from] Error),
}

/// Whatever was asked for may have been done.
impl From<Unreadable> for BackendError {
    fn from(unreadable: Unreadable) -> Self {
        Self::Uncertain(Box::new(unreadable))
    }
}
