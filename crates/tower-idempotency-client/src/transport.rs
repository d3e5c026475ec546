use std::error::Error;

use crate::{BoxError, Known, Reason};

/// Why an attempt got no answer.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) source: BoxError,
    pub(crate) known: Known,
    /// Why there can be no further attempt, if the failure itself says so.
    pub(crate) last: Option<Reason>,
}

impl Failure {
    /// The failure of a service that sends each request once.
    pub(crate) fn of(source: BoxError) -> Self {
        let known = if is_connect(&*source) { Known::NotSent } else { Known::Unknown };
        Self { source, known, last: None }
    }

    /// The service can't take the request.
    pub(crate) fn unsendable(source: BoxError) -> Self {
        Self { source, known: Known::NotSent, last: Some(Reason::Unsendable) }
    }

    /// The answer broke off, or did not come in time.
    pub(crate) fn lost(source: BoxError) -> Self {
        Self { source, known: Known::Unknown, last: None }
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
