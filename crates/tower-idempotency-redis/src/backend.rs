//! The calls of [`Backend`], whose documentation says what each does.

use std::fmt;
use std::sync::Arc;

use futures_util::stream::BoxStream;
use redis::Value;
use tower_idempotency::RecordId;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::store::Gauges;
use tower_idempotency_shared::{Answer, Backend, BackendError, Clocks, Guarantee, Kind, Row, Write};

use super::changes::ChangeFeed;
use super::connection::dial::Task;
use super::database::{Database, Haste, Outcome};
use super::guarantee::{Accepted, Setup};
use super::script::{Call, Sort};
use super::wire::number;
use super::wire::row::{Answered, Unreadable, listed, row};
use super::wire::write::{adopted, arguments, is_claim};

/// The most writes of one script: others wait meanwhile.
const ROWS: usize = 64;
/// The most rows that one script looks at, for a list or a sweep.
const WALKED: usize = 256;

/// A Redis or Valkey database.
pub struct RedisBackend {
    pub(super) database: Arc<Database>,
    pub(super) namespace: String,
    pub(super) accepted: Accepted,
    pub(super) changes: Arc<ChangeFeed>,
    /// The task that hears of changes. It ends with the backend.
    pub(super) listening: Option<Task>,
}

impl fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_listening = self.listening.is_some();
        f.debug_struct("RedisBackend")
            .field("namespace", &self.namespace)
            .field("is_listening", &is_listening)
            .finish_non_exhaustive()
    }
}

impl Backend for RedisBackend {
    const NAME: &'static str = "redis";

    async fn get(&self, clocks: Clocks, ids: &[RecordId]) -> Result<Answer<Vec<Option<Row>>>, BackendError> {
        let mut call = self.database.call(Sort::Read, "get", clocks);
        ids.iter().for_each(|id| call.key(self.database.keys.row(id)));
        // A row alone may be a large one.
        let haste = if ids.len() == 1 { Haste::Patient } else { Haste::Bytes(0) };
        let Answered { now, server, values } = self.database.ask(call, haste).await?;
        Ok(Answer { now, server, rows: rows(ids.iter().copied(), values)? })
    }

    async fn put(&self, clocks: Clocks, writes: &[Write]) -> Result<Answer<Vec<Option<Row>>>, BackendError> {
        if writes.is_empty() {
            // A call without writes asks for the time.
            return self.get(clocks, &[]).await;
        }
        let (claims, ends): (Vec<usize>, Vec<usize>) = (0..writes.len()).partition(|at| is_claim(&writes[*at]));
        let parts: Vec<(Sort, &[usize])> = [(Sort::Claim, &claims), (Sort::End, &ends)]
            .into_iter()
            .flat_map(|(sort, all)| all.chunks(ROWS).map(move |part| (sort, part)))
            .collect();
        let calls: Vec<Call> = parts
            .iter()
            .map(|(sort, part)| {
                let mut call = self.database.call(*sort, "put", clocks);
                for at in *part {
                    call.key(self.database.keys.row(&writes[*at].id));
                    call.arguments(arguments(&writes[*at])?);
                }
                Ok(call)
            })
            .collect::<Result<_, BackendError>>()?;
        let is_renewal = writes.iter().all(|write| write.kind == Kind::Session);
        let bytes = writes.iter().map(|write| write.state.len()).sum();
        let haste = if is_renewal { Haste::Renewal } else { Haste::Bytes(bytes) };
        let mut found = vec![None; writes.len()];
        let outcomes = together(self.database.ask_all(&calls, haste).await?)?;
        let mut moment = None;
        for ((_, part), outcome) in parts.into_iter().zip(outcomes) {
            // Claims for which there is no room, next to ends that were done. A claim that meets no row is sent again.
            let Some(Answered { now, server, values }) = outcome else { continue };
            moment = Some((now, server));
            for (at, row) in part.iter().zip(rows(part.iter().map(|at| writes[*at].id), values)?) {
                found[*at] = row.map(|row| with_state(row, &writes[*at]));
            }
        }
        let (now, server) = moment.ok_or(Unreadable("it is empty"))?;
        Ok(Answer { now, server, rows: found })
    }

    async fn sessions(&self, clocks: Clocks) -> Result<Answer<Vec<Row>>, BackendError> {
        self.walk("sessions", clocks, Vec::new(), usize::MAX, &[]).await
    }

    async fn list(
        &self,
        clocks: Clocks,
        alive: &[RecordId],
        after: Option<(Timestamp, RecordId)>,
        limit: usize,
    ) -> Result<Answer<Vec<Row>>, BackendError> {
        let after = after.map_or(Vec::new(), |(began, id)| [number::time(began).as_bytes(), id.as_bytes()].concat());
        self.walk("list", clocks, after, limit, alive).await
    }

    async fn scan(
        &self,
        clocks: Clocks,
        after: Option<RecordId>,
        limit: usize,
    ) -> Result<Answer<Vec<Row>>, BackendError> {
        let after = after.map_or(Vec::new(), |id| id.as_bytes().to_vec());
        self.walk("scan", clocks, after, limit, &[]).await
    }

