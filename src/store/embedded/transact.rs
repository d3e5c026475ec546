//! Transaction and record in one transaction: what is sent to the writer, what comes of it, and how what is the
//! application's is dropped. `Twice`, `Over`, `Foreign` and `Unprotected` are said before anything is sent.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use bytes::Bytes;

use crate::record::Completion;
use crate::store::StoreError;

/// What a transaction refuses. It is aborted; nothing was done.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// A key over 256 bytes, a value over 4 KiB, or over 128 KiB in all, the outcome and 64 bytes for each key
    /// included. Use a digest as the key; divide the value, or the transaction; keep large answers elsewhere.
    #[error("a {what} has {bytes} bytes; at most {limit} can be made durable")]
    TooLarge {
        /// A key, a value, or the transaction.
        what: &'static str,
        /// How many it has.
        bytes: usize,
        /// How many it may have.
        limit: usize,
    },
    /// The database can't be read. The store is poisoned.
    #[error("the database failed: {0}; restart the process")]
    Database(String),
    /// The answer's body is longer than `max_response_body`.
    #[error("the answer can't be recorded: its body is longer than max_response_body")]
    Unrecordable,
}

/// Why a transaction is given up, and nothing done.
#[derive(Debug)]
#[non_exhaustive]
pub enum Abort<E> {
    /// For a reason of the application's.
    Because(E),
    /// The transaction refused something. What `?` makes of its error.
    Refused(TransactionError),
}

impl<E> From<TransactionError> for Abort<E> {
    fn from(error: TransactionError) -> Self {
        Self::Refused(error)
    }
}

/// Why a transaction was not committed. Unless said otherwise, nothing was done, and another may be tried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError<E> {
    /// The closure said so.
    #[error("the transaction was aborted")]
    Aborted(#[source] E),
    /// The closure panicked.
    #[error("the transaction's closure panicked")]
    Panicked,
    /// A key or value is too large, the trees can't be read, or the answer not be recorded.
    #[error(transparent)]
    Refused(#[from] TransactionError),
    /// The trees can't be written to together.
    #[error("{0}; give trees that `SledStore::db` of this store has opened, each once")]
    Trees(&'static str),
    /// The run has committed already, or is about to. A run commits once.
    #[error("this run has committed already; do all of the effect in one transaction")]
    Twice,
    /// The run is over: it was settled without this transaction.
    #[error("this run is over; commit before the handler answers")]
    Over,
    /// The operation was taken over by another run, or settled by somebody else.
    #[error("the operation is not this run's any more")]
    Superseded,
    /// The run's record is kept in another store than the one that was to commit.
    #[error("the run belongs to another store; commit in the store of its layer")]
    Foreign,
    /// The run is not protected by a store at all: `fail_open` let it go ahead.
    #[error("the run goes ahead without a store, and has no record to commit")]
    Unprotected,
    /// The store failed. [`Uncertain`](StoreError::Uncertain): it may have been done. Whatever the run answers then,
    /// its requester is told that the outcome is unknown.
    #[error("the store failed")]
    Store(#[source] StoreError),
}

impl<E> CommitError<E> {
    /// The same, where `aborted` says what becomes of the closure's reason.
    pub(crate) fn map<P>(self, aborted: impl FnOnce(E) -> CommitError<P>) -> CommitError<P> {
        match self {
            Self::Aborted(reason) => aborted(reason),
            Self::Panicked => CommitError::Panicked,
            Self::Refused(error) => CommitError::Refused(error),
            Self::Trees(why) => CommitError::Trees(why),
            Self::Twice => CommitError::Twice,
            Self::Over => CommitError::Over,
            Self::Superseded => CommitError::Superseded,
            Self::Foreign => CommitError::Foreign,
            Self::Unprotected => CommitError::Unprotected,
            Self::Store(error) => CommitError::Store(error),
        }
    }
}

/// A closure's reason to abort, of a type that only the closure and who waits for its answer know.
pub(crate) type Reason = Box<dyn Any + Send>;

/// What comes of a transaction, as the writer knows it.
pub(crate) type Transacted<T> = Result<T, CommitError<Reason>>;

/// What a transaction is for.
pub(crate) enum Purpose {
    /// It completes a run.
    Run(Completion<()>),
    /// It is the application's own. The writer does it until then, or not at all.
    Own(Instant),
}

/// How the writer answers.
type Respond = Box<dyn FnOnce(Transacted<Bytes>) + Send>;

/// A transaction on its way to the writer. If it is dropped unanswered, what its answer holds is dropped with it.
pub(crate) struct Transact<F> {
    /// What it completes; where it is no run's, until when it may begin.
    pub(crate) purpose: Purpose,
    pub(crate) effect: F,
    pub(crate) answer: Respond,
}

/// What is the application's. Wherever it is dropped, unasked, unanswered or while something panics, it is dropped
/// [`quietly`].
pub(crate) struct Theirs<F>(Option<F>);

impl<F> Theirs<F> {
    pub(crate) fn new(theirs: F) -> Self {
        Self(Some(theirs))
    }

    pub(crate) fn get_mut(&mut self) -> &mut F {
        let Some(theirs) = &mut self.0 else { unreachable!("it is taken when it is dropped") };
        theirs
    }
}

impl<F> Drop for Theirs<F> {
    fn drop(&mut self) {
        let theirs = self.0.take();
        quietly(move || drop(theirs));
    }
}

/// Drops, or calls, what is the application's: what panics there is not the database's.
pub(crate) fn quietly(run: impl FnOnce()) {
    if let Err(thrown) = catch_unwind(AssertUnwindSafe(run)) {
        tracing::error!(target: "tower_idempotency", "what a transaction's closure held panicked when it was dropped");
        // What is thrown may panic when it is dropped, too; what that throws is kept for ever.
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(thrown))) {
            Box::leak(again);
        }
    }
}
