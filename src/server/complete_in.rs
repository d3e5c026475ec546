//! Completes a handler's run in a transaction of PostgreSQL.

use bytes::Bytes;
use http::Response;
use tokio_postgres::Transaction;

use super::committed::Committed;
use super::context::IdempotencyContext;
use crate::store::postgres::{CompleteError, PostgresStore, TransactionRecord};

impl IdempotencyContext {
    /// Writes the record of the handler's answer in a transaction of the application. The application commits it, and
    /// with it the handler's effect. With [`Rerun`](crate::OnInterrupted::Rerun) the effect takes place exactly once:
    /// the database has both or neither, whatever dies meanwhile.
    ///
    /// Whatever the handler returns afterwards, the transaction decides. If it was committed, the client gets this
    /// answer, as it was recorded: headers that are not [kept](super::KeptHeaders) are not in the first answer either.
    /// If it was not, the client gets 503 and the key is free under `Rerun`; under every other policy the run counts as
    /// interrupted, because nobody knows what else it has done. So a refusal that is to be recorded, such as a declined
    /// card, needs a transaction too.
    ///
    /// Call this last, just before the commit: while the transaction is open, it has the record locked. A handler whose
    /// transaction has failed, such as by a serialization failure, may try another one. The transaction may have any
    /// isolation level, and is the outermost one: a savepoint, or a nested transaction, is refused. A commit that is
    /// answered before it is durable (`synchronous_commit` off) becomes one that is not. The answer's body is not
    /// longer than [`max_response_body`](crate::IdempotencyLayer::max_response_body).
    ///
    /// # Errors
    /// [`CompleteError`]. The whole transaction has to be rolled back; dropping the outermost one does so.
    ///
    /// # Cancel safety
    /// If the future is dropped, the record may be written. It takes effect only if the transaction is committed.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http::Response;
    /// use tower_idempotency::IdempotencyContext;
    /// use tower_idempotency::server::Committed;
    /// use tower_idempotency::store::postgres::{PostgresStore, tokio_postgres::Client};
    ///
    /// type Failure = Box<dyn std::error::Error + Send + Sync>;
    ///
    /// // With `OnInterrupted::Rerun` on the layer, and any client of the application's own.
    /// async fn charge(
    ///     context: IdempotencyContext,
    ///     store: PostgresStore,
    ///     client: &mut Client,
    /// ) -> Result<Committed, Failure> {
    ///     let transaction = client.transaction().await?;
    ///     transaction.execute("INSERT INTO charge (amount) VALUES (1000)", &[]).await?;
    ///     let answer = Response::new(Bytes::from("charged"));
    ///     let committed = context.complete_in(&store, &transaction, &answer).await?;
    ///     transaction.commit().await?;
    ///     Ok(committed)
    /// }
    /// ```
    pub async fn complete_in(
        &self,
        store: &PostgresStore,
        transaction: &Transaction<'_>,
        answer: &Response<Bytes>,
    ) -> Result<Committed, CompleteError> {
        let outcome = self.outcome_of(answer)?;
        self.run.complete_in(store, transaction, outcome.clone()).await?;
        Ok(Committed { outcome })
    }

    /// Returns the record of the handler's answer, for a transaction of a client other than `tokio-postgres`, and what
    /// the handler returns after the commit. From now on the transaction decides what the client gets: see
    /// [`complete_in`](Self::complete_in).
    ///
    /// The query fails with [`SUPERSEDED`](TransactionRecord::SUPERSEDED) or [`NESTED`](TransactionRecord::NESTED). The
    /// whole transaction has to be rolled back then.
    ///
    /// With sqlx, where `connection` is the outermost transaction's:
    ///
    /// ```text
    /// let (record, committed) = context.record_for(&store, &answer)?;
    /// sqlx::query(record.sql()).bind(record.bytes()).execute(&mut *connection).await?;
    /// ```
    ///
    /// With diesel:
    ///
    /// ```text
    /// diesel::sql_query(record.sql()).bind::<diesel::sql_types::Binary, _>(record.bytes()).execute(connection)?;
    /// ```
    ///
    /// # Errors
    /// [`CompleteError`], but not as `Database`. What the handler returns counts then.
    pub fn record_for(
        &self,
        store: &PostgresStore,
        answer: &Response<Bytes>,
    ) -> Result<(TransactionRecord, Committed), CompleteError> {
        let outcome = self.outcome_of(answer)?;
        let record = self.run.record_for(store, outcome.clone())?;
        Ok((record, Committed { outcome }))
    }

    fn outcome_of(&self, answer: &Response<Bytes>) -> Result<Bytes, CompleteError> {
        let too_long = || CompleteError::Unrecordable("its body is longer than max_response_body".to_owned());
        self.recorder.record(answer).ok_or_else(too_long)
    }
}
