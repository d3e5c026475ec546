//! The subject that the rules are tried on.

use std::any::Any;
use std::fmt;

use futures_util::future::BoxFuture;
use tower_idempotency::store::CommitError;
use tower_idempotency_shared::{RecordInTransaction, RunRecord, SharedStore};

/// The end of a transaction: it is committed if the output is `true`, and rolled back if not.
pub type End = BoxFuture<'static, bool>;

type Transact<E> = Box<dyn Fn(RunRecord, End) -> BoxFuture<'static, Result<(), CommitError<E>>> + Send + Sync>;

/// A store to try the rules on, and how an application uses its database.
pub struct TransactionSubject<B: RecordInTransaction> {
    pub(super) store: SharedStore<B>,
    pub(super) transact: Transact<B::Error>,
    pub(super) effects: Box<dyn Fn() -> BoxFuture<'static, usize> + Send + Sync>,
    kept: Vec<Box<dyn Any + Send + Sync>>,
}

impl<B: RecordInTransaction> TransactionSubject<B> {
    /// A subject with a store over the backend.
    ///
    /// `transact` does what an application does: it begins a transaction, makes one effect in it, and writes the record
    /// with [`write_in`]. Then it awaits the [`End`], and commits the transaction or rolls it back. If `write_in`
    /// fails, it rolls the transaction back, and returns that error. If `write_in` commits the transaction itself, the
    /// end is awaited before, while the transaction is open; to roll it back, the effect fails. `effects` counts the
    /// effects that were committed.
    ///
    /// [`write_in`]: RecordInTransaction::write_in
    #[must_use]
    pub fn new<T, N>(
        store: SharedStore<B>,
        transact: impl Fn(RunRecord, End) -> T + Send + Sync + 'static,
        effects: impl Fn() -> N + Send + Sync + 'static,
    ) -> Self
    where
        T: Future<Output = Result<(), CommitError<B::Error>>> + Send + 'static,
        N: Future<Output = usize> + Send + 'static,
    {
        let transact: Transact<B::Error> = Box::new(move |record, end| Box::pin(transact(record, end)));
        Self { store, transact, effects: Box::new(move || Box::pin(effects())), kept: Vec::new() }
    }

    /// Keeps something for as long as the store is used, and drops it after it: a temporary directory, a server.
    #[must_use]
    pub fn kept(mut self, kept: impl Any + Send + Sync) -> Self {
        self.kept.push(Box::new(kept));
        self
    }
}

impl<B: RecordInTransaction> fmt::Debug for TransactionSubject<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionSubject").field("store", &self.store).finish_non_exhaustive()
    }
}
