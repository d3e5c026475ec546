//! Reports a batch that takes too long, and poisons the store if it takes for ever: a disk that hangs, not one that
//! fails.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::state::{SLOW, Shared};
use super::storage_engine::StorageEngine;
use crate::within::WRITE_STUCK_AFTER;

/// How often it looks, and tends the engine, which may rely on it: see [`StorageEngine::tend`].
const LOOK_EVERY: Duration = Duration::from_millis(125);
/// How long a write may take before the engine is nudged.
const NUDGED_AFTER: Duration = Duration::from_secs(1);

/// Looks again and again, until the store is gone, closed or poisoned; and tends the engine until all its handles are
/// gone.
pub(super) fn run<E: StorageEngine>(shared: &Weak<Shared<E>>) {
    let mut watch = E::Watch::default();
    let (mut reported, mut given_up) = (false, false);
    loop {
        thread::park_timeout(LOOK_EVERY);
        E::tend(&mut watch);
        let Some(shared) = shared.upgrade() else { return };
        given_up = given_up || shared.closed.load(Ordering::SeqCst) || look(&shared, &mut reported);
        if given_up && shared.engine().is_none() {
            return;
        }
    }
}

/// Calls `act`, and nudges the engine while it takes long: there is no batch to look at before the store is open.
pub(super) fn nudging<E: StorageEngine, T>(engine: &E, act: impl FnOnce() -> T) -> T {
    let (over, waiting) = mpsc::channel::<()>();
    thread::scope(|threads| {
        let nudge = move || {
            while waiting.recv_timeout(NUDGED_AFTER) == Err(RecvTimeoutError::Timeout) {
                engine.nudge();
            }
        };
        // If no thread can be started, the engine is not nudged while it is opened.
        let _ = thread::Builder::new().name("idempotency-opening".to_owned()).spawn_scoped(threads, nudge);
        let acted = act();
        drop(over);
        acted
    })
}

/// Looks at the batch under way; says whether it is given up.
pub(super) fn look<E: StorageEngine>(shared: &Shared<E>, reported: &mut bool) -> bool {
    let age = shared.batch_age();
    if age.is_some_and(|age| age >= NUDGED_AFTER)
        && let Some(engine) = shared.engine()
    {
        engine.nudge();
        shared.let_go(engine);
    }
    let slow = age.filter(|age| *age >= SLOW);
    if let (Some(age), false) = (slow, *reported) {
        let (path, seconds) = (shared.path.display(), age.as_secs());
        tracing::error!(target: "tower_idempotency", %path, seconds, "a write has not returned yet; is the disk all right?");
    }
    *reported = slow.is_some();
    let stuck = slow.is_some_and(|age| age >= WRITE_STUCK_AFTER);
    if stuck {
        shared.poison(format!("a write has not returned in {WRITE_STUCK_AFTER:?}"));
    }
    stuck
}
