//! Converts errors of the database into the store's errors.

use std::sync::Arc;

use tower_idempotency::internals;
use tower_idempotency::store::StoreError;

use super::writes::WriteError;
use crate::backend::BackendError;

/// Returns the error of a claim whose time is over: it was not sent, or it was undone. It is `Overloaded`, for which
/// `fail_open` runs no handler: the claim may have met a row.
pub(crate) fn late() -> StoreError {
    StoreError::Overloaded { reason: "the database came to the claim too late" }
}

/// Returns the store's error for a call that failed. If this process is crowded, it is `Overloaded`, for which
/// `fail_open` runs no handler.
pub(crate) fn away(error: impl Into<Arc<BackendError>>) -> StoreError {
    let error = error.into();
    match *error {
        BackendError::Crowded(_) => StoreError::Overloaded { reason: "too many calls of the database are under way" },
        BackendError::Full(limit) => StoreError::Full { limit },
        _ => {
            StoreError::Unavailable { reason: "the database does not answer".to_owned(), source: Some(Box::new(error)) }
        }
    }
}

/// Returns the store's error for a write that was not done.
pub(crate) fn not_written(error: WriteError) -> StoreError {
    match error {
        WriteError::Away(error) | WriteError::Never(error) => match *error {
            BackendError::Full(limit) => StoreError::Full { limit },
            _ => StoreError::Unavailable { reason: error.to_string(), source: None },
        },
        // Only claims have a deadline.
        WriteError::Late | WriteError::InDoubt => late(),
        WriteError::Gone => internals::uncertain("the store was closed meanwhile"),
    }
}
