//! The smallest engine: a map in memory, which is written to a file as a whole when it is made durable. It proves that
//! the code that every embedded engine needs is in this room, and not in sled's.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use bytes::Bytes;

use crate::store::CommitError;
use crate::store::embedded::files::directory;
use crate::store::embedded::layout::storage_engine::{FileDamage, ReadError, RecordWritesFn, StorageEngine};
use crate::store::embedded::layout::writes::Writes;
use crate::store::embedded::transact::{AppValue, Transacted};
use crate::store::{OpenError, StoreError};

#[derive(Debug, Clone)]
pub(super) struct MapEngine {
    file: PathBuf,
    map: Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>,
    writes_fail: Arc<AtomicBool>,
    after_syncs_fail: Arc<AtomicBool>,
    is_short: Arc<AtomicBool>,
    last_was_atomic: Arc<AtomicBool>,
    last: Arc<Last>,
}

/// A value that is dropped with the last handle.
#[derive(Debug)]
struct Last(PathBuf);

impl Drop for Last {
    fn drop(&mut self) {
        let mut open = open();
        let closed = open.iter().position(|open| *open == self.0).unwrap();
        open.swap_remove(closed);
        drop(open);
        // An error means that the directory is still locked, as it should be, or gone.
        if self.0.exists() && directory::acquire(&self.0).is_ok() {
            let _ = fs::write(self.0.join(OUTLIVED), []);
        }
    }
}

/// The directories whose engines are open.
static OPEN: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn open() -> MutexGuard<'static, Vec<PathBuf>> {
    OPEN.lock().unwrap()
}

/// A file that says that a handle is lent. It has a byte for each time that the store asked.
pub(super) const LENT: &str = "lent";

/// A file that says that the engine panics when it is read, and that its last handle is never released, because one of
/// its threads has panicked too.
pub(super) const DAMAGED: &str = "damaged";

/// A file that says what is certainly damaged.
pub(super) const HOLE: &str = "hole";

/// A value that is damaged, and one whose read fails.
pub(super) const UNREADABLE: &[u8] = b"unreadable";
pub(super) const FAILING: &[u8] = b"failing";

/// A file that says that the engine outlived the directory's lock.
pub(super) const OUTLIVED: &str = "outlived";

impl MapEngine {
    fn is_damaged(&self) -> bool {
        self.file.with_file_name(DAMAGED).exists()
    }

    /// Makes its writes fail from now on.
    pub(super) fn fail_writes(&self) {
        self.writes_fail.store(true, Ordering::SeqCst);
    }

    /// Makes what it does after the answers fail from now on.
    pub(super) fn fail_after_syncs(&self) {
        self.after_syncs_fail.store(true, Ordering::SeqCst);
    }

    /// Sets whether its reads fail because the process has no descriptor left.
    pub(super) fn set_short(&self, is_short: bool) {
        self.is_short.store(is_short, Ordering::SeqCst);
    }

    /// Returns whether the last step that was written was atomic.
    pub(super) fn last_was_atomic(&self) -> bool {
        self.last_was_atomic.load(Ordering::SeqCst)
    }

    /// Makes it panic from now on.
    pub(super) fn panics(&self) {
        let holding = || {
            let _held = self.map.lock().unwrap();
            panic!("on purpose")
        };
        thread::scope(|threads| assert!(threads.spawn(holding).join().is_err()));
    }
}

impl StorageEngine for MapEngine {
    const NAME: &'static str = "map";
    const FILES: u64 = 8;
    /// Two tests wait for this: the last handle of a damaged engine is never released.
    const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

    type Options = ();
    type Value = Vec<u8>;
    /// An outcome; the effect writes nothing of its own.
    type Transaction = AppValue<Bytes>;
    type Maintenance = ();

    fn examine(path: &Path, _: bool) -> Result<Option<FileDamage>, OpenError> {
        let what = fs::read_to_string(path.join(HOLE)).ok();
        Ok(what.map(|what| FileDamage { what, is_certain: true, last: None }))
    }

    fn open((): &(), path: &Path, _: Option<&FileDamage>) -> Result<Self, OpenError> {
        let file = path.join("map");
        let bytes = fs::read(&file).unwrap_or_default();
        let map = if bytes.is_empty() { BTreeMap::new() } else { postcard::from_bytes(&bytes).unwrap() };
        open().push(path.into());
        Ok(Self {
            file,
            map: Arc::new(Mutex::new(map)),
            writes_fail: Arc::default(),
            after_syncs_fail: Arc::default(),
            is_short: Arc::default(),
            last_was_atomic: Arc::default(),
            last: Arc::new(Last(path.into())),
        })
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        assert!(!self.is_damaged(), "on purpose");
        match self.map.lock().unwrap().get(key) {
            Some(value) if value == UNREADABLE => Err(ReadError::Corrupt("on purpose".to_owned())),
            Some(value) if value == FAILING => Err(ReadError::Failed("on purpose".into())),
            // The process has no descriptor left: EMFILE.
            _ if self.is_short.load(Ordering::SeqCst) => Err(ReadError::Exhausted(io::Error::from_raw_os_error(24))),
            value => Ok(value.cloned()),
        }
    }

    fn range(&self, from: Vec<u8>) -> impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), ReadError>> {
        assert!(!self.is_damaged(), "on purpose");
        let map = self.map.lock().unwrap();
        let mut entries: Vec<_> = map.range(from..).map(|(key, value)| Ok((key.clone(), value.clone()))).collect();
        if self.is_short.load(Ordering::SeqCst) {
            entries = vec![Err(ReadError::Exhausted(io::Error::from_raw_os_error(24)))];
        }
        entries.into_iter()
    }

    fn write(&self, step: Writes) -> Result<(), String> {
        if self.writes_fail.load(Ordering::SeqCst) {
            return Err("on purpose".to_owned());
        }
        self.last_was_atomic.store(step.is_atomic, Ordering::SeqCst);
        let mut map = self.map.lock().unwrap();
        for (key, value) in step.entries {
            match value {
                Some(value) => drop(map.insert(key, value.to_vec())),
                None => drop(map.remove(&key)),
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), String> {
        let bytes = postcard::to_allocvec(&*self.map.lock().unwrap()).unwrap();
        fs::write(&self.file, bytes).map_err(|error| error.to_string())
    }

    fn after_sync(&self, _: &[Range<Vec<u8>>]) -> Result<(), String> {
        if self.after_syncs_fail.load(Ordering::SeqCst) { Err("on purpose".to_owned()) } else { Ok(()) }
    }

    fn transact(&self, effect: &mut AppValue<Bytes>, writes_of: RecordWritesFn<'_>) -> Transacted<(Bytes, usize)> {
        let outcome = effect.get_mut();
        let writes = writes_of(outcome)?;
        self.write(writes)
            .map(|()| (outcome.clone(), 0))
            .map_err(|reason| CommitError::Store(StoreError::uncertain(reason)))
    }

    fn close(self) {
        while self.is_damaged() && Arc::strong_count(&self.last) == 1 {
            thread::park();
        }
    }

    fn is_closed(path: &Path) -> bool {
        if let Ok(mut lent) = OpenOptions::new().append(true).open(path.join(LENT)) {
            lent.write_all(b"?").unwrap();
            return false;
        }
        !open().iter().any(|open| open == path)
    }
}
