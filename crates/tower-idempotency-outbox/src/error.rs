//! Why an outbox did not do what it was asked.

use std::error::Error;

use crate::TARGET;

/// An outbox has failed, or can't take a call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboxError {
    /// Another call has this key. Use a new key for a new operation.
    #[error("the outbox has another call with this key; use a new key for a new operation")]
    KeyReused,
    /// The call is too large for the database.
    #[error("the call is too large for this outbox: {0}")]
    TooLarge(String),
    /// The name of the tree or the schema can't be used.
    #[error("the outbox's name is {0}; choose another one")]
    Name(&'static str),
    /// The database has failed, or did not answer in time. What was to be changed may have been changed.
    #[error("the outbox's database has failed")]
    Database(#[source] Box<dyn Error + Send + Sync>),
}

impl OutboxError {
    pub(crate) fn database(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Database(error.into())
    }

    /// A relay goes on when its outbox fails.
    pub(crate) fn log(&self, what: &str) {
        tracing::warn!(target: TARGET, error = self as &dyn Error, "{what}");
    }
}
