//! The list of what operators may have to see to.

use std::time::Duration;

use bytes::Bytes;
use tower_idempotency::RecordId;
use tower_idempotency_shared::{Backend, Clocks, Expect, Kind, NewExpiry, Row, Write};

use crate::backend::rule::Rule;
use crate::backend::sample::{AT_ONCE, HOUR, claim, session};
use crate::backend::subject::BackendSubject;
use crate::fresh::{fresh_id, fresh_ids};

/// The whole list, in pages of `limit`, if these sessions are alive.
async fn listed<B: Backend>(rule: &Rule<'_, B>, alive: &[RecordId], limit: usize) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    loop {
        let after = rows.last().map(|row| (row.began, row.id));
        let page = rule.answered("list", rule.subject.backend.list(Clocks::default(), alive, after, limit).await).rows;
        rule.check(page.len() <= limit, || format!("a page of at most {limit} has {} rows", page.len()));
        for row in &page {
            let last = rows.last().map(|row| (row.began, row.id));
            rule.check(last.is_none_or(|last| last < (row.began, row.id)), || {
                format!("{:?} of {:?} is listed after {last:?}", row.began, row.id)
            });
            rows.push(row.clone());
        }
        if page.is_empty() {
            return rows;
        }
    }
}

/// The rows of the kind [`Session`](Kind::Session), whatever their `until`, and no others.
pub(crate) async fn sessions_are_the_rows_of_their_kind<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "read all rows of the kind 6 that are not past their expiry, each as `get` reads it; their `until` has no part in \
                  it";
    let rule = Rule::new(subject, "sessions_are_the_rows_of_their_kind", advice);
    let mut all = Vec::new();
    for kind in (0..=8).map(Kind::of) {
        for until in [Some(HOUR), Some(Duration::ZERO), None] {
            let write = Write { kind, until, ..session(fresh_id(), HOUR) };
            all.push((kind == Kind::Session, rule.done(&write).await));
        }
    }
    let (renewed, gone) = (fresh_id(), fresh_id());
    let first = rule.done(&session(renewed, HOUR)).await;
    let second = rule.done(&Write { expect: Expect::Token(first.token), ..session(renewed, HOUR) }).await;
    all.push((true, second));
    rule.write(&Write { expires: NewExpiry::In(AT_ONCE), ..session(gone, HOUR) }).await;
    rule.pass(AT_ONCE * 2).await;
    let rows = rule.answered("read the sessions", subject.backend.sessions(Clocks::default()).await).rows;
    for (should, row) in all {
        let found = rows.iter().filter(|found| found.id == row.id).collect::<Vec<_>>();
        let expected = if should { vec![&row] } else { Vec::new() };
        rule.check(found == expected, || format!("{row:?} was put, and the sessions have {found:?} of it"));
    }
    rule.check(!rows.iter().any(|row| row.id == gone), || "a session past its expiry is read".to_owned());
}

/// Rows of each kind, with sessions alive, not alive and absent: the list has those that [`Backend::list`] names, as
/// `get` reads them.
pub(crate) async fn list_has_what_operators_see_to_and_nothing_else<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "list the kinds 2 and 7, and the kind 1 where its session is absent or not among those that are alive, or where \
                  its `until` is absent or not later than now; leave out rows past their expiry";
    let rule = Rule::new(subject, "list_has_what_operators_see_to_and_nothing_else", advice);
    let [alive, another, over, ended] = [fresh_id(), fresh_id(), fresh_id(), fresh_id()];
    // Whether a session is alive is for the process to say that asks, whatever its row says.
    rule.done(&session(alive, Duration::ZERO)).await;
    rule.done(&session(over, HOUR)).await;
    rule.done(&Write { kind: Kind::Released, ..session(ended, HOUR) }).await;
    let mut all: Vec<(String, RecordId, bool)> = Vec::new();
    for kind in (0..=8).map(Kind::of) {
        let sessions = [("a live", Some(alive)), ("a live and absent", Some(another)), ("an old", Some(over))];
        let others = [("an ended", Some(ended)), ("an absent", Some(fresh_id())), ("no", None)];
        for (whose, of) in sessions.into_iter().chain(others) {
            for (bound, until) in
                [("a bound to come", Some(HOUR)), ("a bound past", Some(Duration::ZERO)), ("none", None)]
            {
                let id = fresh_id();
                rule.done(&Write { kind, session: of, until, ..claim(id) }).await;
                let is_running_well = (of == Some(alive) || of == Some(another)) && until == Some(HOUR);
                let should = match kind {
                    Kind::Interrupted | Kind::Disputed => true,
                    Kind::Running => !is_running_well,
                    _ => false,
                };
                all.push((format!("{kind:?} of {whose} session with {bound}"), id, should));
            }
        }
    }
    let gone = fresh_id();
    let write = Write { kind: Kind::Interrupted, expires: NewExpiry::In(AT_ONCE), ..claim(gone) };
    rule.write(&write).await;
    rule.pass(AT_ONCE * 2).await;
    all.push(("a row past its expiry".to_owned(), gone, false));
    let rows = listed(&rule, &[alive, another], 1_000).await;
    for (what, id, should) in all {
        let row = rows.iter().find(|row| row.id == id);
        rule.check(row.is_some() == should, || format!("{what} is {}listed", if should { "not " } else { "" }));
        if let Some(row) = row {
            let got = rule.get(id).await;
            rule.check(got.as_ref() == Some(row), || format!("{what}: get answered {got:?}, and list {row:?}"));
        }
    }
}

