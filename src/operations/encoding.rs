//! Turns operators' answers into outcomes, and back.

#[cfg(feature = "server")]
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::answer::{Answer, Form};
use super::change::ChangeError;
#[cfg(feature = "server")]
use crate::server::answer::snapshot::{self, Recorder};

/// A form, with what is needed to record answers in it.
#[derive(Debug, Clone)]
pub(super) enum Encoding {
    #[cfg(feature = "server")]
    Http(Arc<Recorder>),
    /// With what a consumer says of an operator's bytes.
    Bytes(fn(&[u8]) -> serde_json::Result<()>),
    #[cfg(feature = "server")]
    Any(Arc<Recorder>),
}

/// Whose type is not known here.
fn is_json(bytes: &[u8]) -> serde_json::Result<()> {
    serde_json::from_slice::<Value>(bytes).map(drop)
}

fn checked(bytes: Bytes, check: fn(&[u8]) -> serde_json::Result<()>) -> Result<Bytes, ChangeError> {
    check(&bytes).map_err(ChangeError::WrongType)?;
    Ok(bytes)
}

impl Encoding {
    /// Returns the form for tools that do not know whose the operations of a store are.
    pub(super) fn any() -> Self {
        #[cfg(feature = "server")]
        return Self::Any(Arc::new(Recorder::default()));
        #[cfg(not(feature = "server"))]
        Self::Bytes(is_json)
    }

    pub(super) fn form(&self) -> Form {
        match self {
            #[cfg(feature = "server")]
            Self::Http(_) => Form::Http,
            Self::Bytes(_) => Form::Bytes,
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
            (Self::Any(_), Answer::Bytes(bytes)) => checked(bytes, is_json),
            (Self::Bytes(check), Answer::Bytes(bytes)) => checked(bytes, *check),
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
            Self::Bytes(_) => Answer::Bytes(outcome),
        }
    }

    /// Returns the HTTP status of the outcome that begins with these bytes, if it is an HTTP answer.
    pub(super) fn status(&self, start: &[u8]) -> Option<u16> {
        match self {
            #[cfg(feature = "server")]
            Self::Http(_) | Self::Any(_) => snapshot::status(start).map(|status| status.as_u16()),
            Self::Bytes(_) => {
                let _ = start;
                None
            }
        }
    }
}
