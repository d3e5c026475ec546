//! The one place where a write to sled becomes durable; and what helps those who wait for a write that has failed.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::pins::pinned;
use crate::laboratory::{self, Protection};

/// A descriptor of our own for the file that sled writes to.
///
/// sled's `flush()` leaves the bytes with the operating system (`pwrite` and `sync_file_range`). What makes them
/// survive a power cut is `fdatasync` on that file.
#[derive(Debug)]
pub(super) struct Disk {
    file: File,
}

impl Disk {
    /// Opens the database file in `directory`, which sled has made.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        Ok(Self { file: OpenOptions::new().read(true).write(true).open(directory.join("db"))? })
    }

    /// Makes durable all that was written through `db` before this call.
    pub(super) fn sync(&self, db: &sled::Db) -> Result<(), String> {
        if laboratory::is_broken(Protection::Flush) {
            return Ok(());
        }
        pinned(|| db.flush()).map_err(|error| format!("flushing failed: {error}"))?;
        self.file.sync_data().map_err(|error| format!("syncing failed: {error}"))
    }
}

/// Wakes the threads that wait within sled for a write that has failed. On one of its paths sled notes the failure and
/// wakes nobody. The next call of its `flush()` finds the failure, and wakes all of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Nudge {
    under_way: Arc<AtomicBool>,
}

impl Nudge {
    /// Calls `flush()` on a thread of its own, as it may have to wait too. There is one such thread at a time.
    pub(super) fn give(&self, db: &sled::Db) {
        if self.under_way.swap(true, Ordering::SeqCst) {
            return;
        }
        let (nudge, db) = (self.clone(), db.clone());
        let give = move || {
            let _ = pinned(move || db.flush());
            nudge.under_way.store(false, Ordering::SeqCst);
        };
        // If no thread can be started, nobody is woken this time.
        if thread::Builder::new().name("idempotency-nudge".to_owned()).spawn(give).is_err() {
            self.under_way.store(false, Ordering::SeqCst);
        }
    }
}
