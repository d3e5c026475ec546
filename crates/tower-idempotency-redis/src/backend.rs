//! The calls of [`Backend`], whose documentation says what each does.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use redis::{Value, from_redis_value};
use tower_idempotency::RecordId;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::store::Gauges;
use tower_idempotency_shared::for_backends::{ChangeFeed, Task};
use tower_idempotency_shared::{Answer, Backend, Clocks, Guarantee, Kind, Row, Write};

use super::database::Database;
use super::error::{Called, unreadable};
use super::guarantee::Setup;
use super::wire::{NONE, adopted, arguments, is_claim, listed, parsed, time};

/// The most rows that one script adopts: other clients wait meanwhile. A store puts as many at most.
const ROWS: usize = 64;
/// The most rows that one script looks at, for a list or a sweep.
const WALKED: usize = 256;

/// A Redis or Valkey database.
pub struct RedisBackend {
    pub(super) database: Database,
    pub(super) changes: Arc<ChangeFeed>,
    /// The task that hears of changes. It ends with the backend.
    pub(super) _listening: Task,
}

impl fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let namespace = &self.database.settings.namespace;
        f.debug_struct("RedisBackend").field("namespace", namespace).finish_non_exhaustive()
    }
}

impl Backend for RedisBackend {
    const NAME: &'static str = "redis";

    async fn get(&self, clocks: Clocks, ids: &[RecordId]) -> Called<Answer<Vec<Option<Row>>>> {
        let mut call = self.database.call("get", clocks);
        call.rows.extend(ids);
        // A row alone may be a large one.
        let bytes = (ids.len() != 1).then_some(0);
        let Answer { now, server, rows } = self.database.ask(call, bytes).await?;
        Ok(Answer { now, server, rows: rows_of(ids.iter().copied(), rows)? })
    }

    async fn put(&self, clocks: Clocks, writes: &[Write]) -> Called<Answer<Vec<Option<Row>>>> {
        if writes.is_empty() {
            // A call without writes asks for the time.
            return self.get(clocks, &[]).await;
        }
        let mut call = self.database.call("put", clocks);
        call.is_claim = writes.iter().any(is_claim);
        call.renews = writes.iter().all(|write| write.kind == Kind::Session);
        for write in writes {
            call.rows.push(write.id);
            call.arguments.extend(arguments(write)?);
        }
        let bytes = writes.iter().map(|write| write.state.len()).sum();
        let Answer { now, server, rows } = self.database.ask(call, Some(bytes)).await?;
        let rows = rows_of(writes.iter().map(|write| write.id), rows)?.into_iter().zip(writes);
        Ok(Answer { now, server, rows: rows.map(|(row, write)| row.map(|row| with_state(row, write))).collect() })
    }

    async fn sessions(&self, clocks: Clocks) -> Called<Answer<Vec<Row>>> {
        let mut answer = self.walk("sessions", clocks, Bytes::new(), usize::MAX, &[]).await?;
        // One that can't be read is a session all the same, which is never over.
        answer.rows.iter_mut().for_each(|row| row.kind = Kind::Session);
        Ok(answer)
    }

    async fn list(
        &self,
        clocks: Clocks,
        alive: &[RecordId],
        after: Option<(Timestamp, RecordId)>,
        limit: usize,
    ) -> Called<Answer<Vec<Row>>> {
        let after =
            after.map_or(Vec::new(), |(began, id)| [time(began).as_bytes(), NONE.as_bytes(), id.as_bytes()].concat());
        self.walk("list", clocks, after.into(), limit, alive).await
    }

    async fn scan(&self, clocks: Clocks, after: Option<RecordId>, limit: usize) -> Called<Answer<Vec<Row>>> {
        let after = after.map_or(Vec::new(), |id| id.as_bytes().to_vec());
        self.walk("scan", clocks, after.into(), limit, &[]).await
    }

