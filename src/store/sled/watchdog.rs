//! Reports a batch that takes too long, and poisons the store if it takes for ever: a disk that hangs, not one that fails.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use super::durable::{NUDGE_EVERY, nudge};
use super::state::{SLOW, STUCK, Shared};

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks once a second, until the store is gone, closed or poisoned.
pub(super) fn run(shared: &Weak<Shared>) {
    let mut reported = false;
    loop {
        thread::park_timeout(LOOK_EVERY);
        let Some(shared) = shared.upgrade() else { return };
        if shared.closed.load(Ordering::SeqCst) || look(&shared, &mut reported) {
            return;
        }
    }
}

/// Looks at the batch under way; says whether it is given up.
pub(super) fn look(shared: &Shared, reported: &mut bool) -> bool {
    let age = shared.batch_age();
    if age.is_some_and(|age| age >= NUDGE_EVERY) {
        shared.database().iter().for_each(|database| nudge(&database.db));
    }
    let slow = age.filter(|age| *age >= SLOW);
    if let (Some(age), false) = (slow, *reported) {
        let (path, seconds) = (shared.path.display(), age.as_secs());
        tracing::error!(target: "tower_idempotency", %path, seconds, "a write has not returned yet; is the disk all right?");
    }
    *reported = slow.is_some();
    let stuck = slow.is_some_and(|age| age >= STUCK);
    if stuck {
        shared.poison(format!("a write has not returned in {STUCK:?}"));
    }
    stuck
}
