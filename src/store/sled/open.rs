//! Opening: directory, lock, database, format, boot number, and the runs that the last process left.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::batch::Batch;
use super::batch::outcome_bytes;
use super::cache::Cache;
use super::directory::broken;
use super::durable::{Disk, nudging};
use super::present::{Cut, Present};
use super::queue::queue;
use super::read;
use super::repair::{damaged, repair};
use super::state::{Database, Limits, MAX_BOOT, Opening, Shared};
use super::totals::Totals;
use super::{SledStore, directory, keys, listing, segments, watchdog, writer};
use crate::clock::{Clock, SystemClock, Timeline, Timestamp};
use crate::key::RecordId;
use crate::record::{Fence, Record, State, Transition};
use crate::store::{OpenError, StoreError};

/// The version of the layout in `keys.rs` and of the codec. No release has written those before it.
const FORMAT: u8 = 3;
/// Runs of an earlier process that are said to be interrupted in one batch.
const CUT_PER_BATCH: usize = 512;

/// sled's unit of space; and how often it makes durable what its space collection has moved. (sled would take 16 MiB too, but
/// keeps offsets within a segment in 24 bits, which the last byte of so long a one doesn't fit.)
///
/// Before a segment is used again, two others are filled with what was moved out of it and what came later. sled makes
/// none of that durable first. What protects it is that sled's flusher collects for half of its interval at most, and has
/// synced what it moved when the next one ends: what it moves in 25 ms is unsynced at most, and to fill two segments of 8 MiB
/// it would have to move 670 MB a second, page by page. What the writer thread writes, at most 192 KiB at a time, it syncs itself. With
/// the usual 512 KiB and 500 ms a power cut could leave the old place overwritten and the new one empty. A longer interval
/// would save syncs of an idle store, of which there are 40 a second, and leave more unsynced.
const SEGMENT_BYTES: usize = 8 * 1024 * 1024;
const FLUSH_EVERY_MS: u64 = 25;

/// How often it is looked whether another process has let a directory go.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Sets up a [`SledStore`].
#[derive(Debug, Clone)]
#[must_use]
pub struct SledStoreBuilder {
    cache_bytes: u64,
    outcome_cache_bytes: u64,
    limits: Limits,
    clock: Arc<dyn Clock>,
}

impl Default for SledStoreBuilder {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        let clock = Arc::new(SystemClock::default());
        let limits = Limits { max_records: 10_000_000, max_bytes: u64::MAX, min_free: None };
        Self { cache_bytes: 64 * MIB, outcome_cache_bytes: 16 * MIB, limits, clock }
    }
}

impl SledStoreBuilder {
    /// The bytes of memory in which sled keeps pages of the database. Default: 64 MiB.
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// The bytes of memory in which recent outcomes are kept, to be replayed without a read. Default: 16 MiB.
    pub fn outcome_cache_bytes(mut self, bytes: u64) -> Self {
        self.outcome_cache_bytes = bytes;
        self
    }

    /// The records from which on no new key is taken, so that the disk doesn't fill up. Runs under way whose claims leave no
    /// trace (`Rerun`) come on top. Default: 10 million.
    pub fn max_records(mut self, records: u64) -> Self {
        self.limits.max_records = records;
        self
    }

