//! The clocks of a process, next to the database's.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

/// How far the wall clock and the database's may differ for the process to take their time for its own.
const AGREED: Duration = Duration::from_secs(60);

/// A moment, by the process. The statements add the database's clock: see `statements.rs`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) wall: SystemTime,
    /// The process's own time, which the monotonic clock moves; `None` if the two others did not agree when it began.
    pub(super) kept: Option<SystemTime>,
    /// A time that is not over yet by any relay: what the table had when this process began, and the time since then.
    pub(super) floor: SystemTime,
}

#[derive(Debug, Default)]
pub(super) struct Clock(OnceLock<Begun>);

#[derive(Debug, Clone, Copy)]
struct Begun {
    at: Instant,
    kept: Option<SystemTime>,
    floor: SystemTime,
}

impl Clock {
    /// The moment, once the clock has begun.
    pub(super) fn now(&self) -> Option<Now> {
        let Begun { at, kept, floor } = self.0.get()?;
        let since = |then: &SystemTime| then.checked_add(at.elapsed());
        let wall = SystemTime::now();
        Some(Now { wall, kept: kept.as_ref().and_then(since), floor: since(floor).unwrap_or(*floor) })
    }

    /// Begins, with the database's time and what the table has.
    pub(super) fn begin(&self, database: SystemTime, floor: Option<SystemTime>) {
        let wall = SystemTime::now();
        let apart = database.duration_since(wall).unwrap_or_else(|behind| behind.duration());
        let kept = (apart <= AGREED).then_some(database);
        let floor = floor.unwrap_or_else(|| database.min(wall));
        self.0.get_or_init(|| Begun { at: Instant::now(), kept, floor });
    }
}
