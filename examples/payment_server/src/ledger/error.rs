//! The errors of a ledger.

use std::error::Error;

#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    /// Nothing was done, and a retry may run.
    #[error("the ledger is not available")]
    Away(#[source] Box<dyn Error + Send + Sync>),
    /// The change may have been made.
    #[error("the ledger failed")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
    #[error("an entry of the ledger can't be read or written")]
    Entry(#[from] serde_json::Error),
    #[error("there is no random number to be had: {0}")]
    Random(getrandom::Error),
}

impl LedgerError {
    pub(super) fn away(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Away(error.into())
    }

    pub(super) fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(error.into())
    }
}
