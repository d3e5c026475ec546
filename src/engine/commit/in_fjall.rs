//! Effect and record in one batch of fjall.

use std::future::Future;

use bytes::Bytes;
use fjall::Keyspace;

use super::embedded::{leaving, write_alone};
use crate::engine::commit::Completable;
use crate::store::fjall_engine::{FjallStore, transaction};
use crate::store::{Abort, CommitError, TransactionKeyspace};

impl FjallStore {
    /// Writes the effect of a run and the record of its outcome in one batch, durably, as
    /// [`SledStore::complete_in`](crate::SledStore::complete_in) does in a transaction of sled.
    ///
    /// `closure` is given the keyspaces, which must have been opened by [`keyspace`](Self::keyspace), and returns the
    /// outcome. It runs once, on the store's writer thread, where every other request with a key waits for it. So it
    /// should only read and write these keyspaces. Whatever the run returns afterwards, this outcome counts, in the
    /// form in which it is recorded. [`guide::exactly_once`](mod@crate::guide::exactly_once) has the limits.
    ///
    /// # Errors
    /// [`CommitError`]. Unless it is uncertain whether the transaction is durable, nothing was done, and what the run
    /// returns counts as it would without a transaction.
    ///
    /// # Cancel safety
    /// The transaction is sent when this method is *called*. Dropping the future undoes nothing, and the transaction
    /// still settles the run.
    ///
    /// ```
    /// use std::convert::Infallible;
    ///
    /// use tower_idempotency::engine::OnceContext;
    /// use tower_idempotency::store::CommitError;
    /// use tower_idempotency::{FjallStore, fjall};
    ///
    /// // An effect of `Once`, with `OnInterrupted::Rerun`. The keyspace is opened at the start, and
    /// // kept:
    /// // `let charges = store.keyspace("charges", fjall::KeyspaceCreateOptions::default)?;`
    /// async fn charge(
    ///     context: OnceContext<String>,
    ///     store: FjallStore,
    ///     charges: fjall::Keyspace,
    /// ) -> Result<String, CommitError<Infallible>> {
    ///     let id = context.derived_key("charge");
    ///     let committed = store.complete_in(&context, [&charges], move |[charges]| {
    ///         charges.insert(&id, "10 euros")?;
    ///         Ok("charged".to_owned())
    ///     });
    ///     committed.await
    /// }
    /// ```
    pub fn complete_in<R: Completable, const N: usize, E, F>(
        &self,
        run: &R,
        keyspaces: [&Keyspace; N],
        mut closure: F,
    ) -> impl Future<Output = Result<R::Committed, CommitError<E>>> + Send + use<R, N, E, F>
    where
        F: FnMut([TransactionKeyspace<'_>; N]) -> Result<R::Outcome, Abort<E>> + Send + 'static,
        E: Send + 'static,
    {
        let (leave, given) = leaving(run.encoder());
        let effect = transaction(keyspaces, move |keyspaces| Ok::<_, Abort<E>>(leave(closure(keyspaces)?)?));
        run.run().complete_in_embedded(self, effect, given)
    }

    /// Writes to keyspaces of the application in one batch, durably, for effects that belong to no run. The effect of a
    /// run should be written with the record of its outcome, by [`complete_in`](Self::complete_in).
    ///
    /// `closure` is given the keyspaces, which must have been opened by [`keyspace`](Self::keyspace). It runs on the
    /// store's writer thread, where every other request with a key waits for it, so it should only read and write these
    /// keyspaces. Transactions come one after the other, so none changes what another one has read.
    /// [`guide::exactly_once`](mod@crate::guide::exactly_once) has the limits.
    ///
    /// # Errors
    /// [`CommitError`], as `Aborted`, `Panicked`, `Refused`, `Trees` or `Store`. Nothing was done, unless it is
    /// uncertain whether the transaction is durable.
    ///
    /// # Cancel safety
    /// The transaction is sent when this is *called*; dropping the future undoes nothing.
    pub fn transaction<const N: usize, T, E, F>(
        &self,
        keyspaces: [&Keyspace; N],
        mut closure: F,
    ) -> impl Future<Output = Result<T, CommitError<E>>> + Send + use<N, T, E, F>
    where
        F: FnMut([TransactionKeyspace<'_>; N]) -> Result<T, Abort<E>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        // No record is written, so the writer needs no outcome.
        let (leave, given) = leaving(|value| Ok((Bytes::new(), value)));
        let effect = transaction(keyspaces, move |keyspaces| Ok::<_, Abort<E>>(leave(closure(keyspaces)?)?));
        write_alone(self, effect, given)
    }
}
