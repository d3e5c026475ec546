//! The times at which the waiters for other processes' runs read.

use std::time::Duration;

use tokio::time::Instant;

/// The times at which those who wait read, so that they read together. This is the time from which they are counted.
#[derive(Debug)]
pub(super) struct ReadTimes(Instant);

/// The time between two of them.
const TICK: Duration = Duration::from_millis(25);

impl Default for ReadTimes {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl ReadTimes {
    /// The first one after a pause.
    pub(super) fn after(&self, pause: Duration) -> Instant {
        let earliest = Instant::now() + pause;
        let past = earliest.saturating_duration_since(self.0).as_micros() % TICK.as_micros();
        earliest + TICK.saturating_sub(Duration::from_micros(past as u64))
    }
}
