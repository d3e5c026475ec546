//! The directory of a store: makes, checks and locks it.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::store::OpenError;

/// The file whose lock says that the directory is open. It is the first file that is made, and it stays when the store
/// is closed: it marks the directory as a store's.
const LOCK_FILE: &str = "tower-idempotency.lock";

/// The file that holds the [checkpoint](super::checkpoint), and the one that is about to be renamed to it.
pub(crate) const CHECKPOINT_FILE: &str = "tower-idempotency.checkpoint";
pub(crate) const NEW_CHECKPOINT_FILE: &str = "tower-idempotency.checkpoint.new";

/// The first line of the lock file once the first opening's boot number, and the files that the engine made, are
/// durable. The second one is the name of the engine. Stores that had only sled have no second line.
const COMPLETE: &str = "complete";
const FIRST_ENGINE: &str = "sled";
/// The prefix and the suffix of the name of a file that an unfinished first opening left, after it was set aside. fjall
/// would read a file whose name ends as those of its journals do.
const ASIDE: &str = "unfinished.";
const OLD: &str = ".old";

/// A file that this process has locked. The lock is given up explicitly: a child process that is just being started has
/// a copy of the descriptor until it runs its program, and would keep the lock for as long.
#[derive(Debug)]
struct LockedFile(File);

impl Drop for LockedFile {
    fn drop(&mut self) {
        // An error changes nothing: the descriptor is closed next.
        let _ = self.0.unlock();
    }
}

/// The directory's lock. It is held until the last of its handles is dropped, or one of them gives it up.
#[derive(Debug, Clone)]
pub(crate) struct Lock(Arc<Mutex<Option<LockedFile>>>);

impl Lock {
    /// Gives the lock up, for all its handles, so that the directory can be opened again.
    pub(crate) fn give_up(&self) {
        drop(self.0.lock().take());
    }

    /// Gives the lock up if `is_closed` says that nothing holds the engine's files any more. The question locks them
    /// for a moment, so it is not asked once the lock is given up: the next opening may be under way.
    pub(crate) fn give_up_if(&self, is_closed: impl FnOnce() -> bool) {
        let mut file = self.0.lock();
        if file.is_some() && is_closed() {
            drop(file.take());
        }
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.0.lock().is_none()
    }

    /// Returns whether the lock file is still the one in this directory. It is not if the directory was removed,
    /// renamed or replaced: the next opening would not find what is written now. If the operating system does not say,
    /// it is.
    pub(crate) fn is_in(&self, path: &Path) -> bool {
        let held = self.0.lock();
        let Some(LockedFile(file)) = &*held else { return true };
        match fs::metadata(path.join(LOCK_FILE)) {
            Ok(there) => file.metadata().map_or(true, |own| is_same(&own, &there)),
            Err(error) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
        }
    }

    /// Records durably that an opening came so far.
    pub(crate) fn complete(&self, path: &Path, engine: &str) -> Result<(), OpenError> {
        let (mut file, content) = (self.0.lock(), format!("{COMPLETE}\n{engine}\n"));
        let write = |LockedFile(file): &mut LockedFile| {
            file.write_all(content.as_bytes())?;
            file.sync_all()
        };
        file.as_mut().map_or(Ok(()), write).map_err(io_error("writing", &path.join(LOCK_FILE)))
    }
}

/// Returns whether an opening ever came so far that something could have been recorded. Refuses a store of another
/// engine than `engine`.
pub(crate) fn is_complete(path: &Path, engine: &'static str) -> Result<bool, OpenError> {
    let file = path.join(LOCK_FILE);
    let content = fs::read(&file).map_err(io_error("reading", &file))?;
    let content = String::from_utf8_lossy(&content);
    let found = content.lines().nth(1).unwrap_or(FIRST_ENGINE);
    if content.is_empty() || found == engine {
        return Ok(!content.is_empty());
    }
    Err(OpenError::OtherEngine { path: path.into(), found: found.to_owned(), engine })
}