/// Rows that began in the same millisecond, and others: in pages of any size each comes once, by `began` and id.
pub(crate) async fn list_is_paged_without_gaps_or_repeats<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "order by `began` in whole milliseconds and then by id, and begin each page strictly after the place that is \
                  given; an order by finer times than are answered leaves rows out";
    let rule = Rule::new(subject, "list_is_paged_without_gaps_or_repeats", advice);
    let mut ids = Vec::new();
    for _ in 0..4 {
        let batch = fresh_ids(30);
        let writes: Vec<Write> = batch.iter().map(|id| Write { kind: Kind::Interrupted, ..claim(*id) }).collect();
        rule.put(&writes).await;
        ids.extend(batch);
        rule.pass(AT_ONCE * 2).await;
    }
    for limit in [1, 2, 7, 120, 1_000] {
        let rows = listed(&rule, &[], limit).await;
        for id in &ids {
            let times = rows.iter().filter(|row| row.id == *id).count();
            rule.check(times == 1, || format!("in pages of {limit}, a row is listed {times} times"));
        }
    }
}

/// Rows of each kind: a scan in pages of any size has each row of an operation once, in the order of their ids, as
/// `get` reads it, and no others.
pub(crate) async fn a_scan_has_each_operation_once_in_the_order_of_ids<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "read the kinds 1 to 4 and those of later releases, order by id, and begin each page strictly after the id that \
                  is given; leave out rows past their expiry";
    let rule = Rule::new(subject, "a_scan_has_each_operation_once_in_the_order_of_ids", advice);
    let mut all = Vec::new();
    for kind in (1..=8).map(Kind::of) {
        for _ in 0..5 {
            let id = fresh_id();
            rule.done(&Write { kind, ..claim(id) }).await;
            all.push((kind, id, !matches!(kind, Kind::Released | Kind::Session | Kind::Disputed)));
        }
    }
    let gone = fresh_id();
    rule.write(&Write { kind: Kind::Completed, expires: NewExpiry::In(AT_ONCE), ..claim(gone) }).await;
    rule.pass(AT_ONCE * 2).await;
    all.push((Kind::Completed, gone, false));
    for limit in [1, 7, 1_000] {
        let mut rows: Vec<Row> = Vec::new();
        loop {
            let after = rows.last().map(|row| row.id);
            let page = rule.answered("scan", rule.subject.backend.scan(Clocks::default(), after, limit).await).rows;
            rule.check(page.len() <= limit, || format!("a page of at most {limit} has {} rows", page.len()));
            if page.is_empty() {
                break;
            }
            let last = page.iter().try_fold(after, |last, row| (last < Some(row.id)).then_some(Some(row.id)));
            rule.check(last.is_some(), || format!("in pages of {limit}, the ids do not grow"));
            rows.extend(page);
        }
        for (kind, id, should) in &all {
            let found: Vec<_> = rows.iter().filter(|row| row.id == *id).cloned().collect();
            let expected: Vec<_> = if *should { rule.get(*id).await.into_iter().collect() } else { Vec::new() };
            rule.check(found == expected, || {
                format!("a scan has {found:?} of a row of the kind {kind:?}: {expected:?}")
            });
        }
    }
}

/// A disputed outcome in the list, and a completed one in a scan, which are large: each has the beginning of its state,
/// from which the store reads what operators see, and may have more of it.
pub(crate) async fn a_large_state_is_listed_by_its_beginning<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "cut a state of more than 2 KiB to its first 1 KiB, in a scan and, of the kind 7, in the list; do not leave it out";
    let rule = Rule::new(subject, "a_large_state_is_listed_by_its_beginning", advice);
    let state: Bytes = (0..=u8::MAX).cycle().take(100_000).collect();
    // The scan begins at the place before its row.
    let mut bytes = *fresh_id().as_bytes();
    let [place, id] = [254, 255].map(|last| {
        bytes[31] = last;
        RecordId::from_bytes(bytes)
    });
    let [disputed, completed] = [(fresh_id(), Kind::Disputed), (id, Kind::Completed)];
    for (id, kind) in [disputed, completed] {
        rule.write(&Write { kind, state: state.clone(), ..claim(id) }).await;
    }
    let scanned = rule.answered("scan", subject.backend.scan(Clocks::default(), Some(place), 1).await).rows;
    for (rows, (id, kind)) in [(listed(&rule, &[], 1_000).await, disputed), (scanned, completed)] {
        let found = rows.into_iter().find(|row| row.id == id).map(|row| row.state);
        let is_beginning = found.as_ref().is_some_and(|found| found.len() >= 1_024 && state.starts_with(found));
        rule.check(is_beginning, || {
            let bytes = found.map(|found| found.len());
            format!("a row of the kind {kind:?} with a state of 100000 bytes is listed with {bytes:?} bytes, or others")
        });
    }
}
