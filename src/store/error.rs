//! The faults of a store.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::clock::Timestamp;
use crate::key::RecordId;

/// An error of a backend or of a store, which the public errors keep as their source.
pub(crate) type Source = Box<dyn Error + Send + Sync>;

/// A fault of a store. `Debug` writes what `Display` does, and the source.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A limit that the operator set is reached; claims are refused. Nothing was done.
    #[error(
        "the store takes no new keys: {limit} reached; raise the limit, purge old records, or mend the setting of that name"
    )]
    Full {
        /// The limit that is reached.
        limit: &'static str,
    },
    /// The store is behind with its work; claims are refused. Nothing was done.
    #[error("the store is overloaded: {reason}; try again in a moment")]
    Overloaded {
        /// The reason for it.
        reason: &'static str,
    },
    /// The store can't be reached, was closed or is poisoned. Nothing was done.
    #[error("the store is not available: {reason}")]
    Unavailable {
        /// The reason why the store is not available.
        reason: String,
        /// The error of the store's backend.
        #[source]
        source: Option<Source>,
    },
    /// The transition may or may not have been done: the fault came between the request and its answer.
    #[error("it is not known whether the store did it: {reason}")]
    Uncertain {
        /// The fault.
        reason: String,
        /// The error of the store's backend.
        #[source]
        source: Option<Source>,
    },
    /// The record of this id is damaged. Nothing was done. Restore the store from a backup, or wait until the record
    /// would have expired: it is deleted then. A shared store lists it among the interrupted operations from
    /// now on, and it can be settled.
    #[error("the record {} is damaged: {reason}", id.short())]
    Corrupt {
        /// The id of the record.
        id: RecordId,
        /// The fault of the record.
        reason: String,
    },
}

impl StoreError {
    /// Returns an error that says that nothing was done, for a reason of the store's own.
    pub(crate) fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into(), source: None }
    }

    /// Returns the same, for an error of the store's backend.
    #[cfg(feature = "_embedded")]
    pub(in crate::store) fn unavailable_by(reason: &str, source: impl Into<Source>) -> Self {
        Self::Unavailable { reason: reason.to_owned(), source: Some(source.into()) }
    }

    /// Returns an error that says that the transition may have been done, for a reason of the store's own.
    pub(crate) fn uncertain(reason: impl Into<String>) -> Self {
        Self::Uncertain { reason: reason.into(), source: None }
    }
}

/// Returns whether the process, or the system, had no descriptor or memory left. The operation has then changed
/// nothing, and may be tried again.
#[cfg(feature = "_embedded")]
pub(in crate::store) fn is_shortage(error: &io::Error) -> bool {
    #[cfg(unix)]
    {
        use rustix::io::Errno;
        matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
    }
    #[cfg(not(unix))]
    {
        error.kind() == io::ErrorKind::OutOfMemory
    }
}

/// What to do about an error of the operating system.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        #[cfg(feature = "_embedded")]
        _ if is_shortage(error) => {
            "the process has no open file or memory left: raise its limits (ulimit -n), and try again"
        }
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            "check that the path is right and its volume is mounted"
        }
        io::ErrorKind::PermissionDenied => {
            "check that the directory belongs to the user of this process, and is writable"
        }
        // A thread that was refused.
        io::ErrorKind::WouldBlock => {
            "the process may start no more threads: raise its limit (ulimit -u), and try again"
        }
        _ => "check that the disk has space and the directory is writable",
    }
}

/// A store could not be opened. Its records are unchanged. `Debug` writes what `Display` does, and the source.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory is open already, in this process or in another one.
    #[error(
        "{} is in use: one store at a time may open it. Clone the store that is open, or stop the other process", path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds files that are not a store's.
    #[error("{} is not a store's directory: it holds {found}. Give an empty or a new directory; if it is a store's that was restored, restore all of its files", path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// One of the foreign files.
        found: String,
    },
    /// The directory holds a store's files, but not the lock file. A part of it was restored or copied.
    #[error(
        "{} holds a store's files without the lock file `tower-idempotency.lock`; restore the whole directory from the \
         backup. If the backup has no such file, make it: its two lines are `complete` and the name of \
         the engine, `sled` or `fjall`. Do not start with an empty directory, which knows no key", path.display()
    )]
    LockMissing {
        /// The directory.
        path: PathBuf,
    },
    /// Another storage engine wrote the store. Its directory is unchanged.
    #[error(
        "the store in {} was written by {found}, and not by {engine}; open it with {found}, or copy it into a new \
         directory with `idem copy`", path.display()
    )]
    OtherEngine {
        /// The directory.
        path: PathBuf,
        /// The engine that wrote it, such as `sled`.
        found: String,
        /// The engine that was to open it.
        engine: &'static str,
    },
    /// There is no store, and `create(false)` says that none is to be made.
    #[error(
        "there is no store in {}, and none is made; check that its volume is mounted and the path is right. A new store \
         knows no key; to make one all the same, open it with `create(true)`", path.display()
    )]
    NotFound {
        /// The directory.
        path: PathBuf,
    },
    /// Records are missing, because the disk is damaged, for example: the last ones as a rule. Every opening is
    /// refused, until `accept_loss_after` names this loss.
    #[error(
        "the store in {} has lost records: {reason}; restore the directory from a backup. To go on without them, open \
         it with `accept_loss_after({last})`: requests with their keys can then run a second time", path.display()
    )]
    Lost {
        /// The directory.
        path: PathBuf,
        /// The number of the last batch that is there, or that the checkpoint names if the damage is in the middle of
        /// the log. The loss is accepted by it.
        last: u64,
        /// The number of batches that are missing, if that is known.
        missing: Option<u64>,
        /// The time at which the last batch that is there was made. What is missing was recorded later. `None` if the
        /// damage is in the middle of the log, because a record of any time may then be missing.
        since: Option<Timestamp>,
        /// The loss: what is missing, and where the damage is, if that is known.
        reason: String,
    },
    /// The store was written by a later release of this crate.
    #[error("the store in {} has format {format}; this release reads up to {known}. Use a later release", path.display())]
    Format {
        /// The directory.
        path: PathBuf,
        /// The format of the store.
        format: u8,
        /// The latest format that this release reads.
        known: u8,
    },
    /// The database was made by another version of the storage engine, or with settings other than this release's.
    #[error(
        "the database in {} was made by another release: {reason}; use that release, or start with a new directory", path.display()
    )]
    Incompatible {
        /// The directory.
        path: PathBuf,
        /// The reason that the engine gives.
        reason: String,
    },
    /// The operating system refused an operation.
    #[error("{action} {} failed; {}", path.display(), advice(source))]
    Io {
        /// The operation.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The database in the directory can't be read.
    #[error(
        "the database in {} can't be opened: {reason}; check that the disk has space and no errors, then start again; \
         if it stays so, restore the directory from a backup", path.display()
    )]
    Database {
        /// The directory.
        path: PathBuf,
        /// The fault of the database.
        reason: String,
    },
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        in_words("StoreError", self, f)
    }
}

impl fmt::Debug for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        in_words("OpenError", self, f)
    }
}

/// Writes an error as `Debug`, which is what a `main` that returns it prints: its name, its text, and its sources'.
pub fn in_words(name: &str, error: &dyn Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{name}({})", with_causes(error))
}

/// Returns an error and its causes as one text.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let (mut text, mut source) = (error.to_string(), error.source());
    while let Some(error) = source {
        let next = error.to_string();
        // Some errors repeat their source.
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    text
}
