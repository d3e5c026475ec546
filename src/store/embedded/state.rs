//! The state that the handles, the writer and the watchdog share.

use std::convert::Infallible;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;

use super::files::checkpointer::Checkpointer;
use super::files::directory::Lock;
use super::key_filter::{KeyFilter, Runs};
use super::layout::cleared::Cleared;
use super::layout::storage_engine::{ReadError, StorageEngine, Volume};
use super::layout::totals::Totals;
use super::measured::Measured;
use super::space::{Limits, Space};
use crate::clock::{Timeline, Timestamp};
use crate::key::RecordId;
use crate::record::Fence;
use crate::slots::{Slots, once_a_minute};
use crate::store::cache::Cache;
use crate::store::{Health, StoreError};

/// The reason that a store gives if its engine has panicked.
pub(crate) const PANICKED: &str = "the database panicked";

/// The time that a write may take before the store is reported as slow.
pub(super) const SLOW: Duration = Duration::from_secs(5);
/// The time that a write may take before new keys are refused until it is over: half of `STORE_TIMEOUT`.
const LATE: Duration = Duration::from_millis(2_500);
/// The number of commands that may wait for the writer before new keys are refused: eight full batches.
const MAX_WAITING: usize = 4_096;
/// The number of threads that may read at a time.
pub(super) const READERS: u32 = 4;
/// The number of bits of the fences of one boot: there are 2^40 fences. The boot number has the 23 bits above, so that
/// a fence fits a signed 64-bit column.
pub(super) const BOOT_SHIFT: u32 = 40;
pub(super) const MAX_BOOT: u64 = (1 << 23) - 1;

/// An opened store.
pub(super) struct StoreState<E: StorageEngine> {
    /// The store's directory.
    pub(super) path: PathBuf,
    /// The runs of this process, and its counters. The writer reads how many runs are under way, and counts damage.
    pub(super) slots: Arc<Slots>,
    /// `None` once the store is closed.
    pub(super) engine: RwLock<Option<E>>,
    /// Durable outcomes. Only the writer fills and empties it; a poisoned store still answers from it.
    pub(super) cache: Cache,
    /// By it a request for a new key is answered without a read.
    pub(super) key_filter: KeyFilter,
    /// The runs whose claims are on disk. Only the writer takes this lock, and an opening.
    pub(super) runs: Mutex<Runs>,
    pub(super) time: Timeline,
    pub(super) limits: Limits,
    /// The totals of the last durable step. They count expired records, too. The writer sets them once a batch is
    /// durable.
    pub(super) totals: Mutex<Totals>,
    /// The number of this opening, which is the upper part of all its fences.
    pub(super) boot: u64,
    /// The next fence, or the next number of a listing entry: both are taken from here.
    pub(super) next_fence: AtomicU64,
    /// The time before which no entry lists records that expire, in milliseconds. An engine may take long to pass over
    /// many keys that were removed, so a sweep begins here.
    pub(super) swept_until: AtomicU64,
    /// Where the listing entries began when the store was opened.
    pub(super) cleared: Cleared,
    /// The number of listing entries that were removed, durably, since the store noted how far it has come.
    pub(super) removed: AtomicU64,
    /// Writes the checkpoint of the last durable step, on a thread of its own.
    pub(super) checkpointer: Arc<Checkpointer>,
    /// The time at which the batch under way began. The writer sets it; the watchdog, `check_busy` and `health` read
    /// it.
    pub(super) batch: Mutex<Option<Instant>>,
    /// The free space of the disk.
    pub(super) space: Space,
    /// What the writer notes of its work.
    pub(super) measured: Measured,
    /// Permits to read from the disk. The writer takes all of them while it writes a step key by key.
    pub(super) readers: Arc<Semaphore>,
    /// `close` sets this first, and commands are refused from then on. It is never reset.
    pub(super) closed: AtomicBool,
    /// The first failure, such as that of a write, sync or read. It stays until the process is started again.
    pub(super) poison: OnceLock<String>,
    /// The directory's lock, which is given up after the engine's own.
    pub(super) lock: Lock,
}

/// Shows no record: outcomes are what clients were answered, and an engine would read its whole file.
impl<E: StorageEngine> fmt::Debug for StoreState<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let records = self.totals.lock().count;
        f.debug_struct("StoreState")
            .field("path", &self.path)
            .field("records", &records)
            .field("slots", &self.slots)
            .finish_non_exhaustive()
    }
}

