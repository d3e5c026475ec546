//! Opens a store: its directory, lock, engine, format and boot number, and the runs that the last process left.

use std::convert::Infallible;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;

use super::batches::batch::Batch;
use super::batches::records::outcome_bytes;
use super::builder::EmbeddedStoreBuilder;
use super::files::checkpoint::{self, Check, Found, Prior};
use super::files::checkpointer::Checkpointer;
use super::files::directory::{self, Lock, broken, io_error};
use super::key_filter::KeyFilter;
use super::layout::cleared::Cleared;
use super::layout::storage_engine::{ReadError, StorageEngine, scan_from};
use super::layout::totals::{Checkpoint, Totals};
use super::layout::{keys, listing};
use super::measured::Measured;
use super::queue::queue;
use super::read;
use super::repair::repair;
use super::space::Space;
use super::state::{BOOT_SHIFT, MAX_BOOT, READERS, StoreState, release_apart};
use super::store::EmbeddedStore;
use super::{watchdog, writer};
use crate::clock::Timeline;
use crate::key::RecordId;
use crate::record::Fence;
use crate::store::cache::Cache;
use crate::store::{OpenError, StoreError};

/// The version of the layout in `layout/keys.rs` and of the codec.
const FORMAT: u8 = 1;
/// The most runs of an earlier process that are marked as interrupted in one batch.
const INTERRUPTED_PER_BATCH: usize = 512;
/// The number of boot numbers that are left out after a loss, so that no fence comes back: more openings are hardly
/// lost.
const MAX_LOST_BOOTS: u64 = 1 << 12;
/// The interval at which an opening checks whether another process has closed a directory.
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl<E: StorageEngine> EmbeddedStoreBuilder<E> {
    /// Opens the store in `directory`. Blocks its thread.
    ///
    /// # Errors
    /// As [`EmbeddedStore::open`].
    pub fn open(self, directory: impl AsRef<Path>) -> Result<EmbeddedStore<E>, OpenError> {
        watchdog::maintaining::<E, _>(|| {
            let shared = Arc::new(self.prepare(directory.as_ref())?);
            let (sender, commands) = queue();
            let (watched, lock) = (Arc::downgrade(&shared), shared.lock.clone());
            let (writing, path) = (Arc::clone(&shared), shared.path.clone());
            let checkpointer = Arc::clone(&shared.checkpointer);
            let (begins, begun) = mpsc::channel();
            // If one of these threads can't be started, `sender` is dropped, so the writer ends.
            spawn("idempotency-writer", move || writer::run(&writing, commands))?;
            spawn("idempotency-checkpointer", move || checkpointer.run())?;
            spawn("idempotency-watchdog", move || watchdog::run(&watched, &path, &lock, begins))?;
            // This returns an error when the watchdog maintains the engine. Nothing else holds the sender.
            // `maintaining`, which calls this closure, ends its own maintenance afterwards, so there is no gap.
            let _: Result<Infallible, _> = begun.recv();
            Ok(EmbeddedStore::new(shared, sender))
        })
    }

    /// Opens the store in `directory`, and waits for at most `timeout` while another process, or another opening in
    /// this one, has it open. So a new process may start while the last one is still closing. Blocks its thread.
    ///
    /// # Errors
    /// As [`EmbeddedStore::open`]; [`OpenError::InUse`] only after `timeout`.
    pub fn open_within(self, directory: impl AsRef<Path>, timeout: Duration) -> Result<EmbeddedStore<E>, OpenError> {
        let began = Instant::now();
        loop {
            match self.clone().open(&directory) {
                Err(OpenError::InUse { .. }) if began.elapsed() < timeout => thread::sleep(LOOK_EVERY),
                opened => return opened,
            }
        }
    }

    /// Opens the store without starting any threads.
    pub(super) fn prepare(self, path: &Path) -> Result<StoreState<E>, OpenError> {
        #[cfg(unix)]
        super::files::open_files::raise(E::NAME, E::FILES);
        // The process may change its directory.
        let path = &*std::path::absolute(path).map_err(io_error("finding", path))?;
        if !self.create {
            directory::require_store(path)?;
        }
        // The lock is given up last, after the engine's own, however the opening ends.
        let lock = directory::acquire(path)?;
        // The lock file is made durable before the engine makes its files: without it they would be taken for another
        // program's. The files that a killed process has left with the operating system are made durable first, too: an
        // engine may build a durable snapshot on them, and if a power cut then lost them, there would be nothing under
        // the snapshot.
        directory::sync(path)?;
        let is_complete = directory::is_complete(path, E::NAME)?;
        let checkpoint = checkpoint::read(path)?;
        let was_used = is_complete || checkpoint != Found::Missing;
        if !was_used && !self.create {
            return Err(OpenError::NotFound { path: path.into() });
        }
        let accepted = self.accept_loss_after;
        let mut known = Prior { path, is_complete, was_used, checkpoint, accepted, damage: None };
        let open = || {
            guarded(path, || {
                let damage = E::examine(path, was_used)?;
                // A damaged file is refused before an engine can change it.
                known.check_damage(damage.as_ref())?;
                let engine = E::open(&self.engine_options, path, damage.as_ref())?;
                Ok((engine, damage))
            })
        };
        let (engine, damage) = match open() {
            // These files are not a database. If the operating system has refused an operation, they may be one.
            Err(OpenError::Database { reason, .. }) if !was_used => {
                directory::set_aside(path, &reason)?;
                open()?
            }
            opened => opened?,
        };
        known.damage = damage;
        let start = |engine: &E| {
            directory::sync(path)?;
            self.start(engine, &lock, &known)
        };
        // The engine stays open through a failure or a panic of `start`, so that it is released under a time limit.
        let kept = engine.clone();
        let opened = guarded(path, || watchdog::nudging(engine, start));
        match &opened {
            Ok(_) => kept.close(),
            // It is the last handle.
            Err(_) => release_apart(kept),
        }
        opened
    }

    /// Takes a new boot number and marks the last process's runs as interrupted, durably.
    fn start(self, engine: &E, lock: &Lock, known: &Prior<'_>) -> Result<StoreState<E>, OpenError> {
        let path = known.path;
        let (shared, is_whole, checkpoint) = self.read(engine.clone(), lock, known)?;
        let failed = |reason: String| broken(path, &reason);
        let mut batch = Batch::new(&shared, engine);
        batch.write(keys::FORMAT, vec![FORMAT]);
        batch.write(keys::BOOT, shared.boot.to_be_bytes().to_vec());
        batch.commit().map_err(failed)?;
        // Only when there is a checkpoint does the lock file say that there has to be one.
        if checkpoint == Check::New {
            shared.checkpointer.write()?;
        }
        if !known.is_complete {
            lock.complete(path, E::NAME)?;
        }
        if checkpoint == Check::Accepted {
            shared.slots.telemetry.counters.losses_accepted.fetch_add(1, Ordering::Relaxed);
        }
        if !known.was_used {
            tracing::warn!(target: "tower_idempotency", path = %path.display(), "the store is new: no key is known");
        }
        if !is_whole {
            repair(&shared, engine).map_err(failed)?;
        }
        // Each call makes one batch, so that no batch is long. It returns `false` once no run is left.
        while interrupt_runs(&shared, engine).map_err(failed)? {}
        let (boot, records) = (shared.boot, shared.totals.lock().count);
        tracing::info!(target: "tower_idempotency", path = %path.display(), boot, records, "the store is open");
        shared.limits.warn(path);
        Ok(shared)
    }

    /// Reads the state of the store from the engine, and compares it with the checkpoint. Returns also whether the
    /// listing entries are whole.
    fn read(self, engine: E, lock: &Lock, known: &Prior<'_>) -> Result<(StoreState<E>, bool, Check), OpenError> {
        let path = known.path;
        let unreadable = |error: ReadError| match error {
            ReadError::Exhausted(error) => io_error("reading the database in", path)(error),
            error => broken(path, &error.to_string()),
        };
        let meta = |key: &[u8]| {
            let value = engine.get(key).map_err(unreadable)?;
            Ok(value.map(|value| value.as_ref().to_vec()))
        };

        let format = meta(keys::FORMAT)?;
        let (last, mut totals) = match format.as_deref() {
            None if known.was_used => return Err(broken(path, "it is empty, though it was in use")),
            // It is new. The first step has all three, or there is none.
            None => (0, Totals::default()),
            Some([FORMAT]) => {
                // If one cannot be read, no value is guessed for it: fences would repeat, and time would go back.
                let last = meta(keys::BOOT)?.and_then(|boot| Some(u64::from_be_bytes(boot.try_into().ok()?)));
                let totals = meta(keys::TOTALS)?.and_then(|totals| Totals::decode(&totals));
                last.zip(totals).ok_or_else(|| broken(path, "its boot number, count or time is damaged"))?
            }
            // A later release wrote it.
            Some([format]) => return Err(OpenError::Format { path: path.into(), format: *format, known: FORMAT }),
            Some(_) => return Err(broken(path, "its format's number makes no sense")),
        };
        let there @ Checkpoint { time: seen, .. } = totals.checkpoint();
        let checked = known.check(there)?;
        let boot = last.saturating_add(if checked == Check::Accepted { MAX_LOST_BOOTS } else { 1 });
        // The fences of the boot that has this one are above it, because they begin after it.
        let boot = boot.max(self.fences_above.0 >> BOOT_SHIFT);
        let first = ((boot << BOOT_SHIFT) + 1).max(self.fences_above.0.saturating_add(1));
        if boot > MAX_BOOT {
            return Err(broken(path, "it was opened 2^23 times, so that fences would repeat; start a new directory"));
        }
        let cleared = Cleared::read(&engine).map_err(unreadable)?;
        let listed = KeyFilter::load(&engine, cleared, &totals).map_err(unreadable)?;
        for (id, fence) in listed.late {
            // A record that cannot be read is found when a request asks for it.
            let written = read::head(&engine, id).ok().flatten().filter(|record| record.fence == fence);
            if written.is_some() && !listed.claimed.contains(&(id, fence)) {
                totals.count += 1;
            }
            totals.bytes = totals.bytes.saturating_add_signed(outcome_bytes(written.as_ref()));
        }
        // If some entries are lost, every step writes a sum that does not fit the rest, until the repair has listed all
        // records: if the repair is interrupted, the next opening finds that out.
        totals.numbers = listed.numbers.wrapping_add(u64::from(!listed.is_whole));
        let shared = StoreState {
            path: path.into(),
            slots: Arc::default(),
            engine: RwLock::new(Some(engine)),
            cache: Cache::new(self.outcome_cache_bytes),
            key_filter: listed.key_filter,
            runs: Mutex::default(),
            time: Timeline::start(self.clock, seen),
            limits: self.limits,
            totals: Mutex::new(totals),
            boot,
            next_fence: AtomicU64::new(first),
            swept_until: AtomicU64::new(cleared.before.as_millis()),
            cleared,
            removed: AtomicU64::new(0),
            checkpointer: Arc::new(Checkpointer::new(path.into(), there)),
            batch: Mutex::default(),
            space: Space::default(),
            measured: Measured::default(),
            readers: Arc::new(Semaphore::new(READERS as usize)),
            closed: AtomicBool::new(false),
            poison: OnceLock::new(),
            lock: lock.clone(),
        };
        Ok((shared, listed.is_whole, checked))
    }
}

