//! The errors of the database, and what they say of what was done.

use std::error::Error as _;
use std::time::Duration;
use std::{fmt, io};

use tokio_postgres::error::Severity;
use tokio_postgres::{Config, Error};

use super::hosts::place;
use tower_idempotency::internals::in_words;
use tower_idempotency_shared::BackendError;

/// A database could not be used at start. Its rows are as they were.
///
/// No variant has a password in it, nor the URL. `Debug` writes what `Display` does.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum PostgresError {
    /// The URL can't be read. The operator is at fault.
    #[error(
        "the database's URL can't be read; expected postgres://user:password@host:port/database, with all characters but \
         letters and digits percent-encoded in its parts"
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
    /// The database has refused, and will refuse again: the role, its password, its rights, the database's name, TLS,
    /// or a namespace for which the database's encoding has no letters. It is not tried again. The operator is at
    /// fault.
    #[error("the database has refused: {reason}")]
    Refused {
        /// The message of the error.
        reason: String,
    },
    /// The tables and functions are missing, or those of an older release.
    #[error(
        "the schema {schema} of the database has {}; run `PostgresBackendBuilder::migrate()` once, or its schema.sql by hand",
        match found { None => "no table of this crate".to_owned(), Some(found) => format!("version {found}, and {needed} is needed") }
    )]
    Schema {
        /// The schema in which they were looked for.
        schema: String,
        /// Their version, if they are there.
        found: Option<i32>,
        /// The version that is needed.
        needed: i32,
    },
}

impl fmt::Debug for PostgresError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        in_words("PostgresError", self, f)
    }
}

/// An error in words, as the source of another.
type Words = Box<dyn std::error::Error + Send + Sync>;

/// An error in words.
pub(super) fn words(error: &Error) -> String {
    if let Some(said) = error.as_db_error() {
        let hint = if is_schema_missing(said.code().code()) {
            "; are the table and the functions there? `PostgresBackendBuilder::migrate()` makes them"
        } else {
            ""
        };
        return format!("{}: {} ({}){hint}", said.severity(), said.message(), said.code().code());
    }
    // The client's own error. Without its source it says only what failed, and not why.
    match error.source().map(ToString::to_string) {
        Some(source) if source.starts_with("server does not support") => {
            format!("{error}: {source}; the URL's `sslmode` or `channel_binding` asks for it")
        }
        Some(source) if source == "database does not allow writes" => {
            format!("{error}: {source}; is it a standby, or is `default_transaction_read_only` on?")
        }
        Some(source) if is_about_tls(error) => {
            format!("{error}: {source}; give a TLS configuration by `PostgresBackendBuilder::tls`")
        }
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// The reason why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotConnected {
    /// The client or the server has failed to connect, or has refused a statement.
    #[error("{}", words(.0))]
    Refused(#[from] Error),
    #[error("the server does not answer within {} ms", .0.as_millis())]
    Late(Duration),
    /// A pooler refuses or drops what is set for a connection.
    #[error(
        "a pooler is in front of the database and does not keep what is set for a connection; say `behind_pooler()`, or \
         connect to the database itself"
    )]
    Pooler,
    /// The role lacks a right.
    #[error("{0}")]
    Rights(String),
    /// Any of these, with the host and its port.
    #[error("{place}: {why}")]
    At { place: String, why: Box<Self> },
}

impl NotConnected {
    /// Returns whether another try would end like this one: the role, its password, its rights, the namespace or the
    /// database is wrong, or the way there.
    pub(super) fn is_for_good(&self) -> bool {
        match self {
            Self::Refused(error) => match error.code() {
                // Data and constraints; authorization; the schema or the database is missing; access, names and syntax;
                // limits.
                Some(code) => {
                    matches!(code.code().get(..2), Some("22" | "23" | "28" | "3D" | "3F" | "42" | "54"))
                }
                None => is_about_tls(error) || is_about_configuration(error),
            },
            Self::Late(_) => false,
            Self::Pooler | Self::Rights(_) => true,
            Self::At { why, .. } => why.is_for_good(),
        }
    }

    /// The same, of the host of `config`.
    pub(super) fn at(self, config: &Config) -> Self {
        Self::At { place: place(config), why: Box::new(self) }
    }

    /// Returns the meaning of an error at connecting: a pooler refuses to set something for a connection.
    pub(super) fn of(error: Error) -> Self {
        let is_pooler = error.as_db_error().is_some_and(|said| said.message().contains("startup parameter"));
        if is_pooler { Self::Pooler } else { Self::Refused(error) }
    }
}

// The client says what kind of error it is only in words. `tests/postgres/schema/opening.rs` would notice others.

/// Returns whether a connection can't be encrypted as it should: there is no TLS here or there, or the certificate is
/// wrong. A connection that ended meanwhile is another matter.
fn is_about_tls(error: &Error) -> bool {
    let has_ended = |source: &(dyn std::error::Error + 'static)| {
        source.downcast_ref().is_some_and(|error: &io::Error| error.kind() != io::ErrorKind::InvalidData)
    };
    error.to_string().starts_with("error performing TLS handshake") && !error.source().is_some_and(has_ended)
}

