//! What an error of the database means for whoever asked.

use std::sync::Arc;

use super::backend::BackendError;
use super::puts::NotPut;
use crate::store::StoreError;

pub(super) fn late() -> StoreError {
    StoreError::Overloaded { reason: "the database came to the claim too late" }
}

pub(super) fn away(error: Arc<BackendError>) -> StoreError {
    if matches!(*error, BackendError::Crowded(_)) {
        return StoreError::Overloaded { reason: "too many calls of the database are under way" };
    }
    StoreError::Unavailable { reason: "the database does not answer".to_owned(), source: Some(Box::new(error)) }
}

/// What a write that was not done means for who asked for it.
pub(super) fn not_put(error: NotPut) -> StoreError {
    match error {
        NotPut::Away(error) | NotPut::Never(error) => {
            StoreError::Unavailable { reason: error.to_string(), source: None }
        }
        NotPut::Late | NotPut::InDoubt => late(),
        NotPut::Gone => StoreError::uncertain("the store was closed meanwhile"),
    }
}
