//! Effect and record in one transaction: the command to the writer, its result, and how the application's values are
//! dropped. `Twice`, `Over`, `Foreign` and `Unprotected` are returned before anything is sent.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use bytes::Bytes;

use crate::record::Completion;
use crate::slots::{LogThrottle, once_a_minute};
use crate::store::StoreError;

/// An error of a transaction's trees or outcome. The transaction is aborted, and nothing was done.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// A key is over 256 bytes, a value over 4 KiB, or everything together over 128 KiB, including the outcome and 64
    /// bytes for each key. Use a digest as the key; divide the value, or the transaction; keep large answers elsewhere.
    #[error("a {what} has {bytes} bytes; at most {limit} can be made durable")]
    TooLarge {
        /// What is too large: a key, a value, or the transaction.
        what: &'static str,
        /// How many bytes it has.
        bytes: usize,
        /// How many bytes it may have.
        limit: usize,
    },
    /// The database cannot be read. The store is poisoned.
    #[error("the database failed: {0}; restart the process")]
    Database(String),
    /// The answer's body is longer than `max_response_body`.
    #[error("the answer can't be recorded: its body is longer than max_response_body")]
    Unrecordable,
}

/// Why a closure gives its transaction up. Nothing was done.
#[derive(Debug)]
#[non_exhaustive]
pub enum Abort<E> {
    /// The closure gives up for a reason of the application.
    Because(E),
    /// The transaction's trees returned an error, from which the operator `?` makes this variant.
    Refused(TransactionError),
}

impl<E> From<TransactionError> for Abort<E> {
    fn from(error: TransactionError) -> Self {
        Self::Refused(error)
    }
}

/// Why a transaction was not committed. Unless a variant says otherwise, nothing was done, and another transaction may
/// be tried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError<E> {
    /// The closure aborted the transaction.
    #[error("the transaction was aborted")]
    Aborted(#[source] E),
    /// The closure panicked.
    #[error("the transaction's closure panicked")]
    Panicked,
    /// A key or value is too large, the trees cannot be read, or the answer cannot be recorded.
    #[error(transparent)]
    Refused(#[from] TransactionError),
    /// The trees cannot be written to together.
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
    /// The record of the run is kept in another store than the one of the transaction.
    #[error("the run belongs to another store; commit in the store of its layer")]
    Foreign,
    /// The run is not protected by a store: `fail_open` let it go ahead.
    #[error("the run goes ahead without a store, and has no record to commit")]
    Unprotected,
    /// The store failed. If the error is [`Uncertain`](StoreError::Uncertain), the transaction may have been done;
    /// whatever the run returns then, its requester is told that the outcome is unknown.
    #[error("the store failed")]
    Store(#[source] StoreError),
}

impl<E> CommitError<E> {
    /// Returns the same error, with `aborted` applied to the closure's reason.
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

/// A closure's reason to abort. Only the closure and the caller that awaits its answer know the type.
pub(crate) type Reason = Box<dyn Any + Send>;

/// The result of a transaction, as the writer knows it.
pub(crate) type Transacted<T> = Result<T, CommitError<Reason>>;

/// What a transaction is for.
pub(crate) enum Purpose {
    /// The transaction completes a run.
    Run(Completion<()>),
    /// The transaction is the application's own. The writer does it before this time, or not at all.
    Own(Instant),
}

/// The function that takes the writer's answer.
type Respond = Box<dyn FnOnce(Transacted<Bytes>) + Send>;

/// A transaction that is sent to the writer. If it is dropped unanswered, the values that its answer holds are dropped
/// with it.
pub(crate) struct Transact<F> {
    /// The run that it completes, or, if it completes none, the time by which it may begin.
    pub(crate) purpose: Purpose,
    pub(crate) effect: F,
    pub(crate) answer: Respond,
}

/// A value of the application. It is dropped [`quietly`] in every case: before it was used, unanswered, or during a
/// panic.
pub(crate) struct AppValue<F>(Option<F>);

impl<F> AppValue<F> {
    pub(crate) fn new(value: F) -> Self {
        Self(Some(value))
    }

    pub(crate) fn get_mut(&mut self) -> &mut F {
        let Some(value) = &mut self.0 else { unreachable!("it is taken when it is dropped") };
        value
    }
}

impl<F> Drop for AppValue<F> {
    fn drop(&mut self) {
        let value = self.0.take();
        quietly(move || drop(value));
    }
}

static PANICS: LogThrottle = LogThrottle::new();

/// Drops, or calls, a value of the application. If it panics, the database has not panicked.
pub(crate) fn quietly(run: impl FnOnce()) {
    if let Err(thrown) = catch_unwind(AssertUnwindSafe(run)) {
        once_a_minute!(PANICS, error, "what a transaction's closure held panicked when it was dropped");
        // The payload of the panic may panic when it is dropped, too; the payload of that panic is leaked.
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(thrown))) {
            Box::leak(again);
        }
    }
}
