//! Completes a handler's run in a transaction of the application.

use std::future::Future;

use bytes::Bytes;
use http::Response;

use super::committed::Committed;
use super::context::IdempotencyContext;
use crate::store::shared::{RecordInTransaction, RunRecord, SharedStore};
use crate::store::{CommitError, TransactionError};

impl IdempotencyContext {
    /// Writes the record of the handler's answer in a transaction of the application. The application commits it, and
    /// with it the handler's effect. If the transaction is a closure, the backend has committed it when this returns.
    /// With [`Rerun`](crate::OnInterrupted::Rerun) the effect takes place exactly once: the database has both or
    /// neither, whatever dies meanwhile.
    ///
    /// Whatever the handler returns afterwards, the transaction decides. If it was committed, the client gets this
    /// answer, as it was recorded: headers that are not [kept](crate::server::KeptHeaders) are not in the first answer
    /// either. If it was not, the client gets 503 and the key is free under `Rerun`; under every other policy the run
    /// counts as interrupted, because its other effects are unknown. So a refusal that is to be recorded, such as a
    /// declined card, needs a transaction too.
    ///
    /// Call this last, just before the commit: while the transaction is open, it has the record locked. A handler whose
    /// transaction has failed, such as by a serialization failure, may try another one. The transaction may have any
    /// isolation level, and is the outermost one: a savepoint, or a nested transaction, is refused. The answer's body
    /// is not longer than [`max_response_body`](crate::IdempotencyLayer::max_response_body).
    ///
    /// The type of a transaction depends on the database: for PostgreSQL it is a reference to `tokio-postgres`'s, and
    /// [`record_for`](Self::record_for) is for other clients. [`guide::exactly_once`](mod@crate::guide::exactly_once)
    /// has an example of each.
    ///
    /// # Errors
    /// [`CommitError`]. The whole transaction has to be rolled back; dropping the outermost one usually does so.
    ///
    /// # Cancel safety
    /// The transaction decides from when this method is *called*. If the future is dropped, the record may be written.
    /// It takes effect only if the transaction is committed.
    pub fn complete_in<B: RecordInTransaction>(
        &self,
        store: &SharedStore<B>,
        transaction: B::Transaction<'_>,
        answer: &Response<Bytes>,
    ) -> impl Future<Output = Result<Committed, CommitError<B::Error>>> + Send {
        let outcome = self.outcome_of(answer);
        // `RunContext::complete_in` binds the run to the transaction here, before the future is polled.
        let written = outcome.map(|outcome| (self.run.complete_in(store, transaction, outcome.clone()), outcome));
        async move {
            let (written, outcome) = written?;
            written.await?;
            Ok(Committed { outcome })
        }
    }

    /// Returns the record of the handler's answer, for a transaction that the handler gives to the database itself, and
    /// what the handler returns after the commit. From now on the transaction decides what the client gets: see
    /// [`complete_in`](Self::complete_in).
    ///
    /// # Errors
    /// [`CommitError::Unprotected`], [`CommitError::Foreign`], [`CommitError::Over`], [`CommitError::Superseded`], and
    /// [`CommitError::Refused`] if the answer is too long. What the handler returns counts then.
    pub fn record_for<B: RecordInTransaction>(
        &self,
        store: &SharedStore<B>,
        answer: &Response<Bytes>,
    ) -> Result<(RunRecord, Committed), CommitError<B::Error>> {
        let outcome = self.outcome_of(answer)?;
        let record = self.run.record_for(store, outcome.clone())?;
        Ok((record, Committed { outcome }))
    }

    /// Encodes the answer for its record. It is refused if its body is longer than `max_response_body`.
    fn outcome_of<E>(&self, answer: &Response<Bytes>) -> Result<Bytes, CommitError<E>> {
        self.recorder.record(answer).ok_or(CommitError::Refused(TransactionError::Unrecordable))
    }
}
