//! The record of a run, for a transaction of the application.

use std::fmt;
use std::sync::Arc;

use super::PostgresStore;
use super::write::Parameters;
use crate::clock::Timestamp;
use crate::record::{Completion, Fence};
use crate::store::shared::{BackendError, Settling, Write};

/// The record of a run, for a transaction of any client: see
/// [`IdempotencyContext::record_for`](crate::IdempotencyContext::record_for).
///
/// The transaction runs [`sql`](Self::sql), a query with one parameter of type `bytea`, which is
/// [`bytes`](Self::bytes). It fails with SQLSTATE [`SUPERSEDED`](Self::SUPERSEDED) if the operation is not this run's
/// any more, and with [`NESTED`](Self::NESTED) within a savepoint.
#[derive(Clone)]
#[must_use = "the transaction has to run it"]
pub struct TransactionRecord {
    sql: Arc<str>,
    bytes: Vec<u8>,
}

impl TransactionRecord {
    /// The SQLSTATE of a transaction that comes too late: another process has taken the operation over, or somebody has
    /// settled it.
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

    /// Returns the query. It is the same for every run of a store.
    #[must_use]
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// Returns the query's parameter, of type `bytea`.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn new(store: &PostgresStore, fence: Fence, write: &Write, latest: Timestamp) -> Result<Self, BackendError> {
        let backend = store.backend();
        let namespace = backend.namespace.as_bytes();
        let Parameters { id, token, expires, state, .. } = Parameters::of(write)?;
        let mut bytes = Vec::with_capacity(76 + namespace.len() + state.len());
        bytes.extend_from_slice(&fence.0.to_be_bytes());
        bytes.extend_from_slice(&expires.unwrap_or_default().to_be_bytes());
        bytes.extend_from_slice(&latest.as_millis().to_be_bytes());
        bytes.extend_from_slice(&token.0.0);
        bytes.extend_from_slice(id);
        bytes.extend_from_slice(&u32::try_from(namespace.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(namespace);
        bytes.extend_from_slice(state);
        Ok(Self { sql: Arc::clone(&backend.pool.connector().queries.complete_in), bytes })
    }
}

impl fmt::Debug for TransactionRecord {
    /// Leaves out the bytes, which hold the answer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionRecord").field("sql", &self.sql).finish_non_exhaustive()
    }
}

/// Why a run's record is not in the application's transaction. Roll the whole transaction back: nothing was done then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompleteError {
    /// The run is not protected by a store: `fail_open` let it go ahead.
    #[error("the run goes ahead without a store, and has no record to complete")]
    Unprotected,
    /// The record of the run is kept in another store.
    #[error("the run belongs to another store; complete it in the store of its layer")]
    Foreign,
    /// The run is over: it was settled without this transaction.
    #[error("this run is over; complete it before the handler answers")]
    Over,
    /// Another process has taken the operation over, or somebody has settled it, or a transaction of this run was
    /// committed already.
    #[error("the operation is not this run's any more, or it is completed already")]
    Superseded,
    /// The call came within a savepoint: see [`TransactionRecord::NESTED`]. The program is at fault.
    #[error(
        "the record was to be written within a savepoint; write it in the outermost transaction, and roll that back now"
    )]
    Nested,
    /// The outcome can't be recorded.
    #[error("the outcome can't be recorded: {0}")]
    Unrecordable(String),
    /// The database refused, or can't be reached.
    #[error("the transaction failed")]
    Database(#[source] tokio_postgres::Error),
}

impl PostgresStore {
    /// Returns the record of a run, and what finds out whether it was committed.
    pub(crate) fn record_apart(
        &self,
        completion: Completion,
        is_free: bool,
    ) -> Result<(TransactionRecord, Settling<super::PostgresBackend>), CompleteError> {
        let fence = completion.hold.fence;
        let (write, latest, settling) = self.complete_apart(completion, is_free).ok_or(CompleteError::Superseded)?;
        let record = TransactionRecord::new(self, fence, &write, latest);
        Ok((record.map_err(|error| CompleteError::Unrecordable(error.to_string()))?, settling))
    }
}
