//! The clocks of the process that calls: rows are judged by the earliest of them and the database's, and stamped by the
//! latest.

use std::time::Duration;

use tower_idempotency::clock::Timestamp;
use tower_idempotency_shared::{Backend, Clocks, Expect, GRACE, Kind, NewExpiry, Row, Write};

use crate::backend::rule::{Rule, is_done};
use crate::backend::sample::{AT_ONCE, HOUR, claim, complete, session};
use crate::backend::subject::BackendSubject;
use crate::fresh::fresh_id;

/// Clocks by which a row is not yet past its expiry.
fn before_the_expiry_of(row: &Row) -> Clocks {
    let earliest = Timestamp::from_millis(row.expires.as_millis() - 1);
    Clocks { earliest, ..Clocks::default() }
}

/// A row whose expiry has passed by the database's clock is there for a process whose clock is earlier, in each call.
/// The later of the two clocks has no part in it.
pub(crate) async fn a_row_is_judged_by_the_earliest_clock<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "compare expiries, and the `until` of runs, with the earlier of the database's time and `Clocks::earliest`: `least` \
                  in SQL";
    let rule = Rule::new(subject, "a_row_is_judged_by_the_earliest_clock", advice);
    // Long enough that the answer still has the row.
    let until = Duration::from_millis(50);
    let live = rule.done(&Write { until: Some(until), expires: NewExpiry::In(until), ..claim(fresh_id()) }).await;
    let of = rule.done(&Write { expires: NewExpiry::In(until), ..session(fresh_id(), HOUR) }).await;
    let kept = rule.done(&claim(fresh_id())).await;
    rule.pass(until * 2).await;
    let clocks = before_the_expiry_of(&live);
    rule.check(rule.get(live.id).await.is_none(), || "the row is past its expiry by the database's clock".to_owned());
    let got = rule.get_at(clocks, live.id).await;
    rule.check(got.as_ref() == Some(&live), || format!("get answered {got:?} by an earlier clock, not {live:?}"));
    let put = rule.write_at(clocks, &claim(live.id)).await;
    rule.check(put.as_ref() == Some(&live), || format!("a claim of a row that is there was answered {put:?}"));
    let sessions = subject.backend.sessions(before_the_expiry_of(&of)).await;
    let sessions = rule.answered("read the sessions", sessions).rows;
    rule.check(sessions.contains(&of), || "a session that is there by an earlier clock was not read".to_owned());
    let owner = fresh_id();
    let running = Write { expect: Expect::Token(live.token), session: Some(owner), ..claim(live.id) };
    let running = Write { until: Some(Duration::ZERO), expires: NewExpiry::In(HOUR), ..running };
    let row = rule.write_at(clocks, &running).await;
    rule.check(is_done(row.as_ref(), &running), || format!("a write over a row that is there was answered {row:?}"));
    let row = row.unwrap_or_else(|| rule.fail("no row was answered"));
    rule.pass(AT_ONCE * 2).await;
    for (earlier, should) in [(false, true), (true, false)] {
        let until = row.until.unwrap_or(row.expires).as_millis();
        let clocks = if earlier {
            Clocks { earliest: Timestamp::from_millis(until - 1), ..Clocks::default() }
        } else {
            Clocks::default()
        };
        let rows = rule.answered("list", subject.backend.list(clocks, &[owner], None, 100_000).await).rows;
        let is_listed = rows.iter().any(|listed| listed.id == row.id);
        rule.check(is_listed == should, || {
            format!("past its bound by the earliest clock: {should}; listed: {is_listed}")
        });
    }
    // The database's clock is the earlier one.
    let far = Clocks { earliest: rule.now().await.plus(HOUR * 24 * 400), ..Clocks::default() };
    let got = rule.get_at(far, kept.id).await;
    rule.check(got.as_ref() == Some(&kept), || format!("get answered {got:?} by a later clock, not {kept:?}"));
    let claimed = claim(kept.id);
    let put = rule.write_at(far, &claimed).await;
    rule.check(put.as_ref() == Some(&kept), || format!("by a later clock, a claim over a row was answered {put:?}"));
}

