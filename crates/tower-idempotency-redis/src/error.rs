//! The errors of Redis, and what they say of what was done.

use std::fmt;
use std::time::Duration;

use redis::Value;
use tower_idempotency::internals::in_words;
use tower_idempotency_shared::BackendError;

/// A database could not be used at start. Its rows are as they were.
///
/// No variant has a password in it, nor the URL. `Debug` writes what `Display` does.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum RedisError {
    /// The URL can't be read. The operator is at fault.
    #[error(
        "the database's URL can't be read; expected redis://user:password@host:port, rediss:// for TLS, \
         redis+sentinel://host:port,host:port/name or redis+cluster://host:port,host:port, with all characters but letters \
         and digits percent-encoded in its parts"
    )]
    Url,
    /// The URL has a parameter that this client does not know, or whose value it can't read.
    #[error("the database's URL has the parameter `{name}`, which this client does not know, or can't read: remove it")]
    Parameter {
        /// The name of the parameter.
        name: String,
    },
    /// An option has a value that it can't have.
    #[error("{option} is {reason}")]
    Option {
        /// The option.
        option: &'static str,
        /// The fault of its value.
        reason: &'static str,
    },
    /// The database can't be reached. The reason names its host and port.
    #[error("the database is away: it was tried for {} s: {reason}", waited.as_secs())]
    Away {
        /// The time for which it was tried.
        waited: Duration,
        /// The reason of the last failure.
        reason: String,
    },
    /// The database has refused, and will refuse again: the user, its password, its rights, or TLS; or it is a server
    /// that this crate does not support. The operator is at fault.
    #[error("the database has refused: {reason}")]
    Refused {
        /// The reason.
        reason: String,
    },
    /// The server deletes keys of its own accord when its memory is full, or does not say whether it does. A key that
    /// is deleted runs again. The operator is at fault.
    #[error(
        "the server's maxmemory-policy is {policy}, by which it may delete records: set it to noeviction or to one that \
         begins with volatile-, or accept the loss by `RedisBackendBuilder::accept_eviction`"
    )]
    Evicts {
        /// The policy, or `unknown`.
        policy: String,
    },
    /// The server is not set up for the durability that is asked for. The operator is at fault.
    #[error("the server does not keep what `Durability` asks for: {reason}")]
    NotDurable {
        /// What is missing.
        reason: String,
    },
}

impl fmt::Debug for RedisError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        in_words("RedisError", self, f)
    }
}

/// An error of a call, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Said(String);

/// The reason why there is no connection, or no opened backend.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotConnected {
    /// Another try may help.
    #[error("{0}")]
    Away(String),
    /// Another try would end like this one.
    #[error("{0}")]
    ForGood(RedisError),
}

impl NotConnected {
    pub(crate) fn refused(reason: impl Into<String>) -> Self {
        Self::ForGood(RedisError::Refused { reason: reason.into() })
    }

    /// The meaning of an error in words: the password, a right or the engine for scripts is missing, or another try may
    /// help.
    pub(crate) fn of(error: impl fmt::Display) -> Self {
        let words = error.to_string();
        let any = |parts: &[&str]| parts.iter().any(|part| words.to_ascii_lowercase().contains(part));
        // Valkey 9.1 made the engine a module.
        if any(&["scripting engine", "unknown command 'eval"]) {
            return Self::refused(format!("{words}; the server has no Lua engine: load its module"));
        }
        let is_for_good = any(&["noperm", "noauth", "wrongpass", "authentication failed", "password"]);
        if is_for_good { Self::refused(words) } else { Self::Away(words) }
    }

    /// The same, of the server at `place`.
    pub(crate) fn at(place: &impl fmt::Display, error: &redis::RedisError) -> Self {
        Self::of(format!("{place}: {error}{}", error.code().map_or(String::new(), |code| format!(" ({code})"))))
    }
}

// The next four make the errors of the contract, which say what may have been done.
/// Nothing was sent that could write.
pub(crate) fn nothing(reason: impl Into<String>) -> BackendError {
    BackendError::Nothing(Box::new(Said(reason.into())))
}

