//! An outcome, as a layer or a consumer records it.

use std::fmt;
#[cfg(feature = "server")]
use std::sync::Arc;

use bytes::Bytes;

use super::operator::ChangeError;
#[cfg(feature = "server")]
use crate::server::answer::snapshot::{self, Recorder};

/// An outcome that retries get.
///
/// `Debug` shows its length, and not its content.
#[non_exhaustive]
pub enum Answer {
    /// The answer of a layer's handler.
    #[cfg(feature = "server")]
    Http(http::Response<Bytes>),
    /// The outcome of a consumer.
    Bytes(Bytes),
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            #[cfg(feature = "server")]
            Self::Http(answer) => write!(f, "Http({}, {} bytes)", answer.status(), answer.body().len()),
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
        }
    }
}

/// The form in which outcomes are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Form {
    /// HTTP answers: the operations are a layer's.
    #[cfg(feature = "server")]
    Http,
    /// Bytes: the operations are a consumer's.
    Bytes,
    /// Either: it is not known whose the operations are.
    #[cfg(feature = "server")]
    Any,
}

/// A form, with what is needed to record answers in it.
#[derive(Debug, Clone)]
pub(super) enum Recording {
    #[cfg(feature = "server")]
    Http(Arc<Recorder>),
    Bytes,
    #[cfg(feature = "server")]
    Any(Arc<Recorder>),
}

impl Recording {
    /// Returns the form for tools that do not know whose the operations of a store are.
    pub(super) fn any() -> Self {
        #[cfg(feature = "server")]
        return Self::Any(Arc::new(Recorder::default()));
        #[cfg(not(feature = "server"))]
        Self::Bytes
    }

    pub(super) fn form(&self) -> Form {
        match self {
            #[cfg(feature = "server")]
            Self::Http(_) => Form::Http,
            Self::Bytes => Form::Bytes,
            #[cfg(feature = "server")]
            Self::Any(_) => Form::Any,
        }
    }

    /// Returns the outcome to record for an operator's answer.
    pub(super) fn outcome(&self, answer: Answer) -> Result<Bytes, ChangeError> {
        match (self, answer) {
            #[cfg(feature = "server")]
            (Self::Http(recorder) | Self::Any(recorder), Answer::Http(answer)) => {
                recorder.record(&answer).ok_or(ChangeError::TooLong)
            }
            #[cfg(feature = "server")]
            (Self::Any(_), Answer::Bytes(bytes)) => Ok(bytes),
            (Self::Bytes, Answer::Bytes(bytes)) => Ok(bytes),
            #[cfg(feature = "server")]
            _ => Err(ChangeError::WrongForm),
        }
    }

    /// Returns a recorded outcome as what it is.
    pub(super) fn answer(&self, outcome: Bytes) -> Answer {
        match self {
            #[cfg(feature = "server")]
            Self::Http(_) | Self::Any(_) => match snapshot::decode(&outcome) {
                Some((answer, _)) => Answer::Http(answer),
                None => Answer::Bytes(outcome),
            },
            Self::Bytes => Answer::Bytes(outcome),
        }
    }

    /// Returns the HTTP status of the outcome that begins with these bytes, if it is an HTTP answer.
    pub(super) fn status(&self, start: &[u8]) -> Option<u16> {
        match self {
            #[cfg(feature = "server")]
            Self::Http(_) | Self::Any(_) => snapshot::status(start).map(|status| status.as_u16()),
            Self::Bytes => {
                let _ = start;
                None
            }
        }
    }
}