/// Marks a slice of the runs that the last process left as interrupted. Returns whether there were any.
fn interrupt_runs<E: StorageEngine>(shared: &StoreState<E>, engine: &E) -> Result<bool, String> {
    let mut batch = Batch::new(shared, engine);
    let any = interrupt_slice(&mut batch)?;
    batch.commit()?;
    Ok(any)
}

/// Adds the interruptions of a slice of these runs to `batch`. Returns whether there was any entry that lists runs.
pub(super) fn interrupt_slice<E: StorageEngine>(batch: &mut Batch<'_, E>) -> Result<bool, String> {
    let (mut count, mut any) = (0, false);
    let [from, _] = batch.shared.cleared.firsts();
    for entry in scan_from(batch.engine, from) {
        let (key, value) = entry.map_err(|error| error.to_string())?;
        let (key, value) = (key.as_ref(), value.as_ref());
        any = true;
        // A damaged entry lists nothing. `repair` has read all records before, and marked its runs.
        for (id, fence) in listing::read(key, value).unwrap_or_default() {
            interrupt_listed(batch, id, fence, keys::number_of(key))?;
            batch.write_if_full();
            count += 1;
        }
        // The entry is removed after the records that it lists are written, because a batch may be interrupted between
        // two of them.
        batch.erase_entry(key);
        if count >= INTERRUPTED_PER_BATCH {
            break;
        }
    }
    Ok(any)
}

