//! Runs that are over, and known to this process alone: the store could not be told. Their duplicates are answered from here.
//!
//! They are bounded. Up to a bound the outcomes themselves are kept; beyond it only that the run is over, so that it is not
//! run again. Some way below the bounds new runs are refused, so that there is room for those that are under way.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ahash::RandomState;
use dashmap::DashMap;
use tokio::sync::watch;
use tokio::time::Instant;

use super::phase::Phase;
use crate::key::RecordId;
use crate::laboratory::point;

/// The bytes of outcomes that are kept, and from which on new runs are refused.
const MOST_BYTES: usize = 64 * 1024 * 1024;
const FEW_BYTES: usize = MOST_BYTES / 4 * 3;
/// How many there are from which on new runs are refused. Those that are under way may be added.
const FEW: usize = 16_384;
/// How often it is looked for those whose time is over, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a run has left.
#[derive(Debug, Clone)]
struct Left {
    /// Which run: the slot's turn.
    turn: u64,
    phase: watch::Receiver<Phase>,
    /// The bytes of its outcome.
    bytes: usize,
    /// `None`: further away than the clock goes.
    until: Option<Instant>,
}

impl Left {
    fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// All of them: a map that is nearly always empty, and looked into by every request.
#[derive(Default)]
pub(crate) struct Remembered {
    left: DashMap<RecordId, Left, RandomState>,
    // At least as many as there are in the map: counted before one is put in, and after one is taken out. So it tells without
    // a lock that there is none.
    count: AtomicUsize,
    bytes: AtomicUsize,
    looked: Mutex<Option<Instant>>,
}

impl fmt::Debug for Remembered {
    /// The runs alone, unless they or their bytes are counted wrongly.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, bytes) = (self.len(), self.bytes.load(Ordering::Relaxed));
        if count == self.left.len() && (bytes == 0 || count > 0) {
            return self.left.fmt(f);
        }
        f.debug_struct("Remembered").field("left", &self.left).field("count", &count).field("bytes", &bytes).finish()
    }
}

