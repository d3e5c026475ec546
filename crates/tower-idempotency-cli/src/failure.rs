//! How a command ends: its exit code.

use std::io;
use std::process::ExitCode;

#[cfg(feature = "store")]
pub(crate) use tower_idempotency::internals::with_causes;

/// A command has ended, and has done what it is for: its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It is done, or found.
    Well = 0,
    /// It is not found, has changed nothing, or has found a fault.
    Badly = 1,
    /// What was to be examined could not be.
    #[cfg(feature = "check")]
    Unchecked = 2,
    /// The store can't be opened, and that is what it was to find out.
    #[cfg(feature = "store")]
    Untested = 3,
}

/// A command could not do what it is for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// 2: the command line or the input is wrong, or the change was not confirmed.
    #[error("{0}")]
    Usage(String),
    /// 3: the store can't be opened, or has failed.
    #[error("{0}")]
    Store(String),
    /// 3, unless the reader of the output has gone, which is no failure.
    #[error("the output can't be written: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// Returns the failure of a store, with its causes.
    #[cfg(feature = "store")]
    pub(crate) fn of(error: impl std::error::Error) -> Self {
        Self::Store(with_causes(&error))
    }

    /// Returns the failure of a wrong usage.
    #[cfg(any(feature = "store", feature = "check"))]
    pub(crate) fn usage(why: impl std::fmt::Display) -> Self {
        Self::Usage(why.to_string())
    }

    /// Writes the failure to standard error, and returns its exit code.
    pub(crate) fn report(self) -> ExitCode {
        let code = match &self {
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            Self::Usage(_) => 2,
            Self::Store(_) | Self::Output(_) => 3,
        };
        // There is nowhere to say that this can't be written.
        let _ = io::Write::write_fmt(&mut io::stderr(), format_args!("idem: {self}\n"));
        ExitCode::from(code)
    }
}

#[cfg(all(test, feature = "store"))]
mod tests;
