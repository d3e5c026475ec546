//! Points in time.

use std::time::{Duration, UNIX_EPOCH};

use tower_idempotency::clock::Timestamp;

#[test]
fn a_time_is_the_same_in_the_standard_library_s_form() {
    let time = Timestamp::from_millis(1_790_000_000_123);
    assert_eq!(time.to_system_time().map(Timestamp::from), Some(time));
    assert_eq!(Timestamp::from(UNIX_EPOCH - Duration::from_secs(1)), Timestamp::from_millis(0));
}
