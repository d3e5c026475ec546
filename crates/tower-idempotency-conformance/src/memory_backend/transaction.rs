//! A transaction of an application that writes the record of a run.

use tower_idempotency::store::CommitError;
use tower_idempotency_shared::{BackendError, RecordInTransaction, Row, RunRecord};

use super::backend::MemoryBackend;
use super::database::Lock;

/// A transaction of an application: [`MemoryBackend::transaction`]. It writes the record of a run and nothing else, and
/// is rolled back if it is dropped.
#[derive(Debug)]
#[must_use = "it is rolled back when it is dropped"]
pub struct MemoryTransaction {
    backend: MemoryBackend,
    written: Option<(Row, Lock)>,
}

impl MemoryBackend {
    /// Begins a transaction of an application. It has a connection of its own: no fault of this process's way to the
    /// database happens to it.
    pub fn transaction(&self) -> MemoryTransaction {
        MemoryTransaction { backend: self.clone(), written: None }
    }
}

impl MemoryTransaction {
    /// Commits it.
    ///
    /// # Errors
    /// [`BackendError::Nothing`] if the database is away, or if another server has taken the place of the one that had
    /// the transaction. [`BackendError::Uncertain`] if the standby has to get it first: see
    /// [`Replication::Awaited`](super::Replication::Awaited).
    pub fn commit(self) -> Result<(), BackendError> {
        let Self { backend, written } = self;
        written.map_or(Ok(()), |(row, lock)| backend.database().commit(backend.process(), row, lock))
    }
}

impl RecordInTransaction for MemoryBackend {
    type Transaction<'t> = &'t mut MemoryTransaction;
    type Error = BackendError;

    async fn write_in(
        &self,
        transaction: Self::Transaction<'_>,
        record: RunRecord,
    ) -> Result<(), CommitError<Self::Error>> {
        let written = self.database().write_in(self.key(record.id()), &record).map_err(CommitError::Aborted)?;
        transaction.written = Some(written.ok_or(CommitError::Superseded)?);
        Ok(())
    }
}
