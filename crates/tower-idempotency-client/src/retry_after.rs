//! Reads `Retry-After`: the client for the pause between two attempts, and an outbox for the time of the next try.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{DATE, HeaderValue, RETRY_AFTER};

/// How long a response asks to wait by `Retry-After`: seconds, or a date (RFC 9110 section 10.2.3). A date is compared
/// with the server's own `Date`, so that a wrong clock of this machine makes no difference; without one, with this
/// machine's clock. `None`: it does not ask, or in no form that the RFC has.
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that is too large for an integer is later than any deadline.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date_in = |value: &HeaderValue| httpdate::parse_http_date(value.to_str().ok()?).ok();
    let now = headers.get(DATE).and_then(date_in).unwrap_or_else(SystemTime::now);
    Some(httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(lines: &[(&'static str, &'static str)]) -> Option<Duration> {
        let line = |(name, value): &(&'static str, &'static str)| (name.parse().unwrap(), value.parse().unwrap());
        retry_after(&lines.iter().map(line).collect())
    }

    #[test]
    fn seconds_and_dates_are_understood() {
        assert_eq!(wait(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
        let date = ("date", "Thu, 26 Nov 2026 10:00:00 GMT");
        assert_eq!(wait(&[("retry-after", "Thu, 26 Nov 2026 10:00:30 GMT"), date]), Some(Duration::from_secs(30)));
        assert_eq!(wait(&[("retry-after", "Thu, 26 Nov 2026 09:00:00 GMT"), date]), Some(Duration::ZERO));
        assert_eq!(wait(&[("retry-after", "99999999999999999999999")]), Some(Duration::from_secs(u64::MAX)));
        for nonsense in ["soon", "-1", "1.5", ""] {
            assert_eq!(wait(&[("retry-after", nonsense)]), None, "{nonsense}");
        }
    }

    #[test]
    fn a_date_without_the_servers_own_is_compared_with_this_clock() {
        assert_eq!(wait(&[("retry-after", "Thu, 01 Jan 1970 00:00:00 GMT")]), Some(Duration::ZERO));
        assert!(wait(&[("retry-after", "Fri, 31 Dec 9999 00:00:00 GMT")]) > Some(Duration::from_secs(1 << 30)));
    }
}
