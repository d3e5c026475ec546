//! The one place where a write to sled becomes durable, and the wake-up call for threads that wait for a write that has
//! failed.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use tokio::sync::Semaphore;

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
/// and wakes no thread. The next call of its `flush()` finds the failure, and wakes all of them. That call is made on a
/// thread of its own, because it may have to wait too. `turn` has one permit, so there is one such thread at a time.
pub(super) fn wake(turn: &Arc<Semaphore>, flush: impl FnOnce() + Send + 'static) {
    let Ok(turn) = Arc::clone(turn).try_acquire_owned() else { return };
    let wake = move || {
        // The permit is given back even if the call panics.
        let _turn = turn;
        flush();
    };
    // If no thread can be started, no thread is woken this time.
    let _ = thread::Builder::new().name("idempotency-wake".to_owned()).spawn(wake);
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    // Seeded faults: a call that panics keeps its turn; a call does not wait for its turn.
    #[test]
    fn after_a_wake_up_call_that_panicked_there_is_another() {
        let turn = Arc::new(Semaphore::new(1));
        wake(&turn, || panic!("as sled does"));
        while turn.available_permits() == 0 {
            thread::yield_now();
        }
        let (begins, begun) = mpsc::channel();
        let (ends, end) = mpsc::channel::<()>();
        wake(&turn, move || {
            begins.send(()).unwrap();
            let _ = end.recv();
        });
        begun.recv().unwrap();
        let (calls, called) = mpsc::channel();
        wake(&turn, move || calls.send(()).unwrap());
        assert!(called.recv().is_err(), "one at a time");
        drop(ends);
    }
}