impl Remembered {
    fn len(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Makes room for an outcome, if it can be kept.
    pub(super) fn reserve(&self, bytes: usize) -> bool {
        let more = |used: usize| used.checked_add(bytes).filter(|used| *used <= MOST_BYTES);
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Keeps what a run has left, for so long. `bytes` were reserved.
    pub(super) fn keep(
        &self,
        id: RecordId,
        turn: u64,
        phase: watch::Receiver<Phase>,
        bytes: usize,
        retention: Duration,
    ) {
        let until = Instant::now().checked_add(retention);
        self.count.fetch_add(1, Ordering::SeqCst);
        let replaced = self.left.insert(id, Left { turn, phase, bytes, until });
        self.gone(replaced);
    }

    pub(crate) fn get(&self, id: &RecordId) -> Option<watch::Receiver<Phase>> {
        if self.len() == 0 {
            return None;
        }
        let left = self.left.get(id)?.clone();
        if left.is_over(Instant::now()) {
            self.forget_if(id, |other| other.turn == left.turn);
            return None;
        }
        Some(left.phase)
    }

    /// Frees a slot whose end was remembered, if it is this turn's, and not a later one's: the store knows it now.
    pub(crate) fn forget(&self, id: &RecordId, turn: u64) {
        point();
        self.forget_if(id, |left| left.turn == turn);
    }

    fn forget_if(&self, id: &RecordId, is_meant: impl FnOnce(&Left) -> bool) {
        if self.len() > 0 {
            self.gone(self.left.remove_if(id, |_, left| is_meant(left)).map(|(_, left)| left));
        }
    }

    /// It was taken out.
    fn gone(&self, left: Option<Left>) {
        if let Some(left) = left {
            self.count.fetch_sub(1, Ordering::SeqCst);
            self.bytes.fetch_sub(left.bytes, Ordering::Relaxed);
        }
    }

    /// How many runs there are whose time is not over.
    pub(crate) fn count(&self) -> usize {
        let now = Instant::now();
        self.left.iter().filter(|left| !left.is_over(now)).count()
    }

    /// Whether there is no room for what new runs may leave.
    pub(crate) fn is_crowded(&self) -> bool {
        let is_crowded = || self.len() >= FEW || self.bytes.load(Ordering::Relaxed) >= FEW_BYTES;
        if !is_crowded() {
            return false;
        }
        self.remove_outdated();
        is_crowded()
    }

    fn remove_outdated(&self) {
        let now = Instant::now();
        {
            let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
            if looked.is_some_and(|looked| now.saturating_duration_since(looked) < LOOK_EVERY) {
                return;
            }
            *looked = Some(now);
        }
        let outdated: Vec<_> = self.left.iter().filter(|left| left.is_over(now)).map(|left| *left.key()).collect();
        for id in outdated {
            self.forget_if(&id, |left| left.is_over(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn id(number: usize) -> RecordId {
        RecordId::from_bytes(*blake3::hash(&number.to_be_bytes()).as_bytes())
    }

    fn keep(remembered: &Remembered, number: usize, bytes: usize, retention: Duration) {
        let (_, phase) = watch::channel(Phase::Claiming);
        remembered.keep(id(number), number as u64, phase, bytes, retention);
    }

    #[tokio::test(start_paused = true)]
    async fn outcomes_are_kept_up_to_a_bound_and_new_runs_are_refused_before_it() {
        let remembered = Remembered::default();
        let mut refused_from = None;
        let kept = (0..70).take_while(|number| {
            refused_from = refused_from.or(remembered.is_crowded().then_some(*number));
            let has_room = remembered.reserve(1 << 20);
            keep(&remembered, *number, if has_room { 1 << 20 } else { 0 }, HOUR);
            has_room
        });
        assert_eq!((kept.count(), refused_from), (64, Some(48)));
        tokio::time::advance(HOUR).await;
        assert!(!remembered.is_crowded(), "their time is over");
        assert_eq!((remembered.len(), remembered.bytes.load(Ordering::Relaxed)), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn many_small_ones_are_bounded_too_and_each_ends_with_its_time() {
        let remembered = Remembered::default();
        (0..FEW).for_each(|number| keep(&remembered, number, 0, HOUR * u32::try_from(1 + number % 2).unwrap()));
        assert!(remembered.is_crowded());
        tokio::time::advance(HOUR).await;
        assert!(remembered.get(&id(0)).is_none() && remembered.get(&id(1)).is_some());
        assert_eq!(remembered.len(), FEW - 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_put_in_is_found_until_it_is_taken_out() {
        let remembered = Remembered::default();
        let is_found = |number| remembered.get(&id(number)).is_some();
        remembered.forget(&id(1), 1);
        assert_eq!((is_found(1), remembered.len()), (false, 0));
        [1, 1, 2].into_iter().for_each(|number| keep(&remembered, number, 0, HOUR));
        assert_eq!((is_found(1), is_found(2), remembered.len()), (true, true, 2));
        (0..2).for_each(|_| remembered.forget(&id(1), 1));
        assert_eq!((is_found(1), is_found(2), remembered.len()), (false, true, 1));
        remembered.forget(&id(2), 1);
        assert_eq!((is_found(2), remembered.len()), (true, 1));
        assert_eq!((remembered.count(), format!("{remembered:?}").contains("Remembered")), (1, false));
    }

    // "A delayed thread can remove a later run's entry."
    #[tokio::test(start_paused = true)]
    async fn what_a_later_run_has_left_is_not_forgotten_for_an_earlier_one() {
        let remembered = Remembered::default();
        assert!(remembered.reserve(7) && remembered.reserve(8));
        for (turn, bytes) in [(1, 7), (2, 8)] {
            remembered.keep(id(1), turn, watch::channel(Phase::Claiming).1, bytes, HOUR);
        }
        remembered.forget(&id(1), 1);
        assert_eq!((remembered.len(), remembered.bytes.load(Ordering::Relaxed)), (1, 8));
        remembered.forget(&id(1), 2);
        assert_eq!((remembered.len(), remembered.bytes.load(Ordering::Relaxed)), (0, 0));
    }
}
