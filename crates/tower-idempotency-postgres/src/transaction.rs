//! The record of a run, for a transaction of the application.

use std::fmt;

use tokio_postgres::Transaction;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::PostgresBackend;
use super::wire::types::Millis;
use super::wire::write::Parameters;
use tower_idempotency::RecordId;
use tower_idempotency::store::{CommitError, TransactionError};
use tower_idempotency_shared::for_backends::LARGEST;
use tower_idempotency_shared::{RecordByStatement, RecordInTransaction, RunRecord};

/// The query that writes the record of a run, for a transaction of any client: see [`PostgresBackend::query`].
///
/// The transaction runs [`sql`](Self::sql), a query with one parameter of type `bytea`, which is
/// [`bytes`](Self::bytes). It fails with SQLSTATE [`SUPERSEDED`](Self::SUPERSEDED) if the operation is not this run's
/// any more, and with [`NESTED`](Self::NESTED) within a savepoint.
#[derive(Clone)]
#[must_use = "the transaction has to run it"]
pub struct TransactionRecord {
    sql: &'static str,
    bytes: Vec<u8>,
}

impl TransactionRecord {
    /// The SQLSTATE of a transaction that comes too late: another process has taken the operation over, or it was
    /// settled.
    ///
    /// Roll the whole transaction back: nothing of it may take effect. A program that catches this error in a savepoint
    /// and commits what came before it makes a second effect, which no database can prevent. Such a program fails with
    /// [`NESTED`](Self::NESTED) at its first request.
    pub const SUPERSEDED: &'static str = "TI001";

    /// The SQLSTATE of every call within a savepoint, or within a block of PL/pgSQL with an `EXCEPTION` clause, even if
    /// the savepoint would be released. After a rollback to the savepoint, the effects before it would be committed
    /// without their record, and a retry would run again. Clients such as sqlx and diesel make a savepoint of each
    /// nested transaction.
    ///
    /// Roll the whole transaction back, and run the query in the outermost transaction. A program that catches this
    /// error and commits all the same makes one effect with each attempt.
    pub const NESTED: &'static str = "TI002";

    /// Returns the query. It is the same for every run of every store in a schema.
    #[must_use]
    pub fn sql(&self) -> &'static str {
        self.sql
    }

    /// Returns the query's parameter, of type `bytea`.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for TransactionRecord {
    /// Leaves out the bytes, which hold the answer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionRecord").field("sql", &self.sql).finish_non_exhaustive()
    }
}

impl PostgresBackend {
    /// Returns the query that writes `record`, for a transaction of a client other than `tokio-postgres`.
    ///
    /// [`complete_with`](tower_idempotency_shared::SharedStore::complete_with) runs it in one call. A client that
    /// blocks, such as Diesel, has these lines:
    ///
    /// ```rust,ignore
    /// let (record, committed) = store.record_for(&context, answer)?;
    /// let record = store.backend().query(&record)?;
    /// sql_query(record.sql()).bind::<Binary, _>(record.bytes()).execute(connection)?;
    /// ```
    ///
    /// [The examples](https://github.com/tower-idempotency/tower-idempotency/tree/main/examples/sql_clients/src) have
    /// whole transactions.
    ///
    /// # Errors
    /// [`TransactionError::TooLarge`]. The transaction has to be rolled back.
    pub fn query(&self, record: &RunRecord) -> Result<TransactionRecord, TransactionError> {
        let (write, namespace) = (record.write(), self.namespace.as_bytes());
        let parameters = Parameters::of(write);
        let Parameters { id, token, expires, state, .. } = parameters.map_err(|_| TransactionError::TooLarge {
            what: "record",
            bytes: write.state.len(),
            limit: LARGEST,
        })?;
        // `record_run_1` in `schema.sql` reads these bytes: 76 bytes of numbers and ids, the namespace, the state.
        let mut bytes = Vec::with_capacity(76 + namespace.len() + state.len());
        bytes.extend_from_slice(&record.fence().0.to_be_bytes());
        // A record that completes a run always has an expiry.
        bytes.extend_from_slice(&expires.map_or(0, |Millis(millis)| millis).to_be_bytes());
        bytes.extend_from_slice(&record.clocks().latest.as_millis().to_be_bytes());
        bytes.extend_from_slice(&token.0.0);
        bytes.extend_from_slice(id);
        bytes.extend_from_slice(&u32::try_from(namespace.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(namespace);
        bytes.extend_from_slice(state);
        Ok(TransactionRecord { sql: self.pool.connector.queries.record, bytes })
    }
}

impl RecordInTransaction for PostgresBackend {
    type Transaction<'t> = &'t Transaction<'t>;
    type Error = tokio_postgres::Error;

    async fn write_in(
        &self,
        transaction: Self::Transaction<'_>,
        record: RunRecord,
    ) -> Result<(), CommitError<Self::Error>> {
        let record = self.query(&record)?;
        let written = transaction.query_typed(record.sql(), &[(&record.bytes(), Type::BYTEA)]).await;
        written.map(drop).map_err(|error| match error.code().map(SqlState::code) {
            Some(TransactionRecord::SUPERSEDED) => CommitError::Superseded,
            Some(TransactionRecord::NESTED) => CommitError::Nested,
            // Another error of the database, or of the connection to it.
            _ => CommitError::Aborted(error),
        })
    }

    fn committed(&self, id: RecordId) {
        self.notifier.notify(id);
    }
}

impl RecordByStatement for PostgresBackend {
    fn statement(&self, record: &RunRecord) -> Result<(&'static str, Vec<u8>), TransactionError> {
        self.query(record).map(|TransactionRecord { sql, bytes }| (sql, bytes))
    }
}
