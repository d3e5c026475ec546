//! Effect and record in one transaction of sled.

use std::future::Future;

use bytes::Bytes;

use super::embedded::{leaving, write_alone};
use crate::engine::commit::Completable;
use crate::store::sled_engine::{SledStore, transaction};
use crate::store::{Abort, CommitError, TransactionTree};

impl SledStore {
    /// Writes the effect of a run and the record of its outcome in one transaction, durably. `run` is the context of
    /// the handler or of the consumer. With [`Rerun`](crate::OnInterrupted::Rerun) the effect takes place exactly once:
    /// a crash leaves both or neither, and a retry gets the outcome or runs.
    ///
    /// `closure` is given the trees, which must have been opened from [`db`](Self::db), and returns the outcome: an
    /// [HTTP answer](crate::IdempotencyContext), or what [`Once`](crate::Once) records. It runs on the store's writer
    /// thread, where every other request waits for it, look-ups included. So it should only read and write these trees.
    /// The database may call it again; what it wrote before was then undone.
    ///
    /// Whatever the run returns afterwards, this outcome counts. A client gets the answer as it was recorded: headers
    /// that are not [kept](crate::server::KeptHeaders) are not in the first answer either. A handler that returns
    /// [`Committed`](crate::server::Committed) cannot forget to commit.
    /// [`guide::exactly_once`](mod@crate::guide::exactly_once) has the limits, and more.
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
    /// use tower_idempotency::{SledStore, sled};
    ///
    /// // An effect of `Once`, with `OnInterrupted::Rerun`. The tree is opened at the start, and kept:
    /// // `let charges = store.db()?.open_tree("charges")?;`
    /// async fn charge(
    ///     context: OnceContext<String>,
    ///     store: SledStore,
    ///     charges: sled::Tree,
    /// ) -> Result<String, CommitError<Infallible>> {
    ///     let id = context.derived_key("charge");
    ///     let committed = store.complete_in(&context, [&charges], move |[charges]| {
    ///         charges.insert(id.as_bytes(), b"10 euros")?;
    ///         Ok("charged".to_owned())
    ///     });
    ///     committed.await
    /// }
    /// ```
    pub fn complete_in<R: Completable, const N: usize, E, F>(
        &self,
        run: &R,
        trees: [&sled::Tree; N],
        mut closure: F,
    ) -> impl Future<Output = Result<R::Committed, CommitError<E>>> + Send + use<R, N, E, F>
    where
        F: FnMut([TransactionTree<'_>; N]) -> Result<R::Outcome, Abort<E>> + Send + 'static,
        E: Send + 'static,
    {
        let (leave, given) = leaving(run.encoder());
        let effect = transaction(trees, move |trees| Ok::<_, Abort<E>>(leave(closure(trees)?)?));
        run.run().complete_in_embedded(self, effect, given)
    }

    /// Writes to trees of the application in one transaction, durably, for effects that belong to no run. The effect of
    /// a run should be written with the record of its outcome, by [`complete_in`](Self::complete_in).
    ///
    /// `closure` is given the trees, which must have been opened from [`db`](Self::db). It runs on the store's writer
    /// thread, where every other request waits for it, so it should only read and write these trees; the database may
    /// call it again. [`guide::exactly_once`](mod@crate::guide::exactly_once) has the limits.
    ///
    /// # Errors
    /// [`CommitError`], as `Aborted`, `Panicked`, `Refused`, `Trees` or `Store`. Nothing was done, unless it is
    /// uncertain whether the transaction is durable.
    ///
    /// # Cancel safety
    /// The transaction is sent when this is *called*; dropping the future undoes nothing.
    pub fn transaction<const N: usize, T, E, F>(
        &self,
        trees: [&sled::Tree; N],
        mut closure: F,
    ) -> impl Future<Output = Result<T, CommitError<E>>> + Send + use<N, T, E, F>
    where
        F: FnMut([TransactionTree<'_>; N]) -> Result<T, Abort<E>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        // No record is written, so the writer needs no outcome.
        let (leave, given) = leaving(|value| Ok((Bytes::new(), value)));
        let effect = transaction(trees, move |trees| Ok::<_, Abort<E>>(leave(closure(trees)?)?));
        write_alone(self, effect, given)
    }
}
