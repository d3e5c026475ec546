//! The times of a row, by the database's clock.

use std::time::Duration;

use tower_idempotency::clock::Timestamp;
use tower_idempotency::store::shared::{Answer, Backend, Expect, NewExpiry, Row, Stamp, Write};

use crate::backend::rule::Rule;
use crate::backend::sample::{AT_ONCE, HOUR, claim, complete};
use crate::backend::subject::Subject;
use crate::fresh::fresh_id;

/// Puts a write that has to be done, and gives the row with the database's times before and after.
async fn timed<B: Backend>(rule: &Rule<'_, B>, write: &Write) -> (Timestamp, Row, Timestamp) {
    let before = rule.now().await;
    let Answer { now, mut rows, .. } = rule.put(std::slice::from_ref(write)).await;
    match rows.remove(0) {
        Some(row) if row.token == write.token => (before, row, now),
        row => rule.fail(format_args!("{write:?} was not done; the answer was {row:?}")),
    }
}

/// `began` and `since` are now where the write says so or the row was absent, and as they were otherwise.
pub(crate) async fn began_and_since_are_stamped_where_the_write_says_so<B: Backend>(subject: &Subject<B>) {
    let advice = "stamp `began` and `since` with the time of the write, in whole milliseconds rounded down; \
                  `Stamp::Keep` keeps what a row that is there has";
    let rule = Rule::new(subject, "began_and_since_are_stamped_where_the_write_says_so", advice);
    for began in [Stamp::Keep, Stamp::Now] {
        for since in [Stamp::Keep, Stamp::Now] {
            let id = fresh_id();
            let (before, first, now) = timed(&rule, &Write { began, since, ..claim(id) }).await;
            for (what, time) in [("began", first.began), ("since", first.since)] {
                rule.check(before <= time && time <= now, || {
                    format!(
                        "{what} of a row that was absent is {time:?}, and it was written between {before:?} and {now:?}"
                    )
                });
            }
            rule.pass(AT_ONCE * 3).await;
            let (before, row, now) = timed(&rule, &Write { began, since, ..complete(&first) }).await;
            for (what, stamp, was, is) in
                [("began", began, first.began, row.began), ("since", since, first.since, row.since)]
            {
                let holds = match stamp {
                    Stamp::Keep => is == was,
                    Stamp::Now => before <= is && is <= now,
                };
                rule.check(holds, || {
                    format!("{what} was {was:?}; a write at {before:?} to {now:?} that says {stamp:?} made it {is:?}")
                });
            }
        }
    }
}

/// `until` and `expires` are so long from the write.
pub(crate) async fn until_and_expires_count_from_the_write<B: Backend>(subject: &Subject<B>) {
    let advice = "add the durations to the time of the write, not to when it was sent";
    let rule = Rule::new(subject, "until_and_expires_count_from_the_write", advice);
    let id = fresh_id();
    let mut expect = Expect::Absent;
    for (until, expiry) in [(HOUR, HOUR * 24 * 400), (Duration::ZERO, HOUR), (Duration::from_millis(61_007), HOUR * 24)]
    {
        rule.pass(AT_ONCE * 3).await;
        let write = Write { expect, until: Some(until), expires: NewExpiry::In(expiry), ..claim(id) };
        let (before, row, now) = timed(&rule, &write).await;
        for (what, duration, time) in [("until", until, row.until), ("expires", expiry, Some(row.expires))] {
            let holds = time.is_some_and(|time| before.plus(duration) <= time && time <= now.plus(duration));
            rule.check(holds, || {
                format!("{what}, {duration:?} from a write between {before:?} and {now:?}, is {time:?}")
            });
        }
        expect = Expect::Token(row.token);
    }
}

/// A write that keeps the expiry leaves it where it is.
pub(crate) async fn a_kept_expiry_is_the_rows<B: Backend>(subject: &Subject<B>) {
    let advice = "`NewExpiry::Keep` leaves the row's expiry as it is, however late the write is";
    let rule = Rule::new(subject, "a_kept_expiry_is_the_rows", advice);
    let mut row = rule.done(&claim(fresh_id())).await;
    let expires = row.expires;
    for _ in 0..3 {
        rule.pass(AT_ONCE * 3).await;
        row = rule.done(&complete(&row)).await;
        rule.check(row.expires == expires, || format!("it was to expire at {expires:?}, and now at {:?}", row.expires));
    }
}