impl<E: StorageEngine> StoreState<E> {
    /// Returns the engine, unless the store is closed. The caller releases it with
    /// [`release_engine`](Self::release_engine).
    pub(super) fn engine(&self) -> Option<E> {
        self.engine.read().clone()
    }

    /// Releases a handle of the engine. The last one may write once more, and panics if that fails.
    pub(super) fn release_engine(&self, engine: E) {
        if catch_unwind(AssertUnwindSafe(|| engine.close())).is_err() {
            self.poison("the database panicked while it was closed".to_owned());
        }
    }

    /// Calls `read`. An engine may panic on some internal failures, and that poisons the store too.
    pub(super) fn guarded<T>(&self, read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
            self.poison(PANICKED.to_owned());
            Err(StoreError::unavailable(PANICKED))
        })
    }

    /// Poisons the store: from now on it refuses everything that the cache can't answer.
    pub(super) fn poison(&self, reason: String) {
        let mut first = false;
        let reason = self.poison.get_or_init(|| {
            first = true;
            reason
        });
        if first {
            let path = self.path.display();
            tracing::error!(target: "tower_idempotency", %path, reason, "the store is poisoned; restart the process");
        }
    }

    /// Returns the caller's error for a failed read. If the operating system or the engine refused the read, the store
    /// is poisoned, as by a failed write. It is not if the process only lacked a descriptor or memory for it.
    pub(super) fn read_failed(&self, error: ReadError, id: RecordId) -> StoreError {
        match error {
            ReadError::Corrupt(reason) => StoreError::Corrupt { id, reason },
            ReadError::Exhausted(error) => {
                let lines = &self.slots.telemetry.lines;
                once_a_minute!(lines.of("exhausted"), error, %error, "a record was not read; the store goes on");
                StoreError::unavailable_by("the process has no file or memory left for a read", error)
            }
            ReadError::Failed(error) => {
                self.poison(format!("reading failed: {error}"));
                StoreError::unavailable_by("reading failed", error)
            }
        }
    }

    /// Counts and logs a damaged record that no request asked for.
    pub(super) fn report_damage(&self, id: RecordId, error: &StoreError, what: &str) {
        self.slots.telemetry.counters.corrupt.fetch_add(1, Ordering::Relaxed);
        tracing::error!(target: "tower_idempotency", record_id = id.short(), %error, "a damaged record is {what}");
    }

    /// Returns an error if the store is poisoned or closed.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let reason = match self.poison.get() {
            Some(reason) => format!("poisoned, restart the process: {reason}"),
            None if self.closed.load(Ordering::SeqCst) => "closed".to_owned(),
            None => return Ok(()),
        };
        Err(StoreError::unavailable(reason))
    }

    /// Returns an error if the directory is not where it was opened.
    pub(super) fn check_place(&self) -> Result<(), String> {
        let path = self.path.display();
        let moved = || format!("the directory {path} was removed, renamed or replaced; put it back before the restart");
        if self.lock.is_in(&self.path) { Ok(()) } else { Err(moved()) }
    }

    /// Returns whether a write, sync or read has failed.
    pub(super) fn is_poisoned(&self) -> bool {
        self.poison.get().is_some()
    }

    /// Returns a fence that was never given before, or an error once those of this boot are used up.
    pub(super) fn next_fence(&self) -> Result<Fence, StoreError> {
        let fence = self.next_fence.fetch_add(1, Ordering::Relaxed);
        if fence >> BOOT_SHIFT > self.boot {
            return Err(StoreError::unavailable("2^40 fences were given since it was opened; restart the process"));
        }
        Ok(Fence(fence))
    }

    /// Returns the time at which a sweep begins.
    pub(super) fn swept_until(&self) -> Timestamp {
        Timestamp::from_millis(self.swept_until.load(Ordering::Relaxed))
    }

    /// Returns a number for a listing entry, later than all before. It is taken from the fences, of which one boot has
    /// enough for both.
    pub(super) fn next_number(&self) -> u64 {
        self.next_fence.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns a number that no entry has: earlier entries have lower numbers, and later ones have this number or a
    /// higher one.
    pub(super) fn unused_number(&self) -> u64 {
        self.next_fence.load(Ordering::Relaxed)
    }

    /// Returns an error if there is no room for one more record, when there are so many already.
    pub(super) fn check_room(&self, totals: &Totals) -> Result<(), StoreError> {
        let Limits { max_records, max_bytes, .. } = self.limits;
        let full = |limit| Err(StoreError::Full { limit });
        if totals.count >= max_records {
            return full("max_records");
        }
        if totals.bytes >= max_bytes {
            return full("max_bytes");
        }
        self.check_space()
    }

    /// Returns an error if the disk has too little free space.
    pub(super) fn check_space(&self) -> Result<(), StoreError> {
        if self.space.is_low() { Err(StoreError::Full { limit: "min_free_space" }) } else { Ok(()) }
    }

    /// Refuses a new key while the writer is behind: too many commands wait, or the batch under way takes too long.
    pub(super) fn check_busy(&self, waiting: usize) -> Result<(), StoreError> {
        self.check_queue(waiting)?;
        if self.batch_age().is_some_and(|age| age >= LATE) {
            return Err(StoreError::Overloaded { reason: "a write has not returned for 2.5 s" });
        }
        Ok(())
    }

    /// Refuses a command that may be refused, while too many commands wait for the writer.
    pub(super) fn check_queue(&self, waiting: usize) -> Result<(), StoreError> {
        self.check()?;
        if waiting >= MAX_WAITING {
            return Err(StoreError::Overloaded { reason: "4,096 commands wait for the disk" });
        }
        Ok(())
    }

    /// Returns how long the batch under way has taken so far.
    pub(super) fn batch_age(&self) -> Option<Duration> {
        self.batch.lock().map(|started| started.elapsed())
    }

    /// Leaves a time in which the process did not run, and which has just ended, out of the age of the batch under way.
    pub(super) fn leave_out(&self, time: Duration) {
        if let Some(started) = &mut *self.batch.lock() {
            *started = (*started + time).min(Instant::now());
        }
    }

    /// Returns the health. A poisoned store is reported as such even if it was closed.
    pub(super) fn health(&self) -> Health {
        if let Some(reason) = self.poison.get() {
            return Health::Poisoned { reason: reason.clone() };
        }
        if self.closed.load(Ordering::SeqCst) {
            return Health::Closed;
        }
        match (self.batch_age(), self.check_room(&self.totals.lock())) {
            (Some(since), _) if since >= SLOW => Health::Slow { since },
            (_, Err(StoreError::Full { limit })) => Health::Full { limit },
            _ => Health::Good,
        }
    }

    /// Notes what the engine has written, and logs it once a minute.
    pub(super) fn note_volume(&self, volume: Volume) {
        if let Some(Volume { written, merged }) = self.measured.note_volume(volume, Instant::now()) {
            let path = self.path.display();
            tracing::debug!(
                target: "tower_idempotency", %path, written_bytes = written, merged_bytes = merged,
                "what the store wrote since the last such line"
            );
        }
    }
}

