//! The times of a row, by the database's clock.

use std::time::Duration;

use tower_idempotency::clock::Timestamp;
use tower_idempotency_shared::{Backend, Expect, NewExpiry, Row, Stamp, Write};

use crate::backend::rule::Rule;
use crate::backend::sample::{AT_ONCE, HOUR, claim, complete};
use crate::backend::subject::BackendSubject;
use crate::fresh::fresh_id;

/// Puts a write that has to be done, alone or together with another one. Gives the row with the database's times before
/// and after.
async fn timed<B: Backend>(rule: &Rule<'_, B>, together: bool, write: &Write) -> (Timestamp, Row, Timestamp) {
    let before = rule.now().await;
    let (row, now) = rule.done_in(together, write).await;
    (before, row, now)
}

/// `began` and `since` are now where the write says so or the row was absent, and as they were otherwise.
pub(crate) async fn began_and_since_are_stamped_where_the_write_says_so<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "stamp `began` and `since` with the time of the write, in whole milliseconds rounded down; \
                  `Stamp::Keep` keeps what a row that is there has";
    let rule = Rule::new(subject, "began_and_since_are_stamped_where_the_write_says_so", advice);
    for together in [false, true] {
        for began in [Stamp::Keep, Stamp::Now] {
            for since in [Stamp::Keep, Stamp::Now] {
                is_stamped(&rule, together, began, since).await;
            }
        }
    }
}

/// Checks the stamps of a row that was absent, and of the same row when it is written again.
async fn is_stamped<B: Backend>(rule: &Rule<'_, B>, together: bool, began: Stamp, since: Stamp) {
    let (before, first, now) = timed(rule, together, &Write { began, since, ..claim(fresh_id()) }).await;
    for (what, time) in [("began", first.began), ("since", first.since)] {
        rule.check(before <= time && time <= now, || {
            format!("{what} of a row that was absent is {time:?}, and it was written between {before:?} and {now:?}")
        });
    }
    rule.pass(AT_ONCE * 3).await;
    let (before, row, now) = timed(rule, together, &Write { began, since, ..complete(&first) }).await;
    for (what, stamp, was, is) in [("began", began, first.began, row.began), ("since", since, first.since, row.since)] {
        let holds = match stamp {
            Stamp::Keep => is == was,
            Stamp::Now => before <= is && is <= now,
        };
        rule.check(holds, || {
            format!("{what} was {was:?}; a write at {before:?} to {now:?} that says {stamp:?} made it {is:?}")
        });
    }
}

/// `until` and `expires` are so long from the write.
pub(crate) async fn until_and_expires_count_from_the_write<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "add the durations to the time of the write, not to when it was sent";
    let rule = Rule::new(subject, "until_and_expires_count_from_the_write", advice);
    let durations = [(HOUR, HOUR * 24 * 400), (Duration::ZERO, HOUR), (Duration::from_millis(61_007), HOUR * 24)];
    for together in [false, true] {
        let id = fresh_id();
        let mut expect = Expect::Absent;
        for (until, expiry) in durations {
            rule.pass(AT_ONCE * 3).await;
            let write = Write { expect, until: Some(until), expires: NewExpiry::In(expiry), ..claim(id) };
            let (before, row, now) = timed(&rule, together, &write).await;
            for (what, duration, time) in [("until", until, row.until), ("expires", expiry, Some(row.expires))] {
                let holds = time.is_some_and(|time| before.plus(duration) <= time && time <= now.plus(duration));
                rule.check(holds, || {
                    format!("{what}, {duration:?} from a write between {before:?} and {now:?}, is {time:?}")
                });
            }
            expect = Expect::Token(row.token);
        }
    }
}

/// A write that keeps the expiry leaves it where it is.
pub(crate) async fn a_kept_expiry_is_the_rows<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "`NewExpiry::Keep` leaves the row's expiry as it is, however late the write is";
    let rule = Rule::new(subject, "a_kept_expiry_is_the_rows", advice);
    let mut row = rule.done(&claim(fresh_id())).await;
    let expires = row.expires;
    for together in [false, true, false] {
        rule.pass(AT_ONCE * 3).await;
        (row, _) = rule.done_in(together, &complete(&row)).await;
        rule.check(row.expires == expires, || format!("it was to expire at {expires:?}, and now at {:?}", row.expires));
    }
}
