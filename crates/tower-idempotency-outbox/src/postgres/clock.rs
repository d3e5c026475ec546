//! The two clocks of a process, next to the database's.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

/// How far the wall clock and the database's may differ when the process takes their time for its own.
const AGREED: Duration = Duration::from_secs(60);

/// A moment, by the process. The statements add the database's clock: see `statements.rs`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) wall: SystemTime,
    /// The process's own time, which the monotonic clock moves; `None` until the two others have agreed once.
    pub(super) kept: Option<SystemTime>,
}

#[derive(Debug, Default)]
pub(super) struct Clock {
    kept: OnceLock<(Instant, SystemTime)>,
}

impl Clock {
    pub(super) fn now(&self) -> Now {
        let kept = self.kept.get().and_then(|(began, at)| at.checked_add(began.elapsed()));
        Now { wall: SystemTime::now(), kept }
    }

    /// Begins the process's own time, if the database's agrees with the wall clock's.
    pub(super) fn begin(&self, database: SystemTime) {
        let wall = SystemTime::now();
        let apart = database.duration_since(wall).unwrap_or_else(|behind| behind.duration());
        if apart <= AGREED {
            self.kept.get_or_init(|| (Instant::now(), database));
        }
    }
}