    /// The bytes of recorded outcomes from which on no new key is taken, so that the disk doesn't fill up. Runs under way still
    /// record theirs. Default: no limit; `min_free_space` protects the disk.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.limits.max_bytes = bytes;
        self
    }

    /// The bytes of the disk that are to be left free: with less, no new key is taken, and runs under way still record their
    /// outcomes. That is what it is for, so leave more where many of them may end with long ones: `max_runs` times
    /// `max_response_body` is the most that they need. Looked at before each batch of writes, and eight times a second; where the operating system doesn't say how
    /// much is free, nothing is refused. 0: no limit. Default: a tenth of what the user may use of the disk, at most 1 GiB.
    pub fn min_free_space(mut self, bytes: u64) -> Self {
        self.limits.min_free = Some(bytes);
        self
    }

    /// Where the time comes from. Default: [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Opens the store in `directory`.
    ///
    /// # Errors
    /// As [`SledStore::open`].
    pub fn open(self, directory: impl AsRef<Path>) -> Result<SledStore, OpenError> {
        let (shared, disk) = self.prepare(directory.as_ref())?;
        let (sender, verbs) = queue();
        let shared = Arc::new(shared);
        let watched = Arc::downgrade(&shared);
        let writing = Arc::clone(&shared);
        spawn("idempotency-writer", move || writer::run(&writing, verbs, &disk))?;
        spawn("idempotency-watchdog", move || watchdog::run(&watched))?;
        Ok(SledStore::new(shared, sender))
    }

    /// Opens the store in `directory`, and waits for at most `patience` where another process, or another opening in this
    /// one, has it open: so that a new process may start while the last one is still closing. Blocks its thread.
    ///
    /// # Errors
    /// As [`SledStore::open`]; [`OpenError::InUse`] only after `patience`.
    pub fn open_within(self, directory: impl AsRef<Path>, patience: Duration) -> Result<SledStore, OpenError> {
        let began = Instant::now();
        loop {
            match self.clone().open(&directory) {
                Err(OpenError::InUse { .. }) if began.elapsed() < patience => thread::sleep(LOOK_EVERY),
                opened => return opened,
            }
        }
    }

    /// Everything but the threads.
    pub(super) fn prepare(self, path: &Path) -> Result<(Shared, Disk), OpenError> {
        let lock = directory::acquire(path)?;
        // The lock file is durable before sled makes its files: without it they would be taken for somebody else's. And what
        // a process that was killed has left with the operating system is made durable first: sled builds a durable
        // snapshot on it, and after a power cut that lost it there would be nothing under the snapshot.
        directory::sync(path)?;
        let was_used = directory::is_complete(&lock);
        segments::mark_the_end(path, SEGMENT_BYTES, was_used)?;
        let Self { cache_bytes, .. } = self;
        // sled panics on some damaged files, and where the last write fails as its handles go.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let database = match open_caught(path, cache_bytes) {
                Err(OpenError::Database { .. }) if !was_used => {
                    directory::set_aside(path)?;
                    open_database(path, cache_bytes)?
                }
                opened => opened?,
            };
            let disk = Disk::open(path).map_err(directory::io_error("opening", &path.join("db")))?;
            directory::sync(path)?;
            let db = database.db.clone();
            Ok((nudging(&db, || self.start(path, database, lock, &disk))?, disk))
        }));
        opened.unwrap_or_else(|_| Err(panicked(path)))
    }

    /// Takes a new boot number and says of the last process's runs that they were cut short, all of it durable.
    fn start(self, path: &Path, database: Database, lock: File, disk: &Disk) -> Result<Shared, OpenError> {
        let tree = &database.tree;
        let meta = |key| match tree.get(key) {
            Ok(value) => Ok(value),
            Err(error) => Err(broken(path, &error.to_string())),
        };
        let format = meta(keys::FORMAT)?;
        if format.is_none() && directory::is_complete(&lock) {
            return Err(broken(path, "it is empty, though it was in use"));
        }
        check_format(path, format.as_deref())?;
        let last = known(path, format.is_some(), meta(keys::BOOT)?.as_deref(), number)?.unwrap_or(0);
        if last >= MAX_BOOT {
            return Err(broken(path, "it was opened 2^23 times, so that fences would repeat; start a new directory"));
        }
        let boot = last + 1;
        let totals = meta(keys::TOTALS)?;
        let totals = known(path, format.is_some(), totals.as_deref(), Totals::decode)?.unwrap_or_default();
        let listed = Present::load(tree, totals.count, &totals.entries);
        let listed = listed.map_err(|error| broken(path, &error.to_string()))?;
        let (cut, cut_bytes) = cut_off(tree, &listed.cut);
        let time = Timeline::start(self.clock, Timestamp::from_millis(totals.seen));
        let shared = Shared::new(Opening {
            path: path.into(),
            database: database.clone(),
            lock,
            cache: Cache::new(self.outcome_cache_bytes),
            present: listed.present,
            time,
            limits: self.limits,
            count: totals.count + cut,
            bytes: totals.bytes.saturating_add(cut_bytes),
            // Where some are lost, every step says a sum that they don't have, until the repair has listed all: if it is cut
            // short, the next opening finds that out.
            numbers: listed.numbers.wrapping_add(u64::from(!listed.is_whole)),
            boot,
        });
        let failed = |reason: String| broken(path, &reason);
        let mut batch = Batch::new(&shared, &database, disk);
        batch.write(keys::FORMAT, &[FORMAT]);
        batch.write(keys::BOOT, &boot.to_be_bytes());
        batch.commit(true).map_err(failed)?;
        if let Some(lock) = &*shared.lock.lock().unwrap_or_else(PoisonError::into_inner) {
            directory::complete(lock, path)?;
        }
        if !listed.is_whole {
            repair(&shared, &database, disk).map_err(failed)?;
        }
        while cut_short(&shared, &database, disk).map_err(failed)? {}
        tracing::info!(
            target: "tower_idempotency", path = %path.display(), boot, records = shared.count.load(Ordering::Relaxed),
            "the store is open"
        );
        Ok(shared)
    }
}

/// Marks a slice of the runs that the last process left; says whether there were any.
fn cut_short(shared: &Shared, database: &Database, disk: &Disk) -> Result<bool, String> {
    let mut batch = Batch::new(shared, database, disk);
    let any = cut_some_short(&mut batch)?;
    batch.commit(false)?;
    Ok(any)
}

