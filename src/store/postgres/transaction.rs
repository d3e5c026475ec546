//! The record of a run, for a transaction of the application.

use std::fmt;
use std::sync::Arc;

use super::PostgresStore;
use super::write::Parameters;
use crate::record::{Completion, Fence};
use crate::store::shared::{BackendError, Settling, Write};

/// The record of a run, for a transaction of any client: see
/// [`IdempotencyContext::record_for`](crate::IdempotencyContext::record_for).
///
/// The transaction runs [`sql`](Self::sql), a query with one parameter of type `bytea`, which is
/// [`bytes`](Self::bytes). It fails with SQLSTATE [`SUPERSEDED`](Self::SUPERSEDED) if the operation is not this run's
/// any more.
#[derive(Clone)]
#[must_use = "the transaction has to run it"]
pub struct TransactionRecord {
    sql: Arc<str>,
    bytes: Vec<u8>,
}

impl TransactionRecord {
    /// The SQLSTATE of a transaction that comes too late: another process has taken the operation over, or somebody has
    /// settled it. Nothing of the transaction may take effect.
    pub const SUPERSEDED: &'static str = "TI001";

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

    fn new(store: &PostgresStore, fence: Fence, write: &Write) -> Result<Self, BackendError> {
        let backend = store.backend();
        let namespace = backend.namespace.as_bytes();
        let Parameters { id, token, expires, state, .. } = Parameters::of(write)?;
        let mut bytes = Vec::with_capacity(68 + namespace.len() + state.len());
        bytes.extend_from_slice(&fence.0.to_be_bytes());
        bytes.extend_from_slice(&expires.unwrap_or_default().to_be_bytes());
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

/// Why a run's record is not in the application's transaction. Roll that back: nothing was done then.
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
        let (write, settling) = self.complete_apart(completion, is_free).ok_or(CompleteError::Superseded)?;
        let record = TransactionRecord::new(self, fence, &write);
        Ok((record.map_err(|error| CompleteError::Unrecordable(error.to_string()))?, settling))
    }
}
