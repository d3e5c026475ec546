//! Lengths of time, and a clock that a test moves by hand.

use std::time::Duration;

use tower_idempotency::clock::Timestamp;
use tower_idempotency::test_util::ManualClock;

pub const SECOND: Duration = Duration::from_secs(1);
pub const HOUR: Duration = Duration::from_secs(3_600);
pub const DAY: Duration = Duration::from_secs(86_400);

/// The time at which most tests with a clock begin.
pub const NOON: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// A clock that shows [`NOON`].
pub fn clock() -> ManualClock {
    ManualClock::new(NOON)
}
