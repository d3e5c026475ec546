//! SQLite behind [`Backend`]: an example of a backend over a database of your own.
//!
//! Run it with `cargo test --package custom-backend`. `tests/contract.rs` has a function that opens a file as two
//! processes do, and one line that makes a test of each rule of the contract.
//!
//! SQLite fits several processes on one machine that share a file, such as a service that is started anew while the old
//! one still runs, or workers next to a server. It does not fit more than one machine, because its locks do not work
//! over network file systems, nor many writes at once, because one writer at a time has the whole file.
//!
//! - **One step.** `BEGIN IMMEDIATE` takes the file's only lock for writing before anything is read. So a put may read
//!   a row, let [`Write::apply_to`] judge, and write the result. A read does so in a transaction: it sees one state.
//! - **Time.** A put reads the machine's clock while it holds the lock. [`Clocks::at`] combines it with the clocks of
//!   the process that calls.
//! - **Durable before it is answered.** `synchronous = FULL` syncs the log (WAL) at each commit. WAL lets others read
//!   while one writes.
//! - **No thread of the runtime waits for the disk.** A call waits for the connection as a future, and then takes it
//!   into `spawn_blocking`. If the call is dropped before that, it has done nothing; after that, the transaction goes
//!   on to its end. There is only one writer, so one connection is enough.
//! - **A namespace** is a file.
//! - **Exactly once.** A transaction is a closure. The backend runs it, writes the record after it, and commits both.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Result as Sqlite, TransactionBehavior, params};
use tokio::sync::Mutex;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::store::CommitError;
use tower_idempotency::{Fence, RecordId};
use tower_idempotency_shared::{
    Answer, Backend, BackendError, Clocks, GRACE, Guarantee, Kind, RecordInTransaction, Row, RunRecord, ServerId,
    Token, Write,
};

/// A handle to the records in a file. Clones share the connection.
#[derive(Debug, Clone)]
pub struct SqliteBackend {
    connection: Arc<Mutex<Connection>>,
}

/// The table. Times are milliseconds since the Unix epoch.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS idempotency (
        id BLOB PRIMARY KEY, token BLOB NOT NULL, fence INTEGER NOT NULL, kind INTEGER NOT NULL, session BLOB,
        until INTEGER, began INTEGER NOT NULL, since INTEGER NOT NULL, expires INTEGER NOT NULL, state BLOB NOT NULL);
    CREATE INDEX IF NOT EXISTS idempotency_open ON idempotency (began, id) WHERE kind IN (1, 2, 7);
    CREATE INDEX IF NOT EXISTS idempotency_sessions ON idempotency (id) WHERE kind = 6;
    CREATE INDEX IF NOT EXISTS idempotency_expires ON idempotency (expires);";

/// The id of the server, which never changes: no server restarts or takes over, so a row that was read stays.
const SERVER: ServerId = ServerId(0);

impl SqliteBackend {
    /// Opens the file, and creates it if it does not exist.
    ///
    /// # Errors
    /// The file can't be opened or written, or is no database.
    pub fn open(path: impl AsRef<Path>) -> Sqlite<Self> {
        let connection = Connection::open(path)?;
        // Another process may be writing for this long.
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)) })
    }

    /// Does `work` on a thread that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Sqlite<T> + Send + 'static,
    ) -> Result<T, BackendError> {
        let mut connection = Arc::clone(&self.connection).lock_owned().await;
        let done = tokio::task::spawn_blocking(move || work(&mut connection)).await;
        done.map_err(|error| BackendError::Uncertain(error.into()))?.map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::ReadOnly | ErrorCode::DiskFull) => {
                BackendError::Nothing(error.into())
            }
            Some(ErrorCode::TooBig) => BackendError::Never(error.into()),
            _ => BackendError::Uncertain(error.into()),
        })
    }
}

impl Backend for SqliteBackend {
    async fn get(&self, clocks: Clocks, ids: &[RecordId]) -> Result<Answer<Vec<Option<Row>>>, BackendError> {
        let ids = ids.to_vec();
        self.blocking(move |connection| read(&*connection.transaction()?, clocks, ids)).await
    }

