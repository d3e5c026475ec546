//! Reports a batch that takes too long, and poisons the store if it never ends. This is for a disk that hangs, not for
//! one that fails.

use std::convert::Infallible;
use std::mem;
use std::path::Path;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::files::directory::Lock;
use super::layout::storage_engine::StorageEngine;
use super::state::{SLOW, StoreState};
use crate::timeouts::{STOPPED_AFTER, WRITE_STUCK_AFTER};

/// The interval at which the watchdog looks and maintains the engine, which may rely on it; see
/// [`StorageEngine::maintain`].
const LOOK_EVERY: Duration = Duration::from_millis(125);
/// The time that a write may take before the engine gets a wake-up call.
const WOKEN_AFTER: Duration = Duration::from_secs(1);

/// Looks again and again, until the store is gone or closed, or a batch was given up, and maintains the engine until
/// all its handles are gone, lent ones included. The directory stays locked for as long. So a process that opens it
/// next learns from the lock that it is in use, not from the engine, and does not get in the way of the check whether
/// the engine is closed. `begins` is dropped as soon as the engine is maintained.
pub(super) fn run<E: StorageEngine>(
    shared: &Weak<StoreState<E>>,
    path: &Path,
    lock: &Lock,
    begins: Sender<Infallible>,
) {
    let mut maintenance = E::Maintenance::default();
    drop(begins);
    let mut looks = Looks::default();
    // Batches are not looked at any more.
    let mut given_up = false;
    while !lock.is_given_up() {
        thread::park_timeout(LOOK_EVERY);
        E::maintain(&mut maintenance);
        if let Some(shared) = shared.upgrade() {
            given_up = given_up || shared.closed.load(Ordering::SeqCst) || looks.look(&shared);
        } else {
            // All handles of the store are gone. The loop ends once those of the engine are, too.
            lock.give_up_if(|| E::is_closed(path));
        }
    }
}

/// Calls `open`, and maintains the engine meanwhile, until the thread that calls [`run`] does so.
pub(super) fn maintaining<E: StorageEngine, T>(open: impl FnOnce() -> T) -> T {
    meanwhile("idempotency-maintain", LOOK_EVERY, E::Maintenance::default, E::maintain, open)
}

/// Calls `act`, and wakes the engine's stuck threads if that takes long, because there is no batch to look at before
/// the store is open. Then the handle of the engine is released; it is the last one unless `act` has kept one.
pub(super) fn nudging<E: StorageEngine, T>(engine: E, act: impl FnOnce(&E) -> T) -> T {
    let wake = |(): &mut ()| engine.wake_stuck_threads();
    let acted = meanwhile("idempotency-opening", WOKEN_AFTER, || (), wake, || act(&engine));
    engine.close();
    acted
}

/// Calls `act`, and meanwhile, on a thread of this name, `again` with what `begin` has returned there before.
fn meanwhile<S, T>(
    thread: &str,
    every: Duration,
    begin: impl FnOnce() -> S + Send,
    again: impl Fn(&mut S) + Send,
    act: impl FnOnce() -> T,
) -> T {
    let (over, waiting) = mpsc::channel::<Infallible>();
    let (begins, begun) = mpsc::channel::<Infallible>();
    thread::scope(|threads| {
        let repeat = move || {
            let mut state = begin();
            drop(begins);
            while waiting.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                again(&mut state);
            }
        };
        // If no thread can be started, the engine is neither maintained nor woken while it is opened.
        let _ = thread::Builder::new().name(thread.to_owned()).spawn_scoped(threads, repeat);
        // This returns an error when the thread has begun, or if there is none.
        let _ = begun.recv();
        let acted = act();
        drop(over);
        acted
    })
}

/// What is kept from look to look.
pub(super) struct Looks {
    /// The time of the last one.
    pub(super) last: Instant,
    /// The batch under way was logged as slow. Each slow batch is logged once.
    reported: bool,
}

impl Default for Looks {
    fn default() -> Self {
        Self { last: Instant::now(), reported: false }
    }
}

impl Looks {
    /// Looks at the batch under way, and returns whether it is given up: the store is poisoned then.
    pub(super) fn look<E: StorageEngine>(&mut self, shared: &StoreState<E>) -> bool {
        let since = mem::replace(&mut self.last, Instant::now()).elapsed();
        if since >= LOOK_EVERY + STOPPED_AFTER {
            // The writer's thread did not run either: the disk may be all right.
            shared.leave_out(since);
        }
        let age = shared.batch_age();
        if age.is_some_and(|age| age >= WOKEN_AFTER)
            && let Some(engine) = shared.engine()
        {
            engine.wake_stuck_threads();
            shared.release_engine(engine);
        }
        let slow = age.filter(|age| *age >= SLOW);
        if let (Some(age), false) = (slow, self.reported) {
            let (path, seconds) = (shared.path.display(), age.as_secs());
            tracing::error!(target: "tower_idempotency", %path, seconds, "a write has not returned yet; is the disk all right?");
        }
        self.reported = slow.is_some();
        let stuck = slow.is_some_and(|age| age >= WRITE_STUCK_AFTER);
        if stuck {
            shared.poison(format!("a write has not returned in {WRITE_STUCK_AFTER:?}"));
        }
        stuck
    }
}
