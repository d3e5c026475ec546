//! Reports a batch that takes too long, and poisons the store if it takes for ever: a disk that hangs, not one that fails.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::thread;

use crossbeam_epoch::default_collector;

use super::durable::{NUDGE_EVERY, Nudge};
use super::pins::{Keeper, RENEWED_EVERY};
use super::state::{SLOW, STUCK, Shared};

/// Looks again and again, until the store is gone, closed or poisoned; and keeps what sled's flusher may read, until sled's
/// handles are gone.
pub(super) fn run(shared: &Weak<Shared>) {
    let mut keeper = Keeper::new(default_collector());
    let (mut reported, mut given_up) = (false, false);
    let nudge = Nudge::default();
    loop {
        thread::park_timeout(RENEWED_EVERY);
        keeper.renew();
        let Some(shared) = shared.upgrade() else { return };
        given_up = given_up || shared.closed.load(Ordering::SeqCst) || look(&shared, &nudge, &mut reported);
        if given_up && shared.database().is_none() {
            return;
        }
    }
}

/// Looks at the batch under way; says whether it is given up.
pub(super) fn look(shared: &Shared, nudge: &Nudge, reported: &mut bool) -> bool {
    let age = shared.batch_age();
    if age.is_some_and(|age| age >= NUDGE_EVERY) {
        shared.database().iter().for_each(|database| nudge.give(&database.db));
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
