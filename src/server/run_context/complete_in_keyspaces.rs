//! Commits a handler's effect and its answer in one batch of fjall.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use fjall::Keyspace;
use http::Response;

use super::committed::Committed;
use super::context::IdempotencyContext;
use crate::store::fjall_engine::{FjallStore, transaction};
use crate::store::{Abort, CommitError, TransactionError, TransactionKeyspace};

impl IdempotencyContext {
    /// Writes the handler's effect and the record of its answer in one batch, durably. With
    /// [`Rerun`](crate::OnInterrupted::Rerun) the effect takes place exactly once: a crash leaves both or neither, and
    /// a retry gets the answer or runs.
    ///
    /// `closure` is given the keyspaces, which must have been opened by [`FjallStore::keyspace`], and returns the
    /// answer. It runs on the store's writer thread, where every other request with a key waits for it. So it should
    /// only read and write these keyspaces. All that the transaction writes, the answer included, is at most 128 KiB,
    /// and the answer is not longer than [`max_response_body`](crate::IdempotencyLayer::max_response_body).
    ///
    /// Whatever the handler returns afterwards, the client gets this answer, as it was recorded: headers that are not
    /// [kept](crate::server::KeptHeaders) are not in the first answer either. A handler that returns [`Committed`]
    /// cannot forget to commit.
    ///
    /// # Errors
    /// [`CommitError`]. Unless it is uncertain whether the transaction is durable, nothing was done, and the handler's
    /// answer counts as it would without a transaction.
    ///
    /// # Cancel safety
    /// The transaction is sent when this method is *called*. Dropping the future undoes nothing, and the transaction
    /// still settles the run.
    ///
    /// ```
    /// use std::convert::Infallible;
    ///
    /// use bytes::Bytes;
    /// use http::Response;
    /// use tower_idempotency::store::CommitError;
    /// use tower_idempotency::server::Committed;
    /// use tower_idempotency::{FjallStore, IdempotencyContext, fjall};
    ///
    /// // With `OnInterrupted::Rerun` on the layer. The keyspace was opened at the start, and is kept:
    /// // `let charges = store.keyspace("charges", fjall::KeyspaceCreateOptions::default)?;`
    /// async fn charge(
    ///     context: IdempotencyContext,
    ///     store: FjallStore,
    ///     charges: fjall::Keyspace,
    /// ) -> Result<Committed, CommitError<Infallible>> {
    ///     let id = context.derived_key("charge");
    ///     let committed = context.complete_in_keyspaces(&store, [&charges], move |[charges]| {
    ///         charges.insert(&id, "10 euros")?;
    ///         Ok(Response::new(Bytes::from("charged")))
    ///     });
    ///     committed.await
    /// }
    /// ```
    pub fn complete_in_keyspaces<const N: usize, E, F>(
        &self,
        store: &FjallStore,
        keyspaces: [&Keyspace; N],
        mut closure: F,
    ) -> impl Future<Output = Result<Committed, CommitError<E>>> + Send + use<N, E, F>
    where
        F: FnMut([TransactionKeyspace<'_>; N]) -> Result<Response<Bytes>, Abort<E>> + Send + 'static,
        E: Send + 'static,
    {
        let recorder = Arc::clone(&self.recorder);
        // The store's writer thread calls this, and writes the bytes that it returns as the run's outcome.
        let recorded = move |keyspaces: [TransactionKeyspace<'_>; N]| {
            let answer = closure(keyspaces)?;
            recorder.record(&answer).ok_or(Abort::Refused(TransactionError::Unrecordable))
        };
        // This sends the transaction to the writer, before the future is polled.
        let committed = self.run.complete_in_embedded(store, transaction(keyspaces, recorded));
        async move { Ok(Committed { outcome: committed.await? }) }
    }
}
