//! The reason why it is unknown whether a run took effect.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The reason why it is unknown whether a run took effect. Lists, logs, metrics and the database's view show its
/// [name](Self::name).
///
/// Stored bytes have the status of an answer, or a number below 100 for each other cause, or nothing for one that is
/// not known. A number that this version does not know is read as [`Unknown`](Self::Unknown).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(from = "Option<u16>", into = "Option<u16>")]
#[non_exhaustive]
pub enum Cause {
    /// `unknown`: the record does not say it.
    #[default]
    Unknown,
    /// `process-ended`: the process of an embedded store ended while the handler ran. The next process found the run.
    ProcessEnded,
    /// `panicked`: the handler panicked.
    Panicked,
    /// `max-run`: the handler took longer than the `max_run` option allows.
    MaxRun,
    /// `lease`: over a shared store, the lease of the process was over while the handler ran. The process ended, or did
    /// not reach the database for that long.
    Lease,
    /// `shutdown`: the process shut down while the handler ran, or the run's task was dropped.
    Shutdown,
    /// `failed`: the service returned an error in place of an answer; or the effect of a consumer failed, and may have
    /// started.
    Failed,
    /// `broken`: the answer broke off. The body could not be read to its end; or the proxy sent the request to the
    /// service, and got no answer that it can read, or none in time.
    Broken,
    /// `unsaved`: the run has ended, and its end could not be stored.
    Unsaved,
    /// `answered`: the handler's answer says that it is unknown. The client got this HTTP status; 0 if it is not known.
    Answered(u16),
}

/// The lowest number that is a status.
const LEAST_STATUS: u16 = 100;

impl Cause {
    /// All causes, the status of an answer left out. A cause's place is its stored number.
    pub const ALL: [Self; 10] = [
        Self::Unknown,
        Self::ProcessEnded,
        Self::Panicked,
        Self::MaxRun,
        Self::Lease,
        Self::Shutdown,
        Self::Failed,
        Self::Broken,
        Self::Unsaved,
        Self::Answered(0),
    ];

    /// Returns the cause's name, such as `process-ended`. It is one of few, and has no status.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::ProcessEnded => "process-ended",
            Self::Panicked => "panicked",
            Self::MaxRun => "max-run",
            Self::Lease => "lease",
            Self::Shutdown => "shutdown",
            Self::Failed => "failed",
            Self::Broken => "broken",
            Self::Unsaved => "unsaved",
            Self::Answered(_) => "answered",
        }
    }

    /// Returns the HTTP status that the client got, if the handler's answer says that the effect is unknown.
    #[must_use]
    pub const fn status(self) -> Option<u16> {
        match self {
            Self::Answered(status) if status > 0 => Some(status),
            _ => None,
        }
    }
}

/// Writes the name.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text is not the name of a cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cause is unknown, process-ended, panicked, max-run, lease, shutdown, failed, broken, unsaved or answered")]
#[non_exhaustive]
pub struct CauseError;

impl FromStr for Cause {
    type Err = CauseError;

    fn from_str(text: &str) -> Result<Self, CauseError> {
        Self::ALL.into_iter().find(|cause| cause.name() == text).ok_or(CauseError)
    }
}

impl From<Cause> for Option<u16> {
    fn from(cause: Cause) -> Self {
        let place = || Cause::ALL.iter().position(|known| *known == cause);
        match cause {
            Cause::Unknown => None,
            Cause::Answered(status) if status >= LEAST_STATUS => Some(status),
            _ => place().and_then(|place| place.try_into().ok()),
        }
    }
}

impl From<Option<u16>> for Cause {
    fn from(stored: Option<u16>) -> Self {
        match stored {
            Some(status) if status >= LEAST_STATUS => Self::Answered(status),
            Some(place) => Self::ALL.get(usize::from(place)).copied().unwrap_or_default(),
            None => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_stored_under_its_number_and_read_back_by_it_and_by_its_name() {
        for (place, cause) in (0..).zip(Cause::ALL) {
            let stored = Option::<u16>::from(cause);
            assert_eq!(stored, Some(place).filter(|place| *place > 0), "{cause}");
            assert_eq!((Cause::from(stored), cause.name().parse()), (cause, Ok(cause)));
            assert!(CauseError.to_string().contains(cause.name()), "{cause}");
        }
        assert_eq!(Option::from(Cause::Answered(504)), Some(504_u16));
        assert_eq!(Cause::from(Some(504)), Cause::Answered(504));
        assert_eq!((Cause::Answered(504).status(), Cause::Answered(0).status()), (Some(504), None));
        // A later version's.
        assert_eq!(Cause::from(Some(99)), Cause::Unknown);
        assert_eq!("Panicked".parse::<Cause>(), Err(CauseError));
    }
}
