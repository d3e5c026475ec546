//! Effect and record in one transaction of the application.
//!
//! The application begins the transaction and commits it. Once the run is over, the store checks whether the record is
//! in the database. That decides how the run has ended.

use std::future::{Future, ready};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::Either;
use tokio::time::timeout;
use tower_idempotency::engine::{Completable, IntoOutcome};
use tower_idempotency::internals::{Commitment, End, PendingCommit, Records as _, once_a_minute};
use tower_idempotency::store::CommitError;

use crate::protocol::transaction::PendingTransaction;
use crate::run_record::{RecordByStatement, RecordInTransaction, RunRecord};
use crate::store::SharedStore;

/// The time that a run that is over waits to learn whether its transaction was committed. The store goes on by itself.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(5);

impl<B: RecordInTransaction> SharedStore<B> {
    /// Writes the record of a run's outcome in a transaction of the application. `run` is the context of the handler or
    /// of the consumer. The application commits the transaction, and with it the effect. If the transaction is a
    /// closure, the backend has committed it when this returns. With [`Rerun`] the effect takes place exactly once: the
    /// database has both or neither, whatever dies meanwhile.
    ///
    /// Whatever the run returns afterwards, the transaction decides. If it was committed, this outcome counts. A client
    /// gets the answer as it was recorded: headers that the layer's option `kept_headers` leaves out are not in the
    /// first answer either. If it was not, the key is free under `Rerun`, and a client gets 503; under every other
    /// policy the run counts as interrupted, because its other effects are unknown. So a refusal that is to be
    /// recorded, such as a declined card, needs a transaction too.
    ///
    /// Call this last, just before the commit: while the transaction is open, it has the record locked. A run whose
    /// transaction has failed, such as by a serialization failure, may try another one, with an outcome of its own. The
    /// transaction may have any isolation level, and is the outermost one: a savepoint, or a nested transaction, is
    /// refused. An HTTP answer's body is not longer than `max_response_body`.
    ///
    /// The type of a transaction depends on the database: for PostgreSQL it is a reference to `tokio-postgres`'s, and
    /// [`record_for`](Self::record_for) is for other clients.
    /// [`guide::exactly_once`](mod@tower_idempotency::guide::exactly_once) has an example of each.
    ///
    /// [`Rerun`]: tower_idempotency::OnInterrupted::Rerun
    ///
    /// # Errors
    /// [`CommitError`]. The whole transaction has to be rolled back; dropping the outermost one usually does so.
    ///
    /// # Cancel safety
    /// The transaction decides from when this method is *called*. If the future is dropped, the record may be written.
    /// It takes effect only if the transaction is committed.
    pub fn complete_in<R: Completable>(
        &self,
        run: &R,
        transaction: B::Transaction<'_>,
        outcome: R::Outcome,
    ) -> impl Future<Output = Result<R::Committed, CommitError<B::Error>>> + Send {
        // The run is bound to the transaction here, before the future is polled. A transaction of a client that blocks
        // may not be sent to other threads.
        match self.record_for(run, outcome) {
            // With Rust 1.90, an `async` block of the backend's future is not `Send`: rust-lang/rust#100013.
            Ok((record, committed)) => Either::Left(self.backend().write_in(transaction, record).map(|written| {
                written?;
                Ok(committed)
            })),
            Err(error) => Either::Right(ready(Err(error))),
        }
    }

    /// Returns the record of a run's outcome, for a transaction that the application gives to the database itself
    /// ([`RecordInTransaction::write_in`], or what the backend offers for other clients), and what the run returns
    /// after the commit. From now on the transaction decides how the run ends: see [`complete_in`](Self::complete_in).
    ///
    /// # Errors
    /// [`CommitError::FailOpen`], [`CommitError::Foreign`], [`CommitError::Over`], [`CommitError::Superseded`], and
    /// [`CommitError::Refused`] if an HTTP answer is too long, or JSON can't have the outcome. After an error, what the
    /// run returns counts.
    pub fn record_for<R: Completable>(
        &self,
        run: &R,
        outcome: R::Outcome,
    ) -> Result<(RunRecord, R::Committed), CommitError<B::Error>> {
        self.bound_record(run, outcome)
    }

    /// The same, for a transaction whose error is another client's.
    fn bound_record<R: Completable, E>(
        &self,
        run: &R,
        outcome: R::Outcome,
    ) -> Result<(RunRecord, R::Committed), CommitError<E>> {
        let (outcome, committed) = run.encoder()(outcome)?;
        let commitment = run.run().commitment().ok_or(CommitError::FailOpen)?;
        // Each opened store has its own slots, so this tells whether the run was claimed in another store.
        if !Arc::ptr_eq(&commitment.slots, self.slots()) {
            return Err(CommitError::Foreign);
        }
        let may_rerun = commitment.may_rerun;
        let completion = commitment.completion(outcome);
        if commitment.is_over() {
            return Err(CommitError::Over);
        }
        // This writes nothing. `transaction` finds out later whether the application has committed `record`.
        let (record, transaction) = self.complete_apart(completion, may_rerun).ok_or(CommitError::Superseded)?;
        match PendingCommit::begin(commitment) {
            Some(pending) => {
                let settled = settle(self.clone(), transaction, Arc::clone(commitment), pending);
                // The task lives in the store's runtime: it goes on if the run is dropped.
                self.runtime().spawn(settled);
            }
            // The run tries another transaction. The task of the first one finds out about both, by one token.
            None if commitment.is_sent() => {}
            None => return Err(CommitError::Over),
        }
        Ok((record, committed))
    }
}

impl<B: RecordByStatement> SharedStore<B> {
    /// Writes the record of a run's outcome in a transaction of any client: the end of a handler, in one call.
    /// `outcome` is the handler's answer, such as `Json(order)`, or a consumer's outcome. `execute` is given a
    /// statement and its one parameter, a byte string, and runs it in the transaction, which the application commits
    /// afterwards. Else as [`complete_in`](Self::complete_in).
    ///
    /// With sqlx:
    ///
    /// ```rust,ignore
    /// let committed = store
    ///     .complete_with(&context, answer, |sql, record| sqlx::query(sql).bind(record).execute(&mut *transaction))
    ///     .await?;
    /// transaction.commit().await?;
    /// Ok(committed)
    /// ```
    ///
    /// # Errors
    /// [`CommitError`], with the client's error in [`CommitError::Aborted`], also if its SQLSTATE says that the
    /// transaction comes too late or is a savepoint. The whole transaction has to be rolled back.
    ///
    /// # Cancel safety
    /// The transaction decides from when the answer's body was read. If the future is dropped, the record may be
    /// written. It takes effect only if the transaction is committed.
    pub fn complete_with<'r, R, F, T, E>(
        &'r self,
        run: &'r R,
        outcome: impl IntoOutcome<R> + 'r,
        execute: impl FnOnce(&'static str, Vec<u8>) -> F + Send + 'r,
    ) -> impl Future<Output = Result<R::Committed, CommitError<E>>> + Send + 'r
    where
        R: Completable + Sync,
        F: Future<Output = Result<T, E>> + Send + 'r,
        E: 'r,
    {
        // Boxed, because a future that has a `&'static str` in its type is not `Send` to the compiler everywhere.
        let outcome = outcome.into_outcome(run).boxed();
        async move {
            let (record, committed) = self.bound_record(run, outcome.await?)?;
            let (sql, record) = self.backend().statement(&record)?;
            execute(sql, record).await.map_err(CommitError::Aborted)?;
            Ok(committed)
        }
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
                commitment.slots.telemetry.lines.of("doubtful"),
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
