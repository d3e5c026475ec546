//! The two clocks of an outbox in files.

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant, SystemTime};

/// A moment, in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Now {
    /// The later one of the wall clock's time since 1970, and of its time when the outbox was opened plus the monotonic
    /// clock's since then: the monotonic clock may stop while the machine sleeps, and the wall clock may be set back.
    pub(super) wall: u64,
    /// The outbox's own time: it goes on where the process before has left it, by the monotonic clock, so that it never
    /// runs ahead.
    pub(super) kept: u64,
    /// A number of this opening of the outbox, drawn at random.
    pub(super) opening: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    began: Instant,
    at: Now,
}

impl Clock {
    /// A clock whose own time goes on from `kept`, if there is one.
    pub(super) fn new(kept: Option<u64>) -> Self {
        let wall = wall();
        let opening = RandomState::new().hash_one(wall);
        Self { began: Instant::now(), at: Now { wall, kept: kept.unwrap_or(wall), opening } }
    }

    pub(super) fn now(&self) -> Now {
        let since = |then: u64| then.saturating_add(millis(self.began.elapsed()));
        let (wall, kept) = (wall().max(since(self.at.wall)), since(self.at.kept));
        Now { wall, kept, ..self.at }
    }
}

fn wall() -> u64 {
    millis(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_that_was_set_back_goes_on_by_the_monotonic_one_since_the_opening() {
        let second = Duration::from_secs(1);
        let began = Instant::now().checked_sub(second).unwrap();
        for (ahead, is_later) in [(Duration::from_secs(3_600), true), (Duration::ZERO, false)] {
            let before = wall() + millis(ahead);
            let clock = Clock { began, at: Now { wall: before, kept: 7, opening: 1 } };
            let now = clock.now();
            assert!(now.wall >= before + 1_000 && now.kept >= 1_007, "{now:?}");
            assert_eq!(now.wall > wall() + 1_800_000, is_later);
        }
    }
}
