//! The one place where a write to fjall becomes durable.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::journal;
use crate::store::embedded::files::directory::is_there;

/// The bytes of a journal that are read at a time. So many zeros are taken for the space behind its last batch.
const CHUNK: u64 = 256 * 1024;

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
        let number = journal::numbers(directory)?.pop().ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { directory: directory.into(), number, file: open(directory, number)? })
    }

    /// Makes durable everything that fjall has handed to the operating system before this call.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        loop {
            self.file.sync_data()?;
            // fjall syncs a journal before it begins another one. If that failed, the sync above says so.
            let Some(next) = self.next()? else { return Ok(()) };
            let file = match open(&self.directory, next) {
                // fjall has removed it since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            // If the worker has failed to sync this journal, a descriptor that is opened later does not report that.
            // What is written again is synced again.
            if !write_again(&file)? {
                // The worker may have failed to begin it, so that fjall goes on with the other one.
                return Ok(());
            }
            // The worker may have failed to make its name durable.
            File::open(&self.directory)?.sync_all()?;
            (self.number, self.file) = (next, file);
        }
    }

    /// Returns the number of the journal after this one, if fjall has begun one. This opens no file unless there is
    /// one: a process may have no descriptor left.
    fn next(&self) -> io::Result<Option<u64>> {
        let is_there = |number| is_there(&journal::file(&self.directory, number));
        if is_there(self.number + 1)? {
            return Ok(Some(self.number + 1));
        }
        // fjall removes the oldest journal first.
        if is_there(self.number)? {
            return Ok(None);
        }
        // It has begun others since, and removed some: tables have what is in these.
        let later = journal::numbers(&self.directory)?.into_iter().find(|number| *number > self.number);
        later.map(Some).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the journal was removed"))
    }
}

/// Some systems sync only files that may be written to.
fn open(directory: &Path, number: u64) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(journal::file(directory, number))
}

/// Writes the whole batches of a journal again, as they are. fjall may write behind them meanwhile. Returns whether
/// anything is in it.
fn write_again(mut journal: &File) -> io::Result<bool> {
    let (mut at, mut bytes) = (0, Vec::new());
    loop {
        let read = bytes.len();
        journal.seek(SeekFrom::Start(at + read as u64))?;
        journal.take(CHUNK).read_to_end(&mut bytes)?;
        if bytes[read..].iter().all(|byte| *byte == 0) {
            return Ok(at > 0 || read > 0);
        }
        let whole = journal::whole(&bytes);
        journal.seek(SeekFrom::Start(at))?;
        journal.write_all(&bytes[..whole])?;
        bytes.drain(..whole);
        at += whole as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::SystemTime;

    use xxhash_rust::xxh3::xxh3_64;

    use super::*;

    /// A batch without entries.
    fn batch() -> Vec<u8> {
        [&[1][..], &[0; 12], &[3], &xxh3_64(b"").to_le_bytes(), b"FJL\x03"].concat()
    }

    fn begin(directory: &Path, number: u64) {
        fs::write(journal::file(directory, number), [batch(), vec![0; 9]].concat()).unwrap();
    }

    fn remove(directory: &Path, number: u64) {
        fs::remove_file(journal::file(directory, number)).unwrap();
    }

    // Seeded faults: the journal after the first one is not looked for; the one after a removed one is not.
    #[test]
    fn the_journals_that_fjall_has_begun_since_are_synced_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert_eq!(Disk::open(path).unwrap_err().kind(), io::ErrorKind::NotFound);
        (3..=4).for_each(|number| begin(path, number));
        let mut disk = Disk::open(path).unwrap();
        disk.sync().unwrap();
        assert_eq!(disk.number, 4);
        // What is in it is in tables, and fjall has removed it.
        (5..=6).for_each(|number| begin(path, number));
        remove(path, 4);
        disk.sync().unwrap();
        assert_eq!(disk.number, 6);
        (7..=9).for_each(|number| begin(path, number));
        (6..=7).for_each(|number| remove(path, number));
        disk.sync().unwrap();
        assert_eq!(disk.number, 9);
        // An operator has removed it.
        remove(path, 9);
        assert_eq!(disk.sync().unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    // Seeded fault: it is not written again.
    #[test]
    fn what_fjall_may_have_failed_to_sync_before_is_written_again_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        begin(directory.path(), 1);
        let mut disk = Disk::open(directory.path()).unwrap();
        for (number, batches) in [(2, 1), (3, 20_000)] {
            let journal = journal::file(directory.path(), number);
            let content = [batch().repeat(batches), b"\x01torn".to_vec(), vec![0; 9]].concat();
            fs::write(&journal, &content).unwrap();
            File::options().write(true).open(&journal).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
            disk.sync().unwrap();
            assert_ne!(journal.metadata().unwrap().modified().unwrap(), SystemTime::UNIX_EPOCH);
            assert_eq!(fs::read(&journal).unwrap(), content);
            // What it wrote would hide damage.
            let damaged = [&content[..content.len() - 9], &[7; 9][..]].concat();
            fs::write(&journal, &damaged).unwrap();
            assert!(write_again(&disk.file).unwrap());
            assert_eq!(fs::read(&journal).unwrap(), damaged);
        }
    }

    // fjall makes a journal, and goes on with the one before if it can't prepare it. Seeded fault: the store goes on to
    // any journal.
    #[test]
    fn a_journal_that_fjall_has_not_begun_to_write_to_does_not_replace_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        begin(directory.path(), 1);
        let mut disk = Disk::open(directory.path()).unwrap();
        for empty in [0, 9] {
            fs::write(journal::file(directory.path(), 2), vec![0; empty]).unwrap();
            disk.sync().unwrap();
            assert_eq!(disk.number, 1);
        }
        begin(directory.path(), 2);
        disk.sync().unwrap();
        assert_eq!(disk.number, 2);
    }
}
