//! Effect and record in one transaction of the application: the functions that a run calls.
//!
//! The application begins the transaction and commits it. Once the run is over, the store checks whether the record is
//! in the database. That decides how the run has ended.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::time::timeout;

use crate::engine::commitment::{Commitment, PendingCommit};
use crate::engine::context::RunContext;
use crate::engine::once_context::{OnceContext, recorded};
use crate::slots::{End, once_a_minute};
use crate::store::shared::{PendingTransaction, RecordInTransaction, RunRecord, SharedStore};
use crate::store::{CommitError, Records as _};

/// The time that a run that is over waits to learn whether its transaction was committed. The store goes on by itself.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(5);

impl<T: Serialize> OnceContext<T> {
    /// Writes the record of the effect's outcome in a transaction of the application. The application commits it, and
    /// with it the effect. If the transaction is a closure, the backend has committed it when this returns. With
    /// [`Rerun`](crate::engine::OnInterrupted::Rerun) the effect takes place exactly once: the database has both or
    /// neither.
    ///
    /// Whatever the effect returns afterwards, the transaction decides. If it was committed, the message has this
    /// outcome. If it was not, the id is free under `Rerun`, and the run counts as interrupted under every other
    /// policy, because its other effects are unknown. Call this last, just before the commit: while the transaction is
    /// open, it has the record locked. A run whose transaction has failed may try another one.
    ///
    /// # Errors
    /// [`CommitError`]. The transaction has to be rolled back.
    ///
    /// # Cancel safety
    /// The run counts as one with a transaction when this is *called*. If the future is dropped, the record may be
    /// written. It takes effect only if the transaction is committed.
    pub fn complete_in<B: RecordInTransaction>(
        &self,
        store: &SharedStore<B>,
        transaction: B::Transaction<'_>,
        outcome: &T,
    ) -> impl Future<Output = Result<(), CommitError<B::Error>>> + Send {
        // The run is bound to the transaction here, before the future is polled.
        let written = recorded(outcome).map(|outcome| self.run.complete_in(store, transaction, outcome));
        async move { written?.await }
    }

    /// Returns the record of the effect's outcome, for a transaction that the application gives to the database itself:
    /// [`RecordInTransaction::write_in`], or what the backend offers for other clients. From now on the transaction
    /// decides how the run ends: see [`complete_in`](Self::complete_in).
    ///
    /// # Errors
    /// [`CommitError::Unprotected`], [`CommitError::Foreign`], [`CommitError::Over`], [`CommitError::Superseded`], and
    /// [`CommitError::Refused`] if JSON can't have the outcome. After an error, what the effect returns counts.
    pub fn record_for<B: RecordInTransaction>(
        &self,
        store: &SharedStore<B>,
        outcome: &T,
    ) -> Result<RunRecord, CommitError<B::Error>> {
        self.run.record_for(store, recorded(outcome)?)
    }
}

impl RunContext {
    /// Writes the record of the run's outcome in a transaction of the application: see [`OnceContext::complete_in`].
    pub(crate) fn complete_in<B: RecordInTransaction>(
        &self,
        store: &SharedStore<B>,
        transaction: B::Transaction<'_>,
        outcome: Bytes,
    ) -> impl Future<Output = Result<(), CommitError<B::Error>>> + Send {
        let record = self.record_for(store, outcome);
        // A transaction of a client that blocks may not be sent to other threads.
        let written = record.map(|record| store.backend().write_in(transaction, record));
        async move { written?.await }
    }

    /// Returns the record of the run's outcome: see [`OnceContext::record_for`].
    pub(crate) fn record_for<B: RecordInTransaction>(
        &self,
        store: &SharedStore<B>,
        outcome: Bytes,
    ) -> Result<RunRecord, CommitError<B::Error>> {
        let commitment = self.commitment().ok_or(CommitError::Unprotected)?;
        // Each opened store has its own slots, so this tells whether the run was claimed in another store.
        if !Arc::ptr_eq(&commitment.slots, store.slots()) {
            return Err(CommitError::Foreign);
        }
        let may_rerun = commitment.may_rerun;
        let completion = commitment.completion(outcome);
        if commitment.is_over() {
            return Err(CommitError::Over);
        }
        // This writes nothing. `transaction` finds out later whether the application has committed `record`.
        let (record, transaction) = store.complete_apart(completion, may_rerun).ok_or(CommitError::Superseded)?;
        match PendingCommit::begin(commitment) {
            Some(pending) => {
                let settled = settle(store.clone(), transaction, Arc::clone(commitment), pending);
                // The task lives in the store's runtime: it goes on if the run is dropped.
                store.runtime().spawn(settled);
            }
            // The run tries another transaction. The task of the first one finds out about both, by one token.
            None if commitment.is_sent() => {}
            None => return Err(CommitError::Over),
        }
        Ok(record)
    }
}

/// Finds out how the run's transaction ended, once the run is over.
async fn settle<B: RecordInTransaction>(
    store: SharedStore<B>,
    transaction: PendingTransaction<B>,
    commitment: Arc<Commitment>,
    pending: PendingCommit,
) {
    commitment.ended().await;
    let mut end = pin!(transaction.end());
    let end = match timeout(TRANSACTION_TIMEOUT, end.as_mut()).await {
        Ok(end) => end,
        Err(_) => {
            once_a_minute!(
                commitment.slots.tally.lines.doubtful,
                error,
                record_id = commitment.operation.id.short(),
                "it is not known whether a run's transaction was committed: the database does not answer, or the \
                 transaction is still open"
            );
            // The run is answered with a doubt now; this task goes on until the database answers.
            commitment.give_up();
            end.await
        }
    };
    if let End::Outcome(_) = end {
        // The backend may notify the processes that wait for this record.
        store.backend().committed(commitment.operation.id);
    }
    pending.answered(Some(end));
}
