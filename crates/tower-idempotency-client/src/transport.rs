//! An attempt without an answer: whether it was sent, by what the error of the inner service says.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::Response;

use crate::{BoxError, Known, Reason};

/// An attempt without an answer to the operation.
#[derive(Debug)]
pub(crate) struct Miss {
    pub(crate) known: Known,
    /// How long the server asks to wait.
    pub(crate) after: Option<Duration>,
    pub(crate) response: Option<Response<Bytes>>,
    pub(crate) source: Option<BoxError>,
    /// Why there can be no further attempt, if the attempt itself says so.
    pub(crate) last: Option<Reason>,
}

impl Miss {
    fn new(source: BoxError, known: Known, last: Option<Reason>) -> Box<Self> {
        Box::new(Self { known, after: None, response: None, source: Some(source), last })
    }

    /// The failure of a service that sends each request once.
    pub(crate) fn of(source: BoxError) -> Box<Self> {
        let known = if is_connect(&*source) { Known::NotSent } else { Known::Unknown };
        Self::new(source, known, None)
    }

    /// The service can't take the request.
    pub(crate) fn unsendable(source: BoxError) -> Box<Self> {
        Self::new(source, Known::NotSent, Some(Reason::Unsendable))
    }

    /// The answer broke off, or did not come in time.
    pub(crate) fn lost(source: BoxError) -> Box<Self> {
        Self::new(source, Known::Unknown, None)
    }
}

/// Whether an error says that there was no connection. Its causes don't count: a service that does more than to send
/// the request may have had the effect before.
fn is_connect(error: &(dyn Error + 'static)) -> bool {
    #[cfg(feature = "hyper-util")]
    if error.downcast_ref().is_some_and(hyper_util::client::legacy::Error::is_connect) {
        return true;
    }
    #[cfg(feature = "reqwest")]
    if error.downcast_ref().is_some_and(::reqwest::Error::is_connect) {
        return true;
    }
    // Without these features no error is known.
    let _ = error;
    false
}