impl<E: StorageEngine> Drop for StoreState<E> {
    /// Closes the engine, because the last handle is gone and `close` was not called.
    fn drop(&mut self) {
        let engine = self.engine.get_mut().take();
        if let Some(engine) = engine {
            release_apart(engine);
        }
        // Otherwise the watchdog gives the lock up, once the engine is closed.
        self.lock.give_up_if(|| E::is_closed(&self.path));
    }
}

/// Releases a handle of the engine, which may be the last one, on a thread of its own, and waits for that for at most
/// [`StorageEngine::RELEASE_TIMEOUT`]. The last handle waits for the engine's own threads. One of them may have
/// panicked on a damaged file, and sled waits for it for ever. If no thread can be started, the handle is released at
/// once.
pub(super) fn release_apart<E: StorageEngine>(engine: E) {
    let (releases, released) = mpsc::channel::<Infallible>();
    let release = move || {
        // The last handle may write once more, and panics if that fails.
        let _ = catch_unwind(AssertUnwindSafe(|| engine.close()));
        drop(releases);
    };
    if thread::Builder::new().name("idempotency-release".to_owned()).spawn(release).is_ok() {
        // An error: it has been released, or the time is over.
        let _ = released.recv_timeout(E::RELEASE_TIMEOUT);
    }
}
