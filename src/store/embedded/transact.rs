//! Effect and record in one transaction: the command to the writer, its result, and how the application's values are
//! dropped. Of `CommitError`, `Twice`, `Over`, `Foreign` and `FailOpen` are returned before anything is sent.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use bytes::Bytes;

use crate::record::Completion;
use crate::slots::{LogThrottle, once_a_minute};
use crate::store::{CommitError, TransactionError};

/// The reason why a closure gives its transaction up. Nothing was done.
#[derive(Debug)]
#[non_exhaustive]
pub enum Abort<E> {
    /// The closure gives up for a reason of the application.
    Because(E),
    /// The transaction's trees or keyspaces returned an error, from which the operator `?` makes this variant.
    Refused(TransactionError),
}

impl<E> From<TransactionError> for Abort<E> {
    fn from(error: TransactionError) -> Self {
        Self::Refused(error)
    }
}

impl<E: Send + 'static> Abort<E> {
    /// Returns the same, with the closure's reason in a box.
    pub(in crate::store) fn boxed(self) -> Abort<Reason> {
        match self {
            Self::Because(reason) => Abort::Because(Box::new(reason)),
            Self::Refused(error) => Abort::Refused(error),
        }
    }
}

/// A closure's reason to abort. Only the closure and the caller that awaits its answer know the type.
pub(crate) type Reason = Box<dyn Any + Send>;

/// The result of a transaction, with the reason of an abort in a box.
pub(crate) type Transacted<T> = Result<T, CommitError<Reason>>;

/// The purpose of a transaction.
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
    /// The application's closure and its trees, in the form of the engine.
    pub(crate) effect: F,
    /// Takes the result. It is called once the batch is durable or has failed, or at once if nothing was done.
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

/// Limits how often `quietly` logs.
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
