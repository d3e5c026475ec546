//! The calls of [`Backend`], whose documentation says what each does: `get` for reads, `put` for claims and ends alike.
//! A call about rows brings the clocks of this process: rows are judged by the earliest of them and the database's, and
//! stamped by the latest.

use std::fmt;
use std::sync::Arc;

use futures_util::future::join3;
use futures_util::stream::BoxStream;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::connection::connect::Connection;
use super::connection::pool::{Pool, Taken};
use super::guarantee::{Setup, guarantee};
use super::limits::{Counted, Limits};
use super::notifications::listen::ChangeFeed;
use super::notifications::notify::Notifier;
use super::queries::Queries;
use super::wire::types::Time;
use super::wire::write::{Parameters, adopted, columns, together};
use tower_idempotency::RecordId;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::store::Gauges;
use tower_idempotency_shared::for_backends::{Task, millis};
use tower_idempotency_shared::{Answer, Backend, BackendError, Clocks, GRACE, Guarantee, Kind, Row, Write};

/// A PostgreSQL database, 13 or later.
///
/// Its table must be there: [`PostgresBackendBuilder::migrate`](super::PostgresBackendBuilder::migrate) makes it.
pub struct PostgresBackend {
    pub(super) pool: Pool,
    pub(super) namespace: String,
    /// The fill level of the table. `guarantee` updates it, and `full` reads it.
    pub(super) limits: Limits,
    /// The queue of notifications to other processes, this one included, and what was received of them.
    pub(super) notifier: Notifier,
    pub(super) changes: Arc<ChangeFeed>,
    /// The tasks that send and receive notifications. They end with the backend.
    pub(super) _tasks: [Task; 2],
}

impl fmt::Debug for PostgresBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBackend").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Backend for PostgresBackend {
    const NAME: &'static str = "postgres";

    async fn get(&self, clocks: Clocks, ids: &[RecordId]) -> Result<Answer<Vec<Option<Row>>>, BackendError> {
        let bytes: Vec<&[u8]> = ids.iter().map(|id| id.as_bytes().as_slice()).collect();
        let connection = self.pool.take_to_read().await?;
        let prepared = connection.prepared.as_ref().map(|prepared| &prepared.get);
        let query = &self.pool.connector.queries.get;
        let parameters: [&(dyn ToSql + Sync); 3] = [&self.namespace, &bytes, &Time(clocks.earliest)];
        let found = query.ask(&connection.client, prepared, &parameters);
        // A row alone may be a large one.
        let found = if ids.len() == 1 { patiently(&connection.client, found).await } else { found.await };
        let mut found = connection.rows(found)?;
        // Without ids there is a row with the time alone.
        found.rows.truncate(ids.len());
        Ok(found)
    }

    async fn put(&self, clocks: Clocks, writes: &[Write]) -> Result<Answer<Vec<Option<Row>>>, BackendError> {
        if writes.is_empty() {
            // A call without writes asks for the time.
            return self.get(clocks, &[]).await;
        }
        let (namespace, times) = (&self.namespace, [Time(clocks.earliest), Time(clocks.latest)]);
        let queries = &self.pool.connector.queries;
        let mut answer = if let [write] = writes {
            let parameters = Parameters::of(write)?;
            let connection = self.connection_for(writes).await?;
            let asked = put_alone(queries, &connection, &parameters, namespace, &times).await;
            connection.rows(asked)?
        } else {
            let columns = columns(writes)?;
            let connection = self.connection_for(writes).await?;
            let prepared = connection.prepared.as_ref().map(|prepared| &prepared.put);
            let asked = queries.put.ask(&connection.client, prepared, &together(namespace, &columns, &times)).await;
            connection.rows(asked)?
        };
        for (write, row) in writes.iter().zip(&mut answer.rows) {
            if let Some(done) = row.as_mut().filter(|row| row.token == write.token) {
                // It was not sent back.
                done.state = write.state.clone();
            }
        }
        self.notify(writes, &answer.rows);
        Ok(answer)
    }

    async fn sessions(&self, clocks: Clocks) -> Result<Answer<Vec<Row>>, BackendError> {
        let connection = self.pool.take().await?;
        let query = &self.pool.connector.queries.sessions;
        let found = query.ask(&connection.client, None, &[&self.namespace, &Time(clocks.earliest)]).await;
        Ok(there(connection.rows(found)?))
    }

    async fn list(
        &self,
        clocks: Clocks,
        alive: &[RecordId],
        after: Option<(Timestamp, RecordId)>,
        limit: usize,
    ) -> Result<Answer<Vec<Row>>, BackendError> {
        // No row is at the epoch, or before it.
        let (began, id) = match &after {
            Some((began, id)) => (*began, id.as_bytes().as_slice()),
            None => (Timestamp::from_millis(0), [].as_slice()),
        };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let alive: Vec<&[u8]> = alive.iter().map(|id| id.as_bytes().as_slice()).collect();
        let connection = self.pool.take_to_read().await?;
        let query = &self.pool.connector.queries.list;
        let (began, earliest) = (Time(began), Time(clocks.earliest));
        let found =
            query.ask(&connection.client, None, &[&self.namespace, &began, &id, &limit, &alive, &earliest]).await;
        Ok(there(connection.rows(found)?))
    }

    async fn scan(
        &self,
        clocks: Clocks,
        after: Option<RecordId>,
        limit: usize,
    ) -> Result<Answer<Vec<Row>>, BackendError> {
        let after = after.as_ref().map_or([].as_slice(), |id| id.as_bytes().as_slice());
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let connection = self.pool.take_to_read().await?;
        let query = &self.pool.connector.queries.scan;
        let (earliest, client) = (Time(clocks.earliest), &connection.client);
        let parameters: [&(dyn ToSql + Sync); 4] = [&self.namespace, &after, &limit, &earliest];
        let found = patiently(client, query.ask(client, None, &parameters)).await;
        Ok(there(connection.rows(found)?))
    }

    async fn delete_expired(&self, clocks: Clocks, limit: usize) -> Result<usize, BackendError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let connection = self.pool.take().await?;
        let query = &self.pool.connector.queries.delete_expired;
        let deleted = query
            .ask(&connection.client, None, &[&self.namespace, &millis(GRACE), &limit, &Time(clocks.earliest)])
            .await;
        let deleted = deleted.and_then(|rows| rows.first().map_or(Ok(0), |row| row.try_get::<_, i64>(0)));
        Ok(usize::try_from(connection.done(deleted)?).unwrap_or(0))
    }

    async fn adopt(&self, clocks: Clocks, rows: &[Row]) -> Result<Answer<Vec<RecordId>>, BackendError> {
        let (columns, earliest) = (adopted(rows)?, [Time(clocks.earliest)]);
        let connection = self.pool.take_to_put().await?;
        let query = &self.pool.connector.queries.adopt;
        let written = query.ask(&connection.client, None, &together(&self.namespace, &columns, &earliest)).await;
        let Answer { now, server, rows } = there(connection.rows(written)?);
        Ok(Answer { now, server, rows: rows.into_iter().map(|row| row.id).collect() })
    }

    fn changes(&self) -> BoxStream<'static, RecordId> {
        self.changes.heard.stream()
    }

    async fn guarantee(&self) -> Result<Guarantee, BackendError> {
        let connection = self.pool.take().await?;
        let asked = self.pool.connector.queries.setup.ask(&connection.client, None, &[]).await;
        // A query without a table has one row.
        let setup = connection.done(asked.and_then(|rows| Setup::read(&rows[0])))?;
        let connection = self.pool.take().await?;
        let query = &self.pool.connector.queries.counted;
        let counted = query.ask(&connection.client, None, &[&self.pool.connector.settings.schema.to_string()]).await;
        // Without a table there is no row, and the last count remains.
        let counted = counted.and_then(|rows| rows.first().map(Counted::read).transpose());
        if let Some(counted) = connection.done(counted)? {
            self.limits.note(&counted);
        }
        Ok(guarantee(&setup, self.changes.arrival()))
    }

    /// As of the last [`guarantee`](Self::guarantee).
    fn full(&self) -> Option<&'static str> {
        self.limits.reached()
    }

    fn gauges(&self) -> Gauges {
        let mut gauges = Gauges::default();
        (gauges.records, gauges.bytes) = self.limits.last().unzip();
        gauges.connections = Some(self.pool.in_use() as u64);
        gauges
    }
}

