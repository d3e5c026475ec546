//! The memtables of the keyspaces: when they are written to tables, and where old ones are freed.
//!
//! fjall must not decide by itself that a memtable is full: it would ask its worker at each write until that has come
//! to it; if the worker takes long, a thousand such requests fill its queue, and it waits for ever for a place in it.
//! So the store decides, after each sync. (fjall still writes out keyspaces that hold up the removal of a journal.)
//!
//! When fjall drops an old memtable, or an old version of a keyspace with the tables that it alone has, all calls wait:
//! to free 64 MiB, and to remove such a file, takes up to a tenth of a second. So a thread keeps a handle of each, and
//! drops it when fjall has none any more. That of a version is given to the thread two rotations of its keyspace later;
//! until then, the old tables of an idle keyspace stay on disk.

use std::any::Any;
use std::mem;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fjall::{AbstractTree as _, Keyspace};
use parking_lot::Mutex;

use crate::store::OpenError;
use crate::store::embedded::files::directory;

/// The name of the thread.
const FREES: &str = "idempotency-mem";
/// The interval at which the thread looks whether fjall still has a memtable. It doubles each time, because fjall keeps
/// the last one of a keyspace until the next.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOOK_SELDOM: Duration = Duration::from_secs(10);

/// What the thread drops once no other handle of it is left.
type Old = Arc<dyn Any + Send + Sync>;

/// The keyspaces that were opened, the store's own included.
pub(super) struct Memtables {
    opened: Mutex<Vec<Opened>>,
    /// The bytes of new entries of a keyspace that are kept in memory before they are written to a table.
    most: u64,
    /// These are there until this is dropped.
    old: Option<Sender<Old>>,
    thread: Option<JoinHandle<()>>,
}

/// A keyspace, and its versions. fjall drops those of one rotation of the memtable in the next one at the latest.
struct Opened {
    keyspace: Keyspace,
    /// The number of the last version that was seen.
    version: u64,
    /// Those that were seen since the last rotation, and before it.
    versions: Vec<Old>,
    earlier: Vec<Old>,
}

impl Memtables {
    /// Starts the thread.
    pub(super) fn new(most: u64) -> Result<Self, OpenError> {
        let (old, dropped) = channel();
        let thread = thread::Builder::new().name(FREES.to_owned()).spawn(move || free(&dropped));
        let thread = thread.map_err(directory::io_error("starting a thread", Path::new(FREES)))?;
        Ok(Self { opened: Mutex::default(), most, old: Some(old), thread: Some(thread) })
    }

    /// Takes a keyspace in, if it is not here yet.
    pub(super) fn add(&self, keyspace: Keyspace) {
        let mut opened = self.opened.lock();
        if !opened.iter().any(|opened| opened.keyspace == keyspace) {
            opened.push(Opened { keyspace, version: u64::MAX, versions: Vec::new(), earlier: Vec::new() });
        }
    }

    /// Has the memtables that are full written to tables. While fjall is behind, they may be twice as large for each
    /// one that waits: from four on, fjall would hold up every write for a tenth of a second at a time.
    pub(super) fn write_full(&self) -> Result<(), String> {
        for Opened { keyspace, version, versions, earlier } in &mut *self.opened.lock() {
            let now = keyspace.tree.current_version();
            if mem::replace(version, now.id()) != now.id() {
                versions.push(Arc::new(now));
            }
            let waiting = u32::try_from(keyspace.tree.sealed_memtable_count()).unwrap_or(u32::MAX);
            let memtable = keyspace.tree.active_memtable();
            if memtable.size() > self.most.saturating_mul(2_u64.saturating_pow(waiting)) {
                keyspace.rotate_memtable().map_err(|error| format!("writing a table failed: {error}"))?;
                self.free(memtable);
                mem::replace(earlier, mem::take(versions)).into_iter().for_each(|old| self.free(old));
            }
        }
        Ok(())
    }

    /// Hands something to the thread. If that has ended, which it does not, this drops it.
    fn free(&self, old: Old) {
        let _ = self.old.as_ref().map(|thread| thread.send(old));
    }
}

/// Files are removed before fjall's lock is given up, which the keyspaces hold: another opening gives out their names
/// again.
impl Drop for Memtables {
    fn drop(&mut self) {
        self.opened.get_mut().iter_mut().for_each(|opened| (opened.versions, opened.earlier) = Default::default());
        drop(self.old.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Drops what no other handle is left of.
fn free(old: &Receiver<Old>) {
    let (mut kept, mut wait) = (Vec::new(), LOOK_EVERY);
    loop {
        let next = match &*kept {
            [] => old.recv().map_err(RecvTimeoutError::from),
            _ => old.recv_timeout(wait),
        };
        match next {
            Ok(old) => {
                kept.push(old);
                wait = LOOK_EVERY;
            }
            Err(RecvTimeoutError::Timeout) => wait = LOOK_SELDOM.min(wait * 2),
            Err(RecvTimeoutError::Disconnected) => return,
        }
        kept.retain(|old| Arc::strong_count(old) > 1);
    }
}