/// `until`, `expires` and fences count from the latest clock, `began` is the earliest, and `since` and the answer's
/// time are the database's.
pub(crate) async fn a_row_is_stamped_by_the_latest_clock_and_begins_by_the_earliest<B: Backend>(
    subject: &BackendSubject<B>,
) {
    let advice = "add the durations to the later of the database's time and `Clocks::latest`, and take fences from it: `greatest` in \
                  SQL; stamp `began` with the earlier of the database's time and `Clocks::earliest`, and `since` with the \
                  database's";
    let rule = Rule::new(subject, "a_row_is_stamped_by_the_latest_clock_and_begins_by_the_earliest", advice);
    for ahead in [Duration::ZERO, HOUR * 25] {
        let (before, id) = (rule.now().await, fresh_id());
        // The process's clocks are behind the database's, or ahead of it.
        let an_hour_ago = Timestamp::from_millis(before.as_millis() - 3_600_000);
        let (earliest, latest) = match ahead {
            Duration::ZERO => (an_hour_ago, an_hour_ago),
            ahead => (Clocks::default().earliest, before.plus(ahead)),
        };
        let clocks = Clocks { earliest, latest };
        let first = Write { kind: Kind::Running, until: Some(HOUR), expires: NewExpiry::In(HOUR * 2), ..claim(id) };
        let mut expect = Expect::Absent;
        for what in ["a claim of an absent row", "a write over a row"] {
            let write = Write { expect, token: crate::backend::sample::fresh_token(), ..first.clone() };
            let Some(row) = rule.write_at(clocks, &write).await.filter(|row| row.token == write.token) else {
                rule.fail(format_args!("{what} was not done"));
            };
            let now = rule.now().await;
            let (least, most) = (before.max(latest), now.max(latest));
            let times = [("until", row.until, HOUR), ("expires", Some(row.expires), HOUR * 2)];
            for (which, time, duration) in times {
                let holds = time.is_some_and(|time| least.plus(duration) <= time && time <= most.plus(duration));
                rule.check(holds, || format!("{which} of {what} is {time:?}, {duration:?} from {least:?} to {most:?}"));
            }
            let micros = least.as_millis() * 1_000;
            rule.check(row.fence.0 >= micros, || {
                format!("the fence of {what} is {}, and the clock {micros}", row.fence)
            });
            let since = row.since;
            rule.check(before <= since && since <= now, || format!("since of {what} is {since:?}, not the database's"));
            let (least, most) = (before.min(earliest), now.min(earliest));
            rule.check(least <= row.began && row.began <= most, || {
                format!("began of {what} is {:?}, not from {least:?} to {most:?}", row.began)
            });
            expect = Expect::Token(row.token);
        }
    }
}

/// A row whose grace is over by the database's clock alone is not deleted.
pub(crate) async fn nothing_is_deleted_that_the_earliest_clock_keeps<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "delete only rows that have been past their expiry for `GRACE` by the earlier of the database's time and \
                  `Clocks::earliest`";
    let rule = Rule::new(subject, "nothing_is_deleted_that_the_earliest_clock_keeps", advice);
    let Some(pass) = &subject.clock else { return rule.leave_out("`clock`") };
    let row = rule.done(&Write { expires: NewExpiry::In(HOUR), ..claim(fresh_id()) }).await;
    let row = rule.done(&complete(&row)).await;
    pass(HOUR + GRACE * 2);
    let clocks = before_the_expiry_of(&row);
    rule.answered("delete expired rows", subject.backend.delete_expired(clocks, 1_000).await);
    let got = rule.get_at(clocks, row.id).await;
    rule.check(got.as_ref() == Some(&row), || format!("a row that the earliest clock keeps was deleted: {got:?}"));
}
