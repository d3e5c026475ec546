//! Times and bytes, as people read them.

use std::time::{Duration, UNIX_EPOCH};

use tower_idempotency::clock::Timestamp;

/// Returns a time in RFC 3339.
pub(crate) fn time(time: Timestamp) -> String {
    match UNIX_EPOCH.checked_add(Duration::from_millis(time.as_millis())) {
        // The format has no later time.
        Some(at) if time.as_millis() < 253_402_300_800_000 => humantime::format_rfc3339_millis(at).to_string(),
        _ => format!("{} ms", time.as_millis()),
    }
}

/// Returns the time from `since` to `now`, in its two largest units.
pub(crate) fn ago(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_millis().saturating_sub(since.as_millis()) / 1_000;
    let text = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// Returns bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_readable_whatever_they_are() {
        let millis = Timestamp::from_millis;
        assert_eq!(time(millis(1_700_000_000_123)), "2023-11-14T22:13:20.123Z");
        assert_eq!(time(millis(u64::MAX)), format!("{} ms", u64::MAX));
        assert_eq!(ago(millis(0), millis(90_061_000)), "1day 1h");
        assert_eq!(ago(millis(5), millis(0)), "0s");
    }
}
