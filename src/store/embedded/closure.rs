//! The application's part of a transaction: its closure, what it wrote, and the first error of the views that it was
//! given.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

use super::layout::storage_engine::ReadError;
use super::layout::writes::ENTRY_BYTES;
use super::state::PANICKED;
use super::transact::{Abort, Reason, Transacted, quietly};
use crate::store::{CommitError, TransactionError};

/// The most bytes that an engine takes.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct EffectLimits {
    /// The bytes of one key.
    pub(in crate::store) key: usize,
    /// The bytes of one value.
    pub(in crate::store) value: usize,
    /// The bytes of keys, values and outcome, where each key counts 64 bytes more.
    pub(in crate::store) all: usize,
}

/// What the closure has done so far. Its views of the database report to it.
#[derive(Debug)]
pub(crate) struct AppEffect {
    limits: EffectLimits,
    /// The first error. It is kept, so that a closure that ignores it is still aborted.
    error: RefCell<Option<TransactionError>>,
    /// The bytes of keys and values so far.
    written: Cell<usize>,
    /// `true` while the closure is inside a call to the database; a panic there is not the closure's.
    inside: Cell<bool>,
}

impl AppEffect {
    /// Checks and counts a key and a value of these lengths, which are about to be inserted.
    pub(in crate::store) fn insert(&self, key: usize, value: usize) -> Result<(), TransactionError> {
        self.check("key", key, self.limits.key)?;
        self.check("value", value, self.limits.value)?;
        self.count(key + value);
        Ok(())
    }

    /// Checks the length of a key or a value.
    pub(in crate::store) fn check(
        &self,
        what: &'static str,
        bytes: usize,
        limit: usize,
    ) -> Result<(), TransactionError> {
        if bytes > limit { Err(self.fail(TransactionError::TooLarge { what, bytes, limit })) } else { Ok(()) }
    }

    /// Calls the database. Its error aborts the transaction, even if the closure ignores it.
    pub(in crate::store) fn call<T, E: Into<ReadError>>(
        &self,
        call: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, TransactionError> {
        // If `call` panics, this stays `true`, and `run` takes the panic for the database's.
        self.inside.set(true);
        let result = call();
        self.inside.set(false);
        result.map_err(|error| {
            self.fail(match error.into() {
                ReadError::Exhausted(error) => TransactionError::Exhausted(error.to_string()),
                error => TransactionError::Database(error.to_string()),
            })
        })
    }

    /// Counts one more key, with this many bytes.
    pub(in crate::store) fn count(&self, bytes: usize) {
        self.written.set(self.written.get() + bytes + ENTRY_BYTES);
    }

    /// Notes an error, unless there was one before, and returns it for the closure.
    pub(in crate::store) fn fail(&self, error: TransactionError) -> TransactionError {
        self.error.borrow_mut().get_or_insert_with(|| error.clone());
        error
    }

    /// Calls the closure. Returns its outcome, and how many bytes it wrote.
    pub(in crate::store) fn run(
        limits: EffectLimits,
        closure: impl FnOnce(&Self) -> Result<Bytes, Abort<Reason>>,
    ) -> Transacted<(Bytes, usize)> {
        let effect = Self { limits, error: RefCell::default(), written: Cell::default(), inside: Cell::default() };
        let result = catch_unwind(AssertUnwindSafe(|| closure(&effect)));
        if let Some(error) = effect.error.take() {
            quietly(move || drop(result));
            return Err(CommitError::Refused(error));
        }
        let refused = |error| Err(CommitError::Refused(error));
        let written = effect.written.get();
        match result {
            Ok(Ok(outcome)) if written + outcome.len() <= limits.all => Ok((outcome, written)),
            Ok(Ok(outcome)) => {
                let bytes = written + outcome.len();
                refused(TransactionError::TooLarge { what: "transaction", bytes, limit: limits.all })
            }
            Ok(Err(Abort::Because(reason))) => Err(CommitError::Aborted(reason)),
            Ok(Err(Abort::Refused(error))) => refused(error),
            Err(thrown) => {
                quietly(move || drop(thrown));
                let is_ours = effect.inside.get();
                if is_ours {
                    refused(TransactionError::Database(PANICKED.to_owned()))
                } else {
                    Err(CommitError::Panicked)
                }
            }
        }
    }
}