    async fn delete_expired(&self, clocks: Clocks, limit: usize) -> Result<usize, BackendError> {
        let mut deleted = 0;
        while deleted < limit {
            let slice = WALKED.min(limit - deleted);
            let mut call = self.database.call(Sort::End, "sweep", clocks);
            call.arguments([slice.to_string().into_bytes()]);
            let Answered { values, .. } = self.database.ask(call, Haste::Bytes(0)).await?;
            let [looked_at, gone] = numbers(&values).ok_or(Unreadable("it has no count"))?;
            deleted += gone;
            if looked_at < slice {
                break;
            }
        }
        Ok(deleted)
    }

    async fn adopt(&self, clocks: Clocks, rows: &[Row]) -> Result<Answer<Vec<RecordId>>, BackendError> {
        let mut written = Vec::new();
        let mut moment = self.database.ask(self.database.call(Sort::Read, "get", clocks), Haste::Bytes(0)).await?;
        // One after the other: a call that is sent again would not say any more what the first one wrote.
        for part in rows.chunks(ROWS) {
            let mut call = self.database.call(Sort::End, "adopt", clocks);
            for row in part {
                call.key(self.database.keys.row(&row.id));
                call.arguments(adopted(row)?);
            }
            let bytes = part.iter().map(|row| row.state.len()).sum();
            moment = self.database.ask(call, Haste::Bytes(bytes)).await?;
            let is_written = moment.values.iter().map(|value| matches!(value, Value::Int(1)));
            written.extend(part.iter().zip(is_written).filter(|(_, is)| *is).map(|(row, _)| row.id));
        }
        Ok(Answer { now: moment.now, server: moment.server, rows: written })
    }

    fn changes(&self) -> BoxStream<'static, RecordId> {
        self.changes.stream()
    }

    async fn guarantee(&self) -> Result<Guarantee, BackendError> {
        let setup = Setup::ask(&self.database).await?;
        self.database.fill.note(setup.limit(self.database.durability, self.accepted));
        Ok(setup.guarantee(self.database.durability))
    }

    /// As of the last refusal for lack of memory, or the last [`guarantee`](Self::guarantee).
    fn full(&self) -> Option<&'static str> {
        self.database.fill.reached()
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
        mut after: Vec<u8>,
        limit: usize,
        alive: &[RecordId],
    ) -> Result<Answer<Vec<Row>>, BackendError> {
        let mut found = Vec::new();
        loop {
            let mut call = self.database.call(Sort::Read, operation, clocks);
            let counts = [limit - found.len(), WALKED].map(|count| count.to_string().into_bytes());
            call.arguments([after].into_iter().chain(counts));
            call.arguments(alive.iter().map(|id| id.as_bytes().to_vec()));
            let Answered { now, server, values } = self.database.ask(call, Haste::Patient).await?;
            let mut values = values.into_iter();
            let Some(Value::BulkString(next)) = values.next() else { return Err(Unreadable("it has no place").into()) };
            for value in values {
                found.push(listed(value)?);
            }
            if next.is_empty() || found.len() >= limit {
                found.truncate(limit);
                return Ok(Answer { now, server, rows: found });
            }
            after = next;
        }
    }
}

/// Returns the row, with the state of the write if that has made it: it was not sent back.
fn with_state(row: Row, write: &Write) -> Row {
    if row.token == write.token { Row { state: write.state.clone(), ..row } } else { row }
}

/// The rows of ids, in their order.
fn rows(ids: impl ExactSizeIterator<Item = RecordId>, values: Vec<Value>) -> Result<Vec<Option<Row>>, Unreadable> {
    if values.len() != ids.len() {
        return Err(Unreadable("it does not have a row for each id"));
    }
    ids.zip(values).map(|(id, value)| row(id, value)).collect()
}

fn numbers<const N: usize>(values: &[Value]) -> Option<[usize; N]> {
    let number = |value: &Value| if let Value::Int(number) = value { usize::try_from(*number).ok() } else { None };
    values.iter().map(number).collect::<Option<Vec<_>>>()?.try_into().ok()
}

/// The answers of calls that belong to one put. If none was done, the error of the first. If some were, those that were
/// refused for lack of memory are `None`, and any other error makes the put uncertain.
fn together(outcomes: Vec<Outcome>) -> Result<Vec<Option<Answered>>, BackendError> {
    let is_done = outcomes.iter().any(Result::is_ok);
    let each = outcomes.into_iter().map(|outcome| match outcome {
        Ok(answered) => Ok(Some(answered)),
        Err(BackendError::Full(_)) if is_done => Ok(None),
        Err(error) if is_done => Err(BackendError::Uncertain(Box::new(error))),
        Err(error) => Err(error),
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use tower_idempotency_shared::ServerId;

    use super::*;
    use crate::error::nothing;

    fn done() -> Outcome {
        Ok(Answered { now: Timestamp::from_millis(1), server: ServerId(1), values: Vec::new() })
    }

    #[test]
    fn a_put_of_which_a_part_was_done_is_never_nothing() {
        let full = || Err(BackendError::Full("room"));
        assert!(matches!(together(vec![full(), done()]).as_deref(), Ok([None, Some(_)])));
        assert!(matches!(together(vec![full(), full()]), Err(BackendError::Full("room"))));
        assert!(matches!(together(vec![Err(nothing("no")), done()]), Err(BackendError::Uncertain(_))));
        assert!(matches!(together(vec![done(), Err(nothing("no"))]), Err(BackendError::Uncertain(_))));
        assert!(matches!(together(vec![Err(nothing("no"))]), Err(BackendError::Nothing(_))));
    }
}
