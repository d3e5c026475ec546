//! Effect and record in one transaction: what is sent to the writer, and what it answers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use bytes::Bytes;

use crate::record::Completion;
use crate::store::StoreError;

/// What a transaction refuses. It is aborted; nothing was done.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// A key over 256 bytes, a value over 4 KiB, or over 128 KiB in all, the outcome and 64 bytes for each key included. Use a
    /// digest as the key; divide the value, or the transaction; keep large answers elsewhere.
    #[error("a {what} has {bytes} bytes; at most {limit} are durable in sled")]
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

/// What a transaction is for.
pub(crate) enum Purpose {
    /// It completes a run.
    Run(Completion<()>),
    /// It is the application's own. The writer does it until then, or not at all.
    Own(Instant),
}

/// How the writer answers.
type Answer = Box<dyn FnOnce(Result<Bytes, NotCommitted>) + Send>;

/// A transaction on its way to the writer. If it is dropped unanswered, what its answer holds is dropped with it.
pub(crate) struct Transact<F> {
    /// What it completes; where it is no run's, until when it may begin.
    pub(crate) purpose: Purpose,
    pub(crate) effect: F,
    pub(crate) answer: Answer,
}

/// Why a transaction was not committed, or not known to be.
#[derive(Debug)]
pub(crate) enum NotCommitted {
    /// The closure said so.
    Aborted,
    /// It panicked.
    Panicked,
    /// The operation is not (or no longer) this run's.
    Superseded,
    /// The transaction refused something.
    Refused(TransactionError),
    /// The trees can't be written to together.
    Trees(&'static str),
    /// The store failed.
    Store(StoreError),
    /// Nothing was done, as the store came to it too late.
    Late(StoreError),
}

/// Drops, or calls, what is the application's: what panics there is not the database's.
pub(super) fn quietly(run: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(run)).is_err() {
        tracing::error!(target: "tower_idempotency", "what a transaction's closure held panicked when it was dropped");
    }
}