    async fn put(&self, clocks: Clocks, writes: &[Write]) -> Result<Answer<Vec<Option<Row>>>, BackendError> {
        let writes = writes.to_vec();
        self.blocking(move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let moment = clocks.at(now());
            for write in &writes {
                if let Some(row) = write.apply_to(there(&transaction, write.id)?.as_ref(), moment) {
                    save(&transaction, &row)?;
                }
            }
            let answer = read(&transaction, clocks, writes.iter().map(|write| write.id))?;
            transaction.commit()?;
            Ok(answer)
        })
        .await
    }

    async fn sessions(&self, clocks: Clocks) -> Result<Answer<Vec<Row>>, BackendError> {
        self.blocking(move |connection| {
            let moment = clocks.at(now());
            let mut select = connection.prepare_cached("SELECT * FROM idempotency WHERE kind = 6 AND expires > ?1")?;
            let rows = select.query_map([number(moment.earliest)], row)?.collect::<Sqlite<_>>()?;
            Ok(Answer { now: moment.now, server: SERVER, rows })
        })
        .await
    }

    async fn list(
        &self,
        clocks: Clocks,
        alive: &[RecordId],
        after: Option<(Timestamp, RecordId)>,
        limit: usize,
    ) -> Result<Answer<Vec<Row>>, BackendError> {
        let alive = alive.to_vec();
        self.blocking(move |connection| {
            let moment = clocks.at(now());
            let (began, id) = after.map_or((-1, Vec::new()), |(began, id)| (number(began), id.as_bytes().to_vec()));
            let mut select = connection.prepare_cached(
                "SELECT * FROM idempotency
                WHERE kind IN (1, 2, 7) AND (began, id) > (?1, ?2) AND expires > ?3 ORDER BY began, id",
            )?;
            let rows = select.query_map(params![began, id, number(moment.earliest)], row)?;
            let listed = rows.filter(|row| row.as_ref().map_or(true, |row| row.is_listed(moment.earliest, &alive)));
            Ok(Answer { now: moment.now, server: SERVER, rows: listed.take(limit).collect::<Sqlite<_>>()? })
        })
        .await
    }

    async fn scan(
        &self,
        clocks: Clocks,
        after: Option<RecordId>,
        limit: usize,
    ) -> Result<Answer<Vec<Row>>, BackendError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.blocking(move |connection| {
            let moment = clocks.at(now());
            let mut select = connection.prepare_cached(
                "SELECT * FROM idempotency WHERE id > ?1 AND kind NOT IN (5, 6, 7) AND expires > ?2 ORDER BY id LIMIT ?3",
            )?;
            let after = after.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
            let rows = select.query_map(params![after, number(moment.earliest), limit], row)?;
            Ok(Answer { now: moment.now, server: SERVER, rows: rows.collect::<Sqlite<_>>()? })
        })
        .await
    }

    async fn delete_expired(&self, clocks: Clocks, limit: usize) -> Result<usize, BackendError> {
        let past = number(clocks.at(now()).earliest) - GRACE.as_millis() as i64;
        let delete = "DELETE FROM idempotency WHERE id IN (SELECT id FROM idempotency WHERE expires <= ?1 LIMIT ?2)";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.blocking(move |connection| connection.execute(delete, params![past, limit])).await
    }

    async fn guarantee(&self) -> Result<Guarantee, BackendError> {
        let query =
            "SELECT format('SQLite %s, journal_mode=%s, synchronous=%d', sqlite_version(), journal_mode, synchronous)
            FROM pragma_journal_mode, pragma_synchronous";
        let setup = self.blocking(move |connection| connection.query_row(query, [], |columns| columns.get(0))).await?;
        Ok(Guarantee { setup, loses: vec!["everything, if the disk is lost".to_owned()] })
    }
}

/// The effects of an operation. If they return an error, the transaction is rolled back.
pub type Effect = Box<dyn FnOnce(&rusqlite::Transaction<'_>) -> Sqlite<()> + Send>;

impl RecordInTransaction for SqliteBackend {
    type Transaction<'t> = Effect;
    type Error = BackendError;

    async fn write_in(
        &self,
        effect: Self::Transaction<'_>,
        record: RunRecord,
    ) -> Result<(), CommitError<BackendError>> {
        let committed = self.blocking(move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            effect(&transaction)?;
            let row = record.apply_to(there(&transaction, record.id())?.as_ref(), now());
            let Some(row) = row else { return Ok(false) };
            save(&transaction, &row)?;
            transaction.commit().map(|()| true)
        });
        if committed.await.map_err(CommitError::Aborted)? { Ok(()) } else { Err(CommitError::Superseded) }
    }
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

fn number(time: Timestamp) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Returns the rows, in the order of the ids.
fn read(
    connection: &Connection,
    clocks: Clocks,
    ids: impl IntoIterator<Item = RecordId>,
) -> Sqlite<Answer<Vec<Option<Row>>>> {
    let moment = clocks.at(now());
    let read = |id| there(connection, id).map(|row| row.filter(|row| !row.is_absent(moment.earliest)));
    Ok(Answer { now: moment.now, server: SERVER, rows: ids.into_iter().map(read).collect::<Sqlite<_>>()? })
}

/// Returns the row, expired or not.
fn there(connection: &Connection, id: RecordId) -> Sqlite<Option<Row>> {
    connection.prepare_cached("SELECT * FROM idempotency WHERE id = ?1")?.query_row([id.as_bytes()], row).optional()
}

fn save(connection: &Connection, row: &Row) -> Sqlite<usize> {
    let (id, session) = (row.id.as_bytes(), row.session.map(|id| *id.as_bytes()));
    let fence = i64::try_from(row.fence.0).unwrap_or(i64::MAX);
    let (until, began, since) = (row.until.map(number), number(row.began), number(row.since));
    let (kind, expires, state) = (row.kind.number(), number(row.expires), &row.state[..]);
    connection
        .prepare_cached("REPLACE INTO idempotency VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?
        .execute(params![id, row.token.0, fence, kind, session, until, began, since, expires, state])
}

fn row(columns: &rusqlite::Row<'_>) -> Sqlite<Row> {
    let time = |time: i64| Timestamp::from_millis(time.unsigned_abs());
    Ok(Row {
        id: RecordId::from_bytes(columns.get(0)?),
        token: Token(columns.get(1)?),
        fence: Fence(columns.get::<_, i64>(2)?.unsigned_abs()),
        kind: Kind::of(columns.get(3)?),
        session: columns.get::<_, Option<[u8; 32]>>(4)?.map(RecordId::from_bytes),
        until: columns.get::<_, Option<i64>>(5)?.map(time),
        began: time(columns.get(6)?),
        since: time(columns.get(7)?),
        expires: time(columns.get(8)?),
        state: columns.get::<_, Vec<u8>>(9)?.into(),
    })
}