/// Returns whether the configuration lacks something that the server asks for, such as a password.
fn is_about_configuration(error: &Error) -> bool {
    let words = error.to_string();
    words.starts_with("invalid configuration") || words.starts_with("authentication error")
}

/// No table, no function, no schema.
pub(super) fn is_schema_missing(code: &str) -> bool {
    matches!(code, "42P01" | "42883" | "3F000")
}

/// Returns whether the role lacks a right: `insufficient_privilege`.
pub(super) fn is_forbidden(error: &Error) -> bool {
    error.code().is_some_and(|code| code.code() == "42501")
}

/// Returns what an error of a statement says of what was done.
pub(super) fn of_a_statement(error: &Error) -> BackendError {
    // Without details that name values of a row.
    let words = words(error).into();
    match error.as_db_error() {
        Some(said) => meaning(said.code().code(), said.parsed_severity())(words),
        None => BackendError::Uncertain(words),
    }
}

/// Returns whether the connection is as good as before: the statement was refused, and the server remains what it was.
pub(super) fn leaves_the_connection_sound(error: &Error) -> bool {
    error.code().is_some_and(|code| {
        let code = code.code();
        // A lock, a conflict, a deadlock; then data, constraints and limits.
        matches!(code, "55P03" | "40001" | "40P01") || matches!(code.get(..2), Some("22" | "23" | "54"))
    })
}

/// Returns the meaning of an error by its SQLSTATE and its severity. A statement that ends with an ERROR was rolled
/// back, and its connection goes on; what ends the connection is uncertain, whatever its code. To send again is
/// harmless.
fn meaning(code: &str, severity: Option<Severity>) -> fn(Words) -> BackendError {
    // A server that panics, as its disk is full, may have written the commit just before.
    if matches!(severity, Some(Severity::Fatal | Severity::Panic)) {
        return BackendError::Uncertain;
    }
    match code {
        // No lock, a conflict, a deadlock.
        "55P03" | "40001" | "40P01" => BackendError::Busy,
        // The server itself does not know whether the statement was completed.
        "40003" => BackendError::Uncertain,
        // A standby, a server that starts; a statement that was planned for another schema, or prepared on another
        // connection.
        "25006" | "57P03" | "0A000" | "26000" => BackendError::Nothing,
        _ => match code.get(..2) {
            // Resources; access, names and syntax; the schema or the database is missing; authorization.
            Some("53" | "42" | "3F" | "3D" | "28") => BackendError::Nothing,
            // Data, constraints, limits.
            Some("22" | "23" | "54") => BackendError::Never,
            // The connection is what failed.
            Some("08") => BackendError::Uncertain,
            // Any other code with an ERROR: the statement was rolled back.
            _ if severity == Some(Severity::Error) => BackendError::Nothing,
            _ => BackendError::Uncertain,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{BackendError, Severity, meaning};

    /// Returns the name of the error that a code means.
    fn meaning_of(code: &str, severity: Option<Severity>) -> &'static str {
        match meaning(code, severity)("it failed".into()) {
            BackendError::Nothing(_) => "nothing",
            BackendError::Busy(_) => "busy",
            BackendError::Never(_) => "never",
            BackendError::Uncertain(_) => "uncertain",
            error => panic!("{error}"),
        }
    }

    #[test]
    fn a_code_says_what_may_have_been_done() {
        for code in ["55P03", "40001", "40P01"] {
            assert_eq!(meaning_of(code, Some(Severity::Error)), "busy", "{code}");
        }
        for code in ["53100", "53300", "25006", "57P03", "42P01", "42501", "3F000", "28P01"] {
            assert_eq!(meaning_of(code, Some(Severity::Error)), "nothing", "{code}");
        }
        for code in ["22003", "22008", "23502", "54000"] {
            assert_eq!(meaning_of(code, Some(Severity::Error)), "never", "{code}");
        }
        // A statement that took too long, a trigger, a damaged page: rolled back, unless the connection ended with it.
        for code in ["57014", "58030", "P0001", "XX001", ""] {
            assert_eq!(meaning_of(code, Some(Severity::Error)), "nothing", "{code}");
            for severity in [Some(Severity::Fatal), Some(Severity::Panic), None] {
                assert_eq!(meaning_of(code, severity), "uncertain", "{code}");
            }
        }
        // A disk that is full when the log of commits goes on to its next file, after the one with this commit.
        for code in ["53100", "57P01", "57P02", "42501", "55P03"] {
            for severity in [Severity::Fatal, Severity::Panic] {
                assert_eq!(meaning_of(code, Some(severity)), "uncertain", "{code}");
            }
        }
        for code in ["08006", "40003"] {
            assert_eq!(meaning_of(code, Some(Severity::Error)), "uncertain", "{code}");
        }
    }
}