/// Makes the directory, or checks that it is empty or a store's, and locks it.
pub(crate) fn acquire(path: &Path) -> Result<Lock, OpenError> {
    if path.exists() {
        refuse_foreign(path)?;
    } else {
        // Only the user may read them, those above that are missing included.
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(path).map_err(io_error("creating", path))?;
    }
    let lock = lock(path)?;
    // Only the user who runs the process may read the answers.
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .map_err(io_error("making private", path))?;
    Ok(Lock(Arc::new(Mutex::new(Some(lock)))))
}

/// Refuses a directory in which there is no store, so that none is made. Changes nothing.
pub(crate) fn require_store(path: &Path) -> Result<(), OpenError> {
    if path.exists() {
        refuse_foreign(path)?;
    }
    if path.join(LOCK_FILE).exists() { Ok(()) } else { Err(OpenError::NotFound { path: path.into() }) }
}

/// Refuses a directory that holds files but no lock file. An empty directory passes.
fn refuse_foreign(path: &Path) -> Result<(), OpenError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(io_error("reading", path))? {
        names.push(entry.map_err(io_error("reading", path))?.file_name().to_string_lossy().into_owned());
    }
    let has = |file: &str| names.iter().any(|name| name == file);
    if has(LOCK_FILE) {
        return Ok(());
    }
    // No opening makes the checkpoint before the name of the lock file is durable.
    if has(CHECKPOINT_FILE) {
        return Err(OpenError::LockMissing { path: path.into() });
    }
    match names.pop() {
        Some(found) => Err(OpenError::NotAStore { path: path.into(), found }),
        None => Ok(()),
    }
}

/// Makes the lock file if there is none, and locks it without waiting. Its content stays.
fn lock(path: &Path) -> Result<LockedFile, OpenError> {
    let file = path.join(LOCK_FILE);
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&file);
    let lock = lock.map_err(io_error("opening", &file))?;
    match lock.try_lock() {
        Ok(()) => Ok(LockedFile(lock)),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.into() }),
        Err(TryLockError::Error(error)) => Err(io_error("locking", &file)(error)),
    }
}

#[cfg(unix)]
fn is_same(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(not(unix))]
fn is_same(_: &Metadata, _: &Metadata) -> bool {
    true
}

/// Returns whether there is such a file. This does not ask for its times, as `stat` does: from Linux 6.13 on, the next
/// write would then note a finer time, and the sync of that takes half as long again.
pub(crate) fn is_there(file: &Path) -> io::Result<bool> {
    match fs::read_link(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        // It is no link.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(true),
        _ => file.try_exists(),
    }
}

