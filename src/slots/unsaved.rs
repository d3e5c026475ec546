//! Runs that are over and whose end is only in this process, because the store did not record it. Their duplicates are
//! answered from here.
//!
//! They are bounded. Outcomes are kept up to a number of bytes; beyond it, only the fact that the run is over is kept,
//! so that it does not run again. Somewhat below the bounds new runs are refused, to leave room for the ends of those
//! that are under way.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ahash::RandomState;
use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::shared_phase::SharedPhase;
use crate::key::RecordId;
use crate::laboratory::point;

/// The most bytes of outcomes that are kept, and the number from which new runs are refused.
const MAX_BYTES: usize = 64 * 1024 * 1024;
const REFUSE_FROM_BYTES: usize = MAX_BYTES / 4 * 3;
/// The number of unsaved ends when new runs are refused. The runs under way may still add theirs.
const REFUSE_FROM: usize = 16_384;
/// The shortest time between two searches for ends whose retention is over.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The unsaved end of a run.
#[derive(Debug, Clone)]
struct EndedRun {
    /// The turn of the run's slot.
    turn: u64,
    /// Holds the run's last phase, with which duplicates are answered.
    phase: SharedPhase,
    /// The length of its outcome, which is counted in `UnsavedEnds::bytes`.
    bytes: usize,
    /// The end of the retention; `None` if it is beyond what the clock can represent.
    until: Option<Instant>,
}

impl EndedRun {
    fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// The unsaved ends. The map is nearly always empty, and every request looks into it.
#[derive(Default)]
pub(crate) struct UnsavedEnds {
    ends: DashMap<RecordId, EndedRun, RandomState>,
    /// At least the number of entries in the map: it is raised before an entry is put in, and lowered after one is
    /// taken out. So 0 says without a lock that the map is empty.
    count: AtomicUsize,
    /// The lengths of all outcomes in the map, and of those for which room is reserved.
    bytes: AtomicUsize,
    /// The time of the last search for outdated ends, because each search reads the whole map.
    looked: Mutex<Option<Instant>>,
}

impl fmt::Debug for UnsavedEnds {
    /// Shows the number of entries alone, unless they or their bytes are counted wrongly.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ends, count, bytes) = (self.ends.len(), self.len(), self.bytes.load(Ordering::Relaxed));
        if count == ends && (bytes == 0 || count > 0) {
            return count.fmt(f);
        }
        f.debug_struct("UnsavedEnds").field("ends", &ends).field("count", &count).field("bytes", &bytes).finish()
    }
}