    async fn delete_expired(&self, clocks: Clocks, limit: usize) -> Called<usize> {
        let mut deleted = 0;
        while deleted < limit {
            let slice = WALKED.min(limit - deleted);
            let mut call = self.database.call("sweep", clocks);
            call.arguments.push(slice.to_string().into());
            let answer = self.database.ask(call, Some(0)).await?;
            let counts = from_redis_value::<(usize, usize)>(Value::Array(answer.rows));
            let (looked_at, gone) = counts.map_err(unreadable)?;
            deleted += gone;
            if looked_at < slice {
                break;
            }
        }
        Ok(deleted)
    }

    async fn adopt(&self, clocks: Clocks, rows: &[Row]) -> Called<Answer<Vec<RecordId>>> {
        let mut written = Vec::new();
        let mut moment = self.database.ask(self.database.call("get", clocks), Some(0)).await?;
        // One after the other: a call that is sent again would not say any more what the first one wrote.
        for part in rows.chunks(ROWS) {
            let mut call = self.database.call("adopt", clocks);
            call.is_claim = true;
            for row in part {
                call.rows.push(row.id);
                call.arguments.extend(adopted(row)?);
            }
            let bytes = part.iter().map(|row| row.state.len()).sum();
            moment = self.database.ask(call, Some(bytes)).await?;
            let is_written = moment.rows.iter().map(|value| matches!(value, Value::Int(1)));
            written.extend(part.iter().zip(is_written).filter(|(_, is)| *is).map(|(row, _)| row.id));
        }
        Ok(Answer { now: moment.now, server: moment.server, rows: written })
    }

    fn changes(&self) -> BoxStream<'static, RecordId> {
        self.changes.stream()
    }

    async fn guarantee(&self) -> Called<Guarantee> {
        let setup = Setup::read(self.database.command(Setup::commands()).await?).map_err(unreadable)?;
        Ok(self.database.look(setup).guarantee(self.database.settings.durability))
    }

    /// As of the last refusal for lack of memory, or the last [`guarantee`](Self::guarantee).
    fn full(&self) -> Option<&'static str> {
        *self.database.limit.borrow()
    }

    fn gauges(&self) -> Gauges {
        let mut gauges = Gauges::default();
        gauges.connections = Some(self.database.pool.in_use() as u64);
        gauges
    }
}

impl RedisBackend {
    /// Walks over an index by calls that each look at few rows, until there are enough.
    async fn walk(
        &self,
        operation: &str,
        clocks: Clocks,
        mut after: Bytes,
        limit: usize,
        alive: &[RecordId],
    ) -> Called<Answer<Vec<Row>>> {
        let mut found = Vec::new();
        loop {
            let mut call = self.database.call(operation, clocks);
            let counts = [limit - found.len(), WALKED].map(|count| count.to_string().into());
            call.arguments.extend([after].into_iter().chain(counts));
            call.arguments.extend(alive.iter().map(|id| Bytes::copy_from_slice(id.as_bytes())));
            let Answer { now, server, rows } = self.database.ask(call, None).await?;
            let mut rows = rows.into_iter();
            let Some(Value::BulkString(next)) = rows.next() else { return Err(unreadable("it has no place")) };
            for row in rows {
                found.push(listed(row)?);
            }
            if next.is_empty() || found.len() >= limit {
                found.truncate(limit);
                return Ok(Answer { now, server, rows: found });
            }
            after = next.into();
        }
    }
}

/// Returns the row, with the state of the write if that has made it: it was not sent back.
fn with_state(row: Row, write: &Write) -> Row {
    if row.token == write.token { Row { state: write.state.clone(), ..row } } else { row }
}

/// The rows of ids, in their order.
fn rows_of(ids: impl ExactSizeIterator<Item = RecordId>, values: Vec<Value>) -> Called<Vec<Option<Row>>> {
    if values.len() != ids.len() {
        return Err(unreadable("it does not have a row for each id"));
    }
    let rows: Vec<Option<Vec<u8>>> = from_redis_value(Value::Array(values)).map_err(unreadable)?;
    Ok(ids.zip(rows).map(|(id, row)| row.map(|bytes| parsed(id, bytes.into()))).collect())
}