/// Marks a run as interrupted, unless it had ended. If its record is damaged, lists until when its key is refused.
fn interrupt_listed<E: StorageEngine>(
    batch: &mut Batch<'_, E>,
    id: RecordId,
    fence: Fence,
    number: u64,
) -> Result<(), String> {
    let error = match batch.interrupt_run(id) {
        Ok(()) => return Ok(()),
        Err(error @ StoreError::Corrupt { .. }) => error,
        Err(error) => return Err(error.to_string()),
    };
    // A later entry says until when the key is refused.
    let from = batch.shared.cleared.before;
    let is_listed = listing::is_named_after(batch.engine, id, from, number).map_err(|error| error.to_string())?;
    if !is_listed {
        batch.refuse_damaged(id, fence, &error);
    }
    Ok(())
}

/// Calls `open`. An engine may panic on some damaged files, and if the last write fails when its handles are released.
fn guarded<T>(path: &Path, open: impl FnOnce() -> Result<T, OpenError>) -> Result<T, OpenError> {
    let opened = catch_unwind(AssertUnwindSafe(open));
    opened.unwrap_or_else(|payload| {
        let said = payload.downcast_ref::<String>().map_or("", String::as_str);
        let reason = format!("the database panicked while it was opened: {said}");
        // The standard library shows an error of the operating system in this form, and an engine may unwrap one, for
        // example because no thread can be started. It says nothing about the files.
        let is_refused = said.contains("Os { code");
        Err(if is_refused { io_error("opening", path)(io::Error::other(reason)) } else { broken(path, &reason) })
    })
}

/// Starts a thread of the store. No code waits for its end.
fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(run);
    spawned.map(drop).map_err(io_error("starting a thread", Path::new(name)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    // sled panics if it can start no thread, and on some damaged files.
    #[test]
    fn a_panic_of_the_engine_is_the_operating_system_s_refusal_if_it_says_so() {
        let path = Path::new("nowhere");
        let refused = guarded(path, || Ok(fs::read(path).unwrap())).unwrap_err();
        assert!(matches!(refused, OpenError::Io { .. }), "{refused:?}");
        let damaged = guarded::<()>(path, || panic!("damaged")).unwrap_err();
        assert!(matches!(damaged, OpenError::Database { .. }), "{damaged:?}");
    }
}