impl PostgresBackend {
    /// The connection for a call with these writes. A renewal of the session does not wait for one that large writes
    /// have.
    async fn connection_for(&self, writes: &[Write]) -> Result<Taken<'_>, BackendError> {
        // A write of a session is urgent: a renewal that is late costs the process its lease.
        let has_renewal = writes.iter().any(|write| write.kind == Kind::Session);
        if has_renewal { self.pool.take_to_renew().await } else { self.pool.take_to_put().await }
    }

    /// Announces which of the writes were done, if another process may wait for them: none waits for a run to begin, or
    /// for a session.
    fn notify(&self, writes: &[Write], rows: &[Option<Row>]) {
        for (write, row) in writes.iter().zip(rows) {
            let done = row.as_ref().is_some_and(|row| row.token == write.token);
            if done && !matches!(write.kind, Kind::Running | Kind::Session) {
                self.notifier.notify(write.id);
            }
        }
    }
}

/// Reads, in one round trip, what may take long on its way. With the usual time limit, the server cancels a statement
/// whose answer takes longer than that on a slow link.
async fn patiently<T>(
    client: &Client,
    reading: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, tokio_postgres::Error> {
    // They are sent in this order.
    let begin = client.batch_execute("BEGIN READ ONLY; SET LOCAL statement_timeout = '5min'");
    let (begun, read, ended) = join3(begin, reading, client.batch_execute("COMMIT")).await;
    begun?;
    let read = read?;
    ended.map(|()| read)
}

/// Returns the rows of an answer: without any, it has the time alone.
fn there(Answer { now, server, rows }: Answer<Vec<Option<Row>>>) -> Answer<Vec<Row>> {
    Answer { now, server, rows: rows.into_iter().flatten().collect() }
}

/// Sends one write: by a plain statement first, where statements are prepared and there is one for it.
async fn put_alone(
    queries: &Queries,
    connection: &Connection,
    parameters: &Parameters<'_>,
    namespace: &String,
    clocks: &[Time; 2],
) -> Result<Vec<tokio_postgres::Row>, tokio_postgres::Error> {
    let Connection { client, prepared, .. } = connection;
    if let Some(prepared) = prepared {
        let rows = if let Some(claim) = parameters.claim(namespace, clocks) {
            client.query(&prepared.insert, &claim).await?
        } else if let Some(outcome) = parameters.outcome(namespace, clocks) {
            client.query(&prepared.update, &outcome).await?
        } else {
            Vec::new()
        };
        // No row: the plain statement could do nothing, and `put_one_1` finds out why.
        if !rows.is_empty() {
            return Ok(rows);
        }
    }
    let prepared = prepared.as_ref().map(|prepared| &prepared.put_one);
    queries.put_one.ask(client, prepared, &parameters.alone(namespace, clocks)).await
}
