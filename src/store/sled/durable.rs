//! The one place where a write becomes durable.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

/// sled's `flush()` leaves the bytes with the operating system (`pwrite` and `sync_file_range`). What makes them
/// survive a power cut is `fdatasync`, on a descriptor of our own for the file sled writes to.
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
        db.flush().map_err(|error| format!("flushing failed: {error}"))?;
        self.file.sync_data().map_err(|error| format!("syncing failed: {error}"))
    }
}
