//! The errors of Redis, and what they say of what was done.

use std::fmt;
use std::time::Duration;

use redis::ServerError;
use tower_idempotency::internals::in_words;
use tower_idempotency_shared::BackendError;
use tower_idempotency_shared::for_backends::NotOpen;

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
    #[error(
        "the database's URL has the parameter `{name}`, which this client does not know, or can't read: mend or remove \
         it; `durability` is memory, aof, replicas:N or replicas:N:fsync"
    )]
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
    /// The database has refused, and will refuse again: the user, its password, its rights, or TLS. The operator is at
    /// fault.
    #[error("the database has refused: {reason}")]
    Refused {
        /// The reason.
        reason: String,
    },
    /// This crate does not support the server: it is of another kind, too old, or has no engine for scripts.
    #[error("the database's server is not supported: {reason}")]
    Unsupported {
        /// What it is, or what it lacks.
        reason: String,
    },
    /// The trial at opening has failed: the server took a claim that came too late, or lost one. Keys would run twice.
    #[error("the server does not compare and set rows as its script says")]
    ClaimIgnored,
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

/// The reason why there is no connection, or no opened backend.
pub(crate) type NotConnected = NotOpen<RedisError>;
/// What comes of connecting or opening.
pub(crate) type Opened<T> = Result<T, NotConnected>;
/// What comes of a call.
pub(crate) type Called<T> = Result<T, BackendError>;

pub(crate) fn refused(reason: impl Into<String>) -> NotConnected {
    NotOpen::ForGood(RedisError::Refused { reason: reason.into() })
}

pub(crate) fn unsupported(reason: impl Into<String>) -> NotConnected {
    NotOpen::ForGood(RedisError::Unsupported { reason: reason.into() })
}

/// The meaning of an error in words: the password, a right, a command or the engine for scripts is missing, or another
/// try may help.
pub(crate) fn not_connected(error: impl fmt::Display) -> NotConnected {
    let words = error.to_string();
    let any = |parts: &[&str]| parts.iter().any(|part| words.to_ascii_lowercase().contains(part));
    // Valkey 9.1 made the engine a module.
    if any(&["scripting engine", "unknown command 'eval"]) {
        return unsupported(format!("{words}; the server has no Lua engine: load its module"));
    }
    // "The user executing the script can't run this command": Redis 7.0 says so of a right that is missing in a script,
    // and later releases speak of an ACL failure.
    let is_forbidden = any(&["noperm", "user executing the script", "acl failure", "unknown command"]);
    let is_for_good = is_forbidden || any(&["noauth", "wrongpass", "authentication failed"]);
    if is_for_good { refused(words) } else { NotOpen::Away(words) }
}

/// The server has answered with something else than was asked for: whatever that was may have been done.
pub(crate) fn unreadable(why: impl fmt::Display) -> BackendError {
    BackendError::Uncertain(format!("the answer of Redis can't be read: {why}").into())
}

/// The limit that the server has reached when it refuses for lack of memory.
pub(crate) const MAXMEMORY: &str = "maxmemory";

/// Returns whether an answer with this code says that the server is not the primary of the rows, or not yet.
pub(crate) fn is_elsewhere(code: &str) -> bool {
    matches!(code, "READONLY" | "MOVED" | "ASK" | "LOADING" | "MASTERDOWN" | "CLUSTERDOWN")
}

/// What an answer that is an error says of what was done. A server refuses a script as a whole before its first line,
/// with a code of its own. An error from within the script has the same codes, and names the script: some of its writes
/// may be done.
pub(crate) fn meaning(error: &ServerError) -> BackendError {
    let (code, details) = (error.code(), error.details().unwrap_or_default());
    let words = format!("{code} {details}").into();
    match code {
        _ if details.contains("script: ") || details.contains("user_script") => BackendError::Uncertain(words),
        // Another script runs, or the rows are being moved.
        "BUSY" | "TRYAGAIN" => BackendError::Busy(words),
        "OOM" => BackendError::Full(MAXMEMORY),
        "NOSCRIPT" | "NOREPLICAS" | "MISCONF" | "NOPERM" | "NOAUTH" | "CROSSSLOT" => BackendError::Nothing(words),
        code if is_elsewhere(code) => BackendError::Nothing(words),
        _ => BackendError::Uncertain(words),
    }
}

#[cfg(test)]
mod tests {
    use redis::{Value, parse_redis_value};

    use super::*;

    fn meaning_of(code: &str, details: &str) -> BackendError {
        let answer = parse_redis_value(format!("-{code} {details}\r\n").as_bytes()).unwrap();
        if let Value::ServerError(error) = answer { meaning(&error) } else { panic!("{answer:?}") }
    }

    #[test]
    fn a_refusal_of_the_whole_script_has_done_nothing() {
        let codes = ["READONLY", "MOVED", "ASK", "LOADING", "MASTERDOWN", "CLUSTERDOWN"];
        for code in codes.iter().chain(&["NOSCRIPT", "NOREPLICAS", "MISCONF", "NOPERM"]) {
            assert!(matches!(meaning_of(code, "it refuses"), BackendError::Nothing(_)), "{code}");
        }
        assert!(codes.iter().all(|code| is_elsewhere(code)) && !is_elsewhere("NOREPLICAS"));
        for code in ["BUSY", "TRYAGAIN"] {
            assert!(matches!(meaning_of(code, "it refuses"), BackendError::Busy(_)), "{code}");
        }
        assert!(matches!(meaning_of("OOM", "it refuses"), BackendError::Full(MAXMEMORY)));
    }

    #[test]
    fn an_error_from_within_a_script_may_have_done_something() {
        for code in ["NOPERM", "WRONGTYPE", "ERR", "OOM", "READONLY", "MISCONF", "TRYAGAIN"] {
            let within = "it can't: it failed script: 0f3a, on @user_script:9.";
            assert!(matches!(meaning_of(code, within), BackendError::Uncertain(_)), "{code}");
        }
        for code in ["ERR", "WRONGTYPE", "UNKILLABLE", "EXECABORT", "ANOTHER"] {
            assert!(matches!(meaning_of(code, "it refuses"), BackendError::Uncertain(_)), "{code}");
        }
    }

    #[test]
    fn what_another_try_would_not_change_is_refused_at_once() {
        for words in [
            "ERR unknown command 'PUBLISH'",
            "WRONGPASS invalid username-password pair",
            "The user executing the script can't run this command",
            "ERR ACL failure in script: User it has no permissions to run the 'time' command",
        ] {
            assert!(matches!(not_connected(words), NotOpen::ForGood(RedisError::Refused { .. })), "{words}");
        }
        for words in ["ERR unknown command 'EVALSHA'", "ERR Could not find scripting engine 'lua'"] {
            assert!(matches!(not_connected(words), NotOpen::ForGood(RedisError::Unsupported { .. })), "{words}");
        }
        for words in ["password.example:6379: Connection refused", "LOADING Redis is loading the dataset in memory"] {
            assert!(matches!(not_connected(words), NotOpen::Away(_)), "{words}");
        }
    }
}