/// Nothing was sent: too many calls of this process are under way.
pub(crate) fn crowded(reason: impl Into<String>) -> BackendError {
    BackendError::Crowded(Box::new(Said(reason.into())))
}

/// The database does not take such a row.
pub(crate) fn never(reason: impl Into<String>) -> BackendError {
    BackendError::Never(Box::new(Said(reason.into())))
}

/// It may have been done.
pub(crate) fn uncertain(reason: impl Into<String>) -> BackendError {
    BackendError::Uncertain(Box::new(Said(reason.into())))
}

/// The limit that the server has reached when it refuses for lack of memory.
pub(crate) const MAXMEMORY: &str = "maxmemory";

/// The possible effect of a script that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Nothing was done. Trying again may help.
    Nothing,
    /// Nothing was done, because this server is not the primary of the rows, or not yet.
    Elsewhere,
    /// Nothing was done: another script runs, the rows are being moved, or one of them is no row. Each row of the call
    /// is tried by itself then, so that no other suffers.
    Busy,
    /// Nothing was done: there is no memory for a new row.
    Full,
    /// Nothing was done: the server does not know the script by its digest.
    Unknown,
    /// It may have been done.
    Uncertain,
}

impl Extent {
    /// What an answer says, if it is an error.
    pub(crate) fn of(answer: &Value) -> Option<Self> {
        let Value::ServerError(error) = answer else { return None };
        Some(Self::of_words(error.code(), error.details().unwrap_or_default()))
    }

    /// A server refuses a script as a whole before its first line, with a code of its own. An error from within the
    /// script has the same codes, and names the script: some of its writes may be done.
    fn of_words(code: &str, details: &str) -> Self {
        if details.contains("script: ") || details.contains("user_script") {
            return Self::Uncertain;
        }
        match code {
            "READONLY" | "MOVED" | "ASK" | "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" => Self::Elsewhere,
            // The last is the script's own, and comes before its first write.
            "BUSY" | "TRYAGAIN" | "TIROW" => Self::Busy,
            "OOM" => Self::Full,
            "NOSCRIPT" => Self::Unknown,
            "NOREPLICAS" | "MISCONF" | "NOPERM" | "NOAUTH" | "CROSSSLOT" => Self::Nothing,
            _ => Self::Uncertain,
        }
    }

    /// The error of the contract.
    pub(crate) fn error(self, words: String) -> BackendError {
        match self {
            Self::Nothing | Self::Elsewhere | Self::Unknown => nothing(words),
            Self::Busy => BackendError::Busy(Box::new(Said(words))),
            Self::Full => BackendError::Full(MAXMEMORY),
            Self::Uncertain => uncertain(words),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_the_whole_script_has_done_nothing() {
        for code in ["READONLY", "MOVED", "LOADING", "MASTERDOWN", "CLUSTERDOWN"] {
            assert_eq!(Extent::of_words(code, "You can't"), Extent::Elsewhere, "{code}");
        }
        for (code, extent) in [
            ("BUSY", Extent::Busy),
            ("TRYAGAIN", Extent::Busy),
            ("TIROW", Extent::Busy),
            ("OOM", Extent::Full),
            ("NOSCRIPT", Extent::Unknown),
            ("NOREPLICAS", Extent::Nothing),
            ("MISCONF", Extent::Nothing),
            ("NOPERM", Extent::Nothing),
        ] {
            assert_eq!(Extent::of_words(code, "it refuses"), extent, "{code}");
        }
    }

    #[test]
    fn an_error_from_within_a_script_may_have_done_something() {
        for code in ["NOPERM", "WRONGTYPE", "ERR", "OOM", "READONLY", "MISCONF", "TRYAGAIN"] {
            let within = "it can't: it failed script: 0f3a, on @user_script:9.";
            assert_eq!(Extent::of_words(code, within), Extent::Uncertain, "{code}");
        }
        for code in ["ERR", "WRONGTYPE", "UNKILLABLE", "EXECABORT", ""] {
            assert_eq!(Extent::of_words(code, ""), Extent::Uncertain, "{code}");
        }
    }
}
