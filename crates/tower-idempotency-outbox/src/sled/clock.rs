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
