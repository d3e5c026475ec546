//! The reasons why a transaction was not committed: one with a run's record, or of the application alone.

use super::StoreError;

/// An error of a transaction's trees or outcome. The transaction is aborted, and nothing was done.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// A key, a value, or everything together is over its [limit](mod@crate::guide::exactly_once). Use a digest as the
    /// key; divide the value, or the transaction; keep large answers elsewhere.
    #[error("a {what} has {bytes} bytes; at most {limit} can be made durable")]
    TooLarge {
        /// The part that is too large: a key, a value, or the transaction.
        what: &'static str,
        /// The number of bytes that it has.
        bytes: usize,
        /// The number of bytes that it may have.
        limit: usize,
    },
    /// A key is empty. fjall has none such.
    #[error("a key is empty; give it at least one byte")]
    EmptyKey,
    /// The database cannot be read. The store is poisoned.
    #[error("the database failed: {0}; restart the process")]
    Database(String),
    /// The process has no descriptor or memory left for a read. Nothing was written; try again.
    #[error("the process has no file or memory left for a read: {0}; nothing was written")]
    Exhausted(String),
    /// The answer's body is longer than `max_response_body`, fails, is cut, has trailers or takes more than 10 seconds,
    /// or the answer has the mark `Secret`.
    #[error(
        "the answer can't be recorded: its body is longer than max_response_body, not whole within 10 seconds, or has \
         trailers; or it is marked as a secret"
    )]
    Unrecordable,
    /// The outcome of a message can't be written as JSON: the text says why.
    #[error("the outcome can't be recorded as JSON: {0}")]
    Unwritable(String),
}

/// The reason why a transaction was not committed. Unless a variant says otherwise, nothing was done, and another
/// transaction may be tried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError<E> {
    /// The transaction failed: the closure's reason to give it up, or the database's error.
    #[error("the transaction was aborted")]
    Aborted(#[source] E),
    /// The closure panicked.
    #[error("the transaction's closure panicked")]
    Panicked,
    /// A key or value is too large, the trees cannot be read, or the answer or outcome cannot be recorded.
    #[error(transparent)]
    Refused(#[from] TransactionError),
    /// The trees or keyspaces cannot be written to together.
    #[error("{0}; give trees or keyspaces that were opened from this store, each once")]
    Trees(&'static str),
    /// The run has committed already, or is about to. A run commits once.
    #[error("this run has committed already; do all of the effect in one transaction")]
    Twice,
    /// The run is over: it was settled without this transaction.
    #[error("this run is over; commit before the handler answers")]
    Over,
    /// Another run or an operator has taken the operation over, or a transaction of this run was committed already.
    #[error("the operation is not this run's any more, or it is completed already")]
    Superseded,
    /// The record was to be written within a savepoint, which could be rolled back without the effects before it. The
    /// program is at fault.
    #[error(
        "the record was to be written within a savepoint; write it in the outermost transaction, and roll that back now"
    )]
    Nested,
    /// The record of the run is kept in another store than the one of the transaction.
    #[error("the run belongs to another store; commit in the store of its layer")]
    Foreign,
    /// The run is not protected by a store: `fail_open` let it go ahead.
    #[error("the run goes ahead without a store, and has no record to commit")]
    FailOpen,
    /// The store failed. If the error is [`Uncertain`](StoreError::Uncertain), the transaction may have been done;
    /// whatever the run returns then, its requester is answered that the outcome is unknown.
    #[error("the store failed")]
    Store(#[source] StoreError),
}

impl<E> CommitError<E> {
    /// Returns the same error, with `aborted` applied to the closure's reason.
    #[cfg(feature = "_embedded")]
    pub(crate) fn map<P>(self, aborted: impl FnOnce(E) -> CommitError<P>) -> CommitError<P> {
        match self {
            Self::Aborted(reason) => aborted(reason),
            Self::Panicked => CommitError::Panicked,
            Self::Refused(error) => CommitError::Refused(error),
            Self::Trees(why) => CommitError::Trees(why),
            Self::Twice => CommitError::Twice,
            Self::Over => CommitError::Over,
            Self::Superseded => CommitError::Superseded,
            Self::Nested => CommitError::Nested,
            Self::Foreign => CommitError::Foreign,
            Self::FailOpen => CommitError::FailOpen,
            Self::Store(error) => CommitError::Store(error),
        }
    }
}
