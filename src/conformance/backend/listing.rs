//! The list of what operators may have to see to.

use std::time::Duration;

use super::rule::Rule;
use super::sample::{AT_ONCE, HOUR, claim, session};
use super::subject::Subject;
use crate::conformance::fresh::{fresh_id, fresh_ids};
use crate::key::RecordId;
use crate::store::shared::{Backend, Kind, NewExpiry, Row, Write};

/// The whole list, in pages of `limit`.
async fn listed<B: Backend>(rule: &Rule<'_, B>, limit: usize) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    loop {
        let after = rows.last().map(|row| (row.began, row.id));
        let page = rule.answered("list", rule.subject.backend.list(after, limit).await).rows;
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

/// Rows of each kind, with sessions alive, lapsed, ended and absent: the list has those that [`Backend::list`] names,
/// as `get` reads them.
pub(super) async fn list_has_what_operators_see_to_and_nothing_else<B: Backend>(subject: &Subject<B>) {
    let advice = "list the kinds 2 and 7, and the kind 1 where its session's lease or its own `until` is absent or not later \
                  than now; leave out rows past their expiry";
    let rule = Rule::new(subject, "list_has_what_operators_see_to_and_nothing_else", advice);
    let [alive, lapsed, ended] = [fresh_id(), fresh_id(), fresh_id()];
    rule.done(&session(alive, HOUR)).await;
    rule.done(&session(lapsed, Duration::ZERO)).await;
    rule.done(&Write { kind: Kind::Released, ..session(ended, HOUR) }).await;
    let mut all: Vec<(String, RecordId, bool)> = Vec::new();
    for kind in (0..=8).map(Kind::of) {
        let sessions = [("a live", Some(alive)), ("a lapsed", Some(lapsed)), ("an ended", Some(ended))];
        for (whose, of) in sessions.into_iter().chain([("an absent", Some(fresh_id())), ("no", None)]) {
            for (bound, until) in
                [("a bound to come", Some(HOUR)), ("a bound past", Some(Duration::ZERO)), ("none", None)]
            {
                let id = fresh_id();
                rule.done(&Write { kind, session: of, until, ..claim(id) }).await;
                let is_running_well = of == Some(alive) && until == Some(HOUR);
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
    let rows = listed(&rule, 1_000).await;
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
pub(super) async fn list_is_paged_without_gaps_or_repeats<B: Backend>(subject: &Subject<B>) {
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
        let rows = listed(&rule, limit).await;
        for id in &ids {
            let times = rows.iter().filter(|row| row.id == *id).count();
            rule.check(times == 1, || format!("in pages of {limit}, a row is listed {times} times"));
        }
    }
}