/// Returns whether no opening holds the lock of this `file` of the engine's, which locks it while it is open. Locks it
/// for a moment.
pub(crate) fn is_unlocked(file: &Path) -> bool {
    match File::open(file) {
        Ok(file) => file.try_lock().map(|()| LockedFile(file)).is_ok(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Renames the remains of a first opening that a power cut interrupted. Nothing was recorded in them, but the engine
/// cannot read them, for this `reason`.
pub(crate) fn set_aside(path: &Path, reason: &str) -> Result<(), OpenError> {
    let directory = path.display();
    tracing::warn!(target: "tower_idempotency", path = %directory, reason, "the first opening was interrupted; it begins anew");
    for entry in fs::read_dir(path).map_err(io_error("reading", path))? {
        let name = entry.map_err(io_error("reading", path))?.file_name();
        let text = name.to_string_lossy();
        if text == LOCK_FILE || text.starts_with(ASIDE) {
            continue;
        }
        let (from, to) = (path.join(&name), path.join(format!("{ASIDE}{text}{OLD}")));
        // A file that was set aside earlier is replaced; only a directory that is not empty is in the way.
        if to.is_dir() {
            fs::remove_dir_all(&to).map_err(io_error("removing", &to))?;
        }
        fs::rename(&from, &to).map_err(io_error("renaming", &from))?;
    }
    sync_one(path)
}

/// Makes a file durable, or the names in a directory.
pub(crate) fn sync_one(path: &Path) -> Result<(), OpenError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(io_error("syncing", path))
}

/// Makes the directory, its files and its name durable, and the names of the directories above it: an earlier opening
/// may have made them and been interrupted before it synced them.
pub(crate) fn sync(path: &Path) -> Result<(), OpenError> {
    for entry in fs::read_dir(path).map_err(io_error("reading", path))? {
        let entry = entry.map_err(io_error("reading", path))?.path();
        match sync_one(&entry) {
            // The file has gone since the directory was read.
            Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    sync_one(path)?;
    let absolute = fs::canonicalize(path).map_err(io_error("finding", path))?;
    for (above, directory) in absolute.ancestors().skip(1).enumerate() {
        match sync_one(directory) {
            // The process may not have the right to read the directories higher up, or their file system may be
            // read-only or not support syncs. The one directly above has the store's own name, so it has to be synced.
            Err(OpenError::Io { source, .. }) if above > 0 && is_harmless(source.kind()) => {}
            result => result?,
        }
    }
    Ok(())
}

/// Returns whether a sync of a directory higher up may fail in this way.
fn is_harmless(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    matches!(kind, InvalidInput | PermissionDenied | ReadOnlyFilesystem | Unsupported)
}

/// Refuses a database that was in use and lacks one of these files, which the engine would make anew.
pub(crate) fn require_files(path: &Path, names: &[&str]) -> Result<(), OpenError> {
    match names.iter().find(|name| !path.join(name).exists()) {
        Some(name) => Err(broken(path, &format!("its file {name} is missing"))),
        None => Ok(()),
    }
}

pub(crate) fn broken(path: &Path, reason: &str) -> OpenError {
    OpenError::Database { path: path.into(), reason: reason.to_owned() }
}

/// Returns a function that names the operation and the file in an error of the operating system.
pub(crate) fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> OpenError + use<'a> {
    move |source| OpenError::Io { action, path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    // Seeded fault: the lock ends with the descriptor, which a child process that is being started has a copy of.
    #[test]
    fn trap_123_the_lock_is_given_up_although_a_copy_of_its_descriptor_is_open() {
        let directory = tempfile::tempdir().unwrap();
        let lock = acquire(directory.path()).unwrap();
        let copied = lock.0.lock().as_ref().unwrap().0.try_clone().unwrap();
        lock.give_up();
        assert!(acquire(directory.path()).is_ok(), "it was given up");
        assert!(is_unlocked(&directory.path().join(LOCK_FILE)), "its last handle was dropped");
        drop(copied);
    }

    // Seeded faults: it is asked after the lock was given up; the lock is given up while it is asked. The question
    // locks the engine's files, and an opening that came then found them in use.
    #[test]
    fn whether_the_engine_is_closed_is_not_asked_once_another_opening_may_be_under_way() {
        let directory = tempfile::tempdir().unwrap();
        let lock = acquire(directory.path()).unwrap();
        let ((asks, asked), (answers, answered)) = (mpsc::channel(), mpsc::channel::<()>());
        let asking = lock.clone();
        let question = thread::spawn(move || {
            asking.give_up_if(|| {
                asks.send(()).unwrap();
                answered.recv().is_err()
            });
        });
        asked.recv().unwrap();
        let giving_up = lock.clone();
        let (gives, given) = mpsc::channel();
        let given_up = thread::spawn(move || {
            giving_up.give_up();
            gives.send(()).unwrap();
        });
        assert!(given.recv_timeout(Duration::from_millis(50)).is_err(), "not while it is asked");
        drop(answers);
        question.join().unwrap();
        given_up.join().unwrap();
        lock.give_up_if(|| unreachable!("it is not asked any more"));
        assert!(acquire(directory.path()).is_ok());
    }
}
