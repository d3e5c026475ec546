//! Counts what happens to the runs over one store, and limits how often that is logged.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The largest possible number of kinds of refusals.
pub(crate) const REFUSALS: usize = 20;
/// The time between two log lines.
const PAUSE: Duration = Duration::from_secs(60);

/// The counters of this process.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) runs: AtomicU64,
    pub(crate) replays: AtomicU64,
    pub(crate) interrupted: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) unrecorded: AtomicU64,
    pub(crate) unprotected: AtomicU64,
    pub(crate) corrupt: AtomicU64,
    pub(crate) reconciled: AtomicU64,
    pub(crate) not_rerun: AtomicU64,
    pub(crate) disputed: AtomicU64,
    pub(crate) consumed: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) losses_accepted: AtomicU64,
    pub(crate) skewed: AtomicU64,
    // Refusals, by their kind as the server numbers them.
    pub(crate) refused: [AtomicU64; REFUSALS],
    pub(crate) lines: Lines,
}

/// The kinds of events that a client can cause as often as it likes. Of each, there is at most one line a minute.
#[derive(Default)]
pub(crate) struct Lines {
    // Refusals, by their kind as the server numbers them.
    #[cfg(feature = "server")]
    pub(crate) refused: [LogThrottle; REFUSALS],
    pub(crate) overloaded: LogThrottle,
    // Faults of the store, by the requester's answer.
    pub(crate) unavailable: LogThrottle,
    pub(crate) full: LogThrottle,
    pub(crate) corrupt: LogThrottle,
    pub(crate) unanswered: LogThrottle,
    // Ends of runs.
    pub(crate) panicked: LogThrottle,
    pub(crate) too_long: LogThrottle,
    pub(crate) dropped: LogThrottle,
    pub(crate) unknown: LogThrottle,
    pub(crate) not_rerun: LogThrottle,
    pub(crate) unrecorded: LogThrottle,
    pub(crate) superseded: LogThrottle,
    pub(crate) unprotected: LogThrottle,
    pub(crate) outdone: LogThrottle,
    #[cfg(feature = "shared")]
    pub(crate) doubtful: LogThrottle,
    #[cfg(feature = "shared")]
    pub(crate) lost: LogThrottle,
    #[cfg(feature = "shared")]
    pub(crate) skewed: LogThrottle,
    #[cfg(feature = "shared")]
    pub(crate) kept_apart: LogThrottle,
    #[cfg(feature = "shared")]
    pub(crate) disputed: LogThrottle,
    #[cfg(feature = "shared")]
    pub(crate) consumed: LogThrottle,
    // Questions to the application.
    pub(crate) reconciler_panicked: LogThrottle,
    pub(crate) reconciler_late: LogThrottle,
}

/// Says nothing of the kinds, whose names would look like events in a log.
impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").finish_non_exhaustive()
    }
}

/// Counts events, and decides which of them is logged. An event that is logged each time it happens, and happens often,
/// would drown the rest of the log. [`once_a_minute`] logs by it.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle {
    state: Mutex<LogWindow>,
}

#[derive(Debug, Default)]
struct LogWindow {
    last: Option<Instant>,
    since: u64,
}

impl LogThrottle {
    pub(crate) const fn new() -> Self {
        Self { state: Mutex::new(LogWindow { last: None, since: 0 }) }
    }

    /// Counts an event. If a log line is due, returns how many events there were since the last line, this one
    /// included.
    pub(crate) fn due(&self) -> Option<u64> {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.since += 1;
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < PAUSE) {
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.since))
    }
}

/// Logs an event that a client can cause as often as it likes: at its level at most once a minute, with the `count` of
/// such events since the last line, and otherwise at DEBUG.
macro_rules! once_a_minute {
    ($lines:expr, $level:ident, $($event:tt)*) => {
        match $lines.due() {
            Some(count) => tracing::$level!(target: "tower_idempotency", count, $($event)*),
            None => tracing::debug!(target: "tower_idempotency", $($event)*),
        }
    };
}
pub(crate) use once_a_minute;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_is_said_at_once_and_the_others_once_a_minute() {
        let throttle = LogThrottle::default();
        assert_eq!([throttle.due(), throttle.due(), throttle.due()], [Some(1), None, None]);
        tokio::time::advance(PAUSE - Duration::from_millis(1)).await;
        assert_eq!(throttle.due(), None);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!([throttle.due(), throttle.due()], [Some(4), None]);
    }
}
