//! Why there is no answer.

use std::time::Duration;

/// How long one answer may take.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Failure {
    #[error("there is no connection: {0}")]
    NotConnected(String),
    #[error("the connection ended without an answer: {0}")]
    Ended(String),
    #[error("there was no answer for {} s", ANSWER_TIMEOUT.as_secs())]
    TooLate,
    #[error("the answer is no stream")]
    NoStream,
    #[error("the request can't be sent: {0}")]
    NotSendable(String),
}
