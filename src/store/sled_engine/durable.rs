//! The one place where a write to sled becomes durable, and the wake-up call for threads that wait for a write that has
//! failed.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::epochs::pinned;
use crate::store::embedded::files::directory::is_there;

/// A descriptor of the store's own for the file that sled writes to.
///
/// sled's `flush()` leaves the bytes with the operating system (`pwrite` and `sync_file_range`). Only `fdatasync` on
/// that file makes them survive a power cut.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    file: File,
}

impl Disk {
    /// Opens the database file in `directory`, which sled has made.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join("db");
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        Ok(Self { path, file })
    }

    /// Makes durable everything that was written through `db` before this call.
    pub(super) fn sync(&self, db: &sled::Db) -> Result<(), String> {
        pinned(|| db.flush()).map_err(|error| format!("flushing failed: {error}"))?;
        self.file.sync_data().map_err(|error| format!("syncing failed: {error}"))?;
        // sled goes on with a file that was removed, and the next opening has nothing of what is in it.
        if is_there(&self.path).is_ok_and(|is_there| !is_there) {
            return Err("the file db was removed or renamed".to_owned());
        }
        Ok(())
    }
}

/// Wakes the threads that wait within sled for a write that has failed. On one of its paths sled records the failure
/// and wakes no thread. The next call of its `flush()` finds the failure, and wakes all of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Wake {
    under_way: Arc<AtomicBool>,
}

/// A wake-up under way. It is over when this is dropped, even by a panic.
struct WakeUnderWay(Arc<AtomicBool>);

impl Drop for WakeUnderWay {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Wake {
    /// Begins a wake-up, unless one is under way.
    fn begin(&self) -> Option<WakeUnderWay> {
        let is_first = !self.under_way.swap(true, Ordering::SeqCst);
        is_first.then(|| WakeUnderWay(Arc::clone(&self.under_way)))
    }

    /// Calls `flush()` on a thread of its own, because it may have to wait too. There is one such thread at a time.
    pub(super) fn give(&self, db: &sled::Db) {
        let Some(under_way) = self.begin() else { return };
        let db = db.clone();
        let give = move || {
            // The call may panic.
            let _under_way = under_way;
            let _ = pinned(move || db.flush());
        };
        // If no thread can be started, no thread is woken this time.
        let _ = thread::Builder::new().name("idempotency-wake".to_owned()).spawn(give);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_wake_up_call_that_panicked_there_is_another() {
        let wake = Wake::default();
        let first = wake.begin();
        assert!(first.is_some() && wake.begin().is_none(), "one at a time");
        let panicking = thread::spawn(move || {
            let _under_way = first;
            panic!("as sled does")
        });
        assert!(panicking.join().is_err());
        assert!(wake.begin().is_some());
    }
}