/// Decides it.
pub(super) fn cut_some_short(batch: &mut Batch<'_>) -> Result<bool, String> {
    let (mut cut, mut any) = (0, false);
    for entry in batch.database.tree.scan_prefix(keys::RUNNING) {
        let (key, value) = entry.map_err(|error| error.to_string())?;
        any = true;
        for (id, fence) in listing::read(&key, &value).unwrap_or_default() {
            cut_one(batch, id, fence, keys::number_of(&key))?;
            batch.divide();
            cut += 1;
        }
        // Behind the records that it lists: what is written of the batch may end between two of them.
        batch.erase_entry(&key);
        if cut >= CUT_PER_BATCH {
            break;
        }
    }
    Ok(any)
}

/// Marks a run, unless it had ended.
fn cut_one(batch: &mut Batch<'_>, id: RecordId, fence: Fence, number: u64) -> Result<(), String> {
    let Err(error) = interrupt(batch, id) else { return Ok(()) };
    // A newer entry knows until when it is refused.
    let is_listed = listing::is_named_after(&batch.database.tree, id, number).map_err(|error| error.to_string())?;
    if !is_listed {
        damaged(batch, id, fence, &error);
    }
    Ok(())
}

/// Says of a run of the last process that it was cut short.
pub(super) fn interrupt(batch: &mut Batch<'_>, id: RecordId) -> Result<(), StoreError> {
    match batch.current(id).map_err(|error| error.for_caller(batch.shared, id))? {
        Some(Record { state: State::Running { .. }, fence, .. }) => {
            batch.step(id, Transition::Interrupt { fence, status: None }).map(drop)
        }
        _ => Ok(()),
    }
}

fn open_caught(path: &Path, cache_bytes: u64) -> Result<Database, OpenError> {
    catch_unwind(|| open_database(path, cache_bytes)).unwrap_or_else(|_| Err(panicked(path)))
}

fn panicked(path: &Path) -> OpenError {
    broken(path, "the database panicked while it was opened")
}

fn open_database(path: &Path, cache_bytes: u64) -> Result<Database, OpenError> {
    let config = sled::Config::new().path(path).cache_capacity(cache_bytes);
    let config = config.segment_size(SEGMENT_BYTES).flush_every_ms(Some(FLUSH_EVERY_MS));
    let failed = |error: sled::Error| match error {
        // A handle that an earlier opening lent is still held.
        sled::Error::Io(error) if error.to_string().contains("lock") => OpenError::InUse { path: path.into() },
        sled::Error::Unsupported(reason) => OpenError::Incompatible { path: path.into(), reason },
        error => broken(path, &error.to_string()),
    };
    let db = config.open().map_err(failed)?;
    let tree = db.open_tree(keys::TREE).map_err(failed)?;
    Ok(Database { tree, db })
}

fn check_format(path: &Path, format: Option<&[u8]>) -> Result<(), OpenError> {
    match format {
        None | Some([FORMAT]) => Ok(()),
        Some([format @ ..FORMAT]) => {
            let reason = format!("it has format {format}, which no release has written");
            Err(OpenError::Incompatible { path: path.into(), reason })
        }
        Some([format]) => Err(OpenError::Format { path: path.into(), format: *format, known: FORMAT }),
        Some(_) => Err(broken(path, "its format's number makes no sense")),
    }
}

/// What is said of the store as a whole; it is there from the first opening on, and nothing is guessed in its place:
/// fences would come back, and time would turn back.
fn known<T>(
    path: &Path,
    opened_before: bool,
    value: Option<&[u8]>,
    read: impl FnOnce(&[u8]) -> Option<T>,
) -> Result<Option<T>, OpenError> {
    match value {
        None if !opened_before => Ok(None),
        value => match value.and_then(read) {
            Some(value) => Ok(Some(value)),
            None => Err(broken(path, "its boot number, count or time is damaged")),
        },
    }
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// How many records the last step wrote that its totals don't count, as it was cut short before them, and the bytes of their
/// outcomes.
fn cut_off(tree: &sled::Tree, cut: &[Cut]) -> (u64, u64) {
    // Those that can't be read are found again by whoever asks for them.
    let written = |cut: &&Cut| read::head(tree, cut.id).ok().flatten().filter(|record| record.fence == cut.fence);
    let written: Vec<_> = cut.iter().filter_map(|cut| Some((cut, written(&cut)?))).collect();
    let count = written.iter().filter(|(cut, _)| !cut.is_counted).count();
    let bytes = written.iter().map(|(_, record)| outcome_bytes(Some(record))).sum::<i64>();
    (count as u64, u64::try_from(bytes).unwrap_or(0))
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(run);
    spawned.map(drop).map_err(directory::io_error("starting a thread", Path::new(name)))
}
