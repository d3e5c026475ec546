//! Numbers as decimal texts of one length, which compare as the numbers do. Lua would keep them as doubles.

use std::time::Duration;

use tower_idempotency::clock::Timestamp;

/// The length of a number.
pub(crate) const DIGITS: usize = 20;
/// The longest duration: so many years are written as whole milliseconds without loss.
const MAX_DURATION: Duration = Duration::from_secs(100 * 366 * 86_400);

pub(crate) fn number(number: u64) -> String {
    format!("{number:0width$}", width = DIGITS)
}

pub(crate) fn time(time: Timestamp) -> String {
    number(time.as_millis())
}

/// Whole milliseconds. More than a hundred years count as a hundred.
pub(crate) fn duration(duration: Duration) -> String {
    number(u64::try_from(duration.min(MAX_DURATION).as_millis()).unwrap_or(u64::MAX))
}

/// A kind's number, with its sign.
pub(crate) fn kind(kind: i16) -> String {
    format!("{kind:+06}")
}

/// Reads a number, or a kind with its sign.
pub(crate) fn read<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_survives_and_has_one_length() {
        for value in [0, 1, 9_007_199_254_740_993, u64::MAX] {
            assert_eq!((number(value).len(), read(number(value).as_bytes())), (DIGITS, Some(value)));
        }
        for value in [i16::MIN, -1, 0, 7, i16::MAX] {
            assert_eq!((kind(value).len(), read(kind(value).as_bytes())), (6, Some(value)));
        }
    }
}
