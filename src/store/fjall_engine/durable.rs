//! The one place where a write to fjall becomes durable.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::journal;

/// A descriptor of the store's own for the journal that fjall writes to.
///
/// fjall's worker syncs the journal too, by fjall's descriptor. If that fails, the worker lets others write and sync
/// before it says that nothing more is to be written; and the kernel reports a failure once by each descriptor, and may
/// have dropped what it could not write. So a sync by fjall's descriptor may succeed though the data is lost.
#[derive(Debug)]
pub(super) struct Disk {
    directory: PathBuf,
    /// The number of the journal.
    number: u64,
    file: File,
}

impl Disk {
    /// Opens the newest journal in `directory`, which fjall has made.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let number = journal::newest(directory)?.ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { directory: directory.into(), number, file: open(directory, number)? })
    }

    /// Makes durable everything that fjall has handed to the operating system before this call.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        loop {
            self.file.sync_data()?;
            // fjall syncs a journal before it begins another one. If that failed, the sync above says so.
            match open(&self.directory, self.number + 1) {
                Ok(file) => (self.number, self.file) = (self.number + 1, file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            }
            // The worker may have failed to make its name durable.
            File::open(&self.directory)?.sync_all()?;
        }
    }
}

/// Some systems sync only files that may be written to.
fn open(directory: &Path, number: u64) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(journal::file(directory, number))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    // Seeded fault: the journal after the first one is not looked for.
    #[test]
    fn the_journals_that_fjall_has_begun_since_are_synced_too() {
        let directory = tempfile::tempdir().unwrap();
        let begin = |number| fs::write(journal::file(directory.path(), number), "batches").unwrap();
        assert_eq!(Disk::open(directory.path()).unwrap_err().kind(), io::ErrorKind::NotFound);
        (3..=4).for_each(begin);
        let mut disk = Disk::open(directory.path()).unwrap();
        disk.sync().unwrap();
        assert_eq!(disk.number, 4);
        (5..=6).for_each(begin);
        // What is in it is in tables, and fjall has removed it.
        fs::remove_file(journal::file(directory.path(), 4)).unwrap();
        disk.sync().unwrap();
        assert_eq!(disk.number, 6);
    }
}