impl UnsavedEnds {
    /// Returns the number of ends, outdated ones too, without a lock.
    fn len(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Reserves room for an outcome, and returns whether there is any.
    pub(super) fn reserve(&self, bytes: usize) -> bool {
        let more = |used: usize| used.checked_add(bytes).filter(|used| *used <= MAX_BYTES);
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Keeps the end of a run for `retention`. Its `bytes` were reserved.
    pub(super) fn keep(&self, id: RecordId, turn: u64, phase: SharedPhase, bytes: usize, retention: Duration) {
        let until = Instant::now().checked_add(retention);
        self.count.fetch_add(1, Ordering::SeqCst);
        let replaced = self.ends.insert(id, EndedRun { turn, phase, bytes, until });
        // An earlier run's end may have been there.
        self.uncount(replaced);
    }

    /// Returns the phase of a run that is over and not recorded. Removes it if its retention is over.
    pub(crate) fn get(&self, id: &RecordId) -> Option<SharedPhase> {
        if self.len() == 0 {
            return None;
        }
        let left = self.ends.get(id)?.clone();
        if left.is_over(Instant::now()) {
            // Meanwhile a later run may have put its end there.
            self.forget_if(id, |other| other.turn == left.turn);
            return None;
        }
        Some(left.phase)
    }

    /// Forgets the end of a run, because the store has one now. Does nothing if the entry belongs to another turn.
    pub(crate) fn forget(&self, id: &RecordId, turn: u64) {
        point();
        self.forget_if(id, |left| left.turn == turn);
    }

    fn forget_if(&self, id: &RecordId, is_meant: impl FnOnce(&EndedRun) -> bool) {
        if self.len() > 0 {
            self.uncount(self.ends.remove_if(id, |_, left| is_meant(left)).map(|(_, left)| left));
        }
    }

    /// Lowers the counts for an entry that was taken out.
    fn uncount(&self, left: Option<EndedRun>) {
        if let Some(left) = left {
            self.count.fetch_sub(1, Ordering::SeqCst);
            self.bytes.fetch_sub(left.bytes, Ordering::Relaxed);
        }
    }

    /// Returns how many unsaved ends there are whose retention is not over.
    pub(crate) fn count(&self) -> usize {
        let now = Instant::now();
        self.ends.iter().filter(|left| !left.is_over(now)).count()
    }

    /// Returns whether there is too little room left for the ends of new runs, after removing outdated ends if it seems
    /// so.
    pub(crate) fn is_crowded(&self) -> bool {
        let is_crowded = || self.len() >= REFUSE_FROM || self.bytes.load(Ordering::Relaxed) >= REFUSE_FROM_BYTES;
        if !is_crowded() {
            return false;
        }
        self.remove_outdated();
        is_crowded()
    }

    /// Returns whether there is room for an end that need not be kept: later ends find at least half of the room.
    pub(crate) fn has_plenty_of_room(&self) -> bool {
        self.len() < REFUSE_FROM / 2 && self.bytes.load(Ordering::Relaxed) < REFUSE_FROM_BYTES / 2
    }

    /// Removes the ends whose retention is over, at most once in `LOOK_EVERY`.
    fn remove_outdated(&self) {
        let now = Instant::now();
        {
            let mut looked = self.looked.lock();
            if looked.is_some_and(|looked| now.saturating_duration_since(looked) < LOOK_EVERY) {
                return;
            }
            *looked = Some(now);
        }
        let outdated: Vec<_> = self.ends.iter().filter(|left| left.is_over(now)).map(|left| *left.key()).collect();
        for id in outdated {
            self.forget_if(&id, |left| left.is_over(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::phase::Phase;
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn id(number: usize) -> RecordId {
        RecordId::from_bytes(*blake3::hash(&number.to_be_bytes()).as_bytes())
    }

    fn keep(unsaved: &UnsavedEnds, number: usize, bytes: usize, retention: Duration) {
        let phase = SharedPhase::new(Phase::Claiming);
        unsaved.keep(id(number), number as u64, phase, bytes, retention);
    }

    #[tokio::test(start_paused = true)]
    async fn outcomes_are_kept_up_to_a_bound_and_new_runs_are_refused_before_it() {
        let unsaved = UnsavedEnds::default();
        let mut refused_from = None;
        let kept = (0..70).take_while(|number| {
            refused_from = refused_from.or(unsaved.is_crowded().then_some(*number));
            let has_room = unsaved.reserve(1 << 20);
            keep(&unsaved, *number, if has_room { 1 << 20 } else { 0 }, HOUR);
            has_room
        });
        assert_eq!((kept.count(), refused_from), (64, Some(48)));
        tokio::time::advance(HOUR).await;
        assert!(!unsaved.is_crowded(), "their time is over");
        assert_eq!((unsaved.len(), unsaved.bytes.load(Ordering::Relaxed)), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn many_small_ones_are_bounded_too_and_each_ends_with_its_time() {
        let unsaved = UnsavedEnds::default();
        (0..REFUSE_FROM).for_each(|number| keep(&unsaved, number, 0, HOUR * u32::try_from(1 + number % 2).unwrap()));
        assert!(unsaved.is_crowded());
        tokio::time::advance(HOUR).await;
        assert!(unsaved.get(&id(0)).is_none() && unsaved.get(&id(1)).is_some());
        assert_eq!(unsaved.len(), REFUSE_FROM - 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_put_in_is_found_until_it_is_taken_out() {
        let unsaved = UnsavedEnds::default();
        let is_found = |number| unsaved.get(&id(number)).is_some();
        unsaved.forget(&id(1), 1);
        assert_eq!((is_found(1), unsaved.len()), (false, 0));
        [1, 1, 2].into_iter().for_each(|number| keep(&unsaved, number, 0, HOUR));
        assert_eq!((is_found(1), is_found(2), unsaved.len()), (true, true, 2));
        (0..2).for_each(|_| unsaved.forget(&id(1), 1));
        assert_eq!((is_found(1), is_found(2), unsaved.len()), (false, true, 1));
        unsaved.forget(&id(2), 1);
        assert_eq!((is_found(2), unsaved.len()), (true, 1));
        assert_eq!((unsaved.count(), format!("{unsaved:?}").contains("UnsavedEnds")), (1, false));
    }

    // A delayed thread must not remove a later run's entry.
    #[tokio::test(start_paused = true)]
    async fn what_a_later_run_has_left_is_not_forgotten_for_an_earlier_one() {
        let unsaved = UnsavedEnds::default();
        assert!(unsaved.reserve(7) && unsaved.reserve(8));
        for (turn, bytes) in [(1, 7), (2, 8)] {
            unsaved.keep(id(1), turn, SharedPhase::new(Phase::Claiming), bytes, HOUR);
        }
        unsaved.forget(&id(1), 1);
        assert_eq!((unsaved.len(), unsaved.bytes.load(Ordering::Relaxed)), (1, 8));
        unsaved.forget(&id(1), 2);
        assert_eq!((unsaved.len(), unsaved.bytes.load(Ordering::Relaxed)), (0, 0));
    }
}
