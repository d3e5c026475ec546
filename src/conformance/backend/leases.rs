//! The lease of a row's session, read with the row.

use std::time::Duration;

use super::rule::Rule;
use super::sample::{AT_ONCE, HOUR, claim, complete, session};
use super::subject::Subject;
use crate::clock::Timestamp;
use crate::conformance::fresh::fresh_id;
use crate::key::RecordId;
use crate::store::shared::{Backend, Expect, Kind, NewExpiry, Write};

/// A row that `list` has, of this session.
fn listed(id: RecordId, of: RecordId) -> Write {
    Write { kind: Kind::Interrupted, session: Some(of), ..claim(id) }
}

/// Checks the lease that get, list and a put that is refused read.
async fn reads<B: Backend>(rule: &Rule<'_, B>, what: &str, id: RecordId, should: Option<Timestamp>) {
    let got = rule.get(id).await;
    let put = rule.refused(&claim(id)).await;
    let mut after = None;
    let listed = loop {
        let rows = rule.answered("list", rule.subject.backend.list(after, 100).await).rows;
        let last = rows.last().map(|row| (row.began, row.id));
        rule.check(last.is_none() || after < last, || format!("the page after {after:?} ends at {last:?}"));
        after = last;
        if after.is_none() || rows.iter().any(|row| row.id == id) {
            break rows.into_iter().find(|row| row.id == id);
        }
    };
    for (by, row) in [("get", got), ("put", put), ("list", listed)] {
        let lease = row.as_ref().map(|row| row.lease);
        rule.check(lease == Some(should), || format!("{what}: {by} answered the lease {lease:?}, not {should:?}"));
    }
}

/// The lease of a row is the `until` of its session's row, wherever the row is read.
pub(super) async fn the_lease_is_that_of_the_session<B: Backend>(subject: &Subject<B>) {
    let advice = "join each row, in get, put and list, with the row of its session, and answer that one's `until`";
    let rule = Rule::new(subject, "the_lease_is_that_of_the_session", advice);
    let (id, of) = (fresh_id(), fresh_id());
    let mut renewed = rule.done(&session(of, HOUR * 2)).await;
    let row = rule.done(&Write { until: Some(HOUR), ..listed(id, of) }).await;
    rule.check(row.lease == renewed.until, || {
        format!(
            "the session has its lease until {:?}, and the put of a row of it answered {:?}",
            renewed.until, row.lease
        )
    });
    for lease in [HOUR * 3, Duration::ZERO, HOUR] {
        reads(&rule, "a live session", id, renewed.until).await;
        renewed = rule.done(&Write { expect: Expect::Token(renewed.token), ..session(of, lease) }).await;
    }
    reads(&rule, "a session that was renewed late", id, renewed.until).await;
    let id = fresh_id();
    rule.done(&Write { session: None, ..listed(id, of) }).await;
    reads(&rule, "a row of no session", id, None).await;
}

/// A session's row that is absent, ended, past its expiry or of another kind gives no lease.
pub(super) async fn nothing_but_a_live_session_gives_a_lease<B: Backend>(subject: &Subject<B>) {
    let advice = "join only with rows of the kind 6 that are not past their expiry; otherwise the lease is `None`";
    let rule = Rule::new(subject, "nothing_but_a_live_session_gives_a_lease", advice);
    let (id, of) = (fresh_id(), fresh_id());
    rule.done(&listed(id, of)).await;
    reads(&rule, "a session that was never there", id, None).await;
    let mut row = rule.done(&session(of, HOUR)).await;
    let kinds = [Kind::Running, Kind::Interrupted, Kind::Completed, Kind::Released, Kind::Disputed, Kind::Unknown(99)];
    for kind in kinds {
        row = rule.done(&Write { kind, until: Some(HOUR), ..complete(&row) }).await;
        reads(&rule, &format!("a session's row that has become {kind:?}"), id, None).await;
    }
    row = rule.done(&Write { kind: Kind::Session, ..complete(&row) }).await;
    reads(&rule, "a session without an end", id, None).await;
    let expires = NewExpiry::In(AT_ONCE);
    rule.write(&Write { kind: Kind::Session, until: Some(HOUR), expires, ..complete(&row) }).await;
    rule.pass(AT_ONCE * 2).await;
    reads(&rule, "a session past its expiry", id, None).await;
}

/// Session and row that are written by one put are read as both then are, in whatever order they were given.
pub(super) async fn the_lease_is_read_in_the_same_step<B: Backend>(subject: &Subject<B>) {
    let advice = "read the rows, and join their sessions, after all writes of the put were done, in the same step";
    let rule = Rule::new(subject, "the_lease_is_read_in_the_same_step", advice);
    for is_session_first in [true, false] {
        let (id, of) = (fresh_id(), fresh_id());
        let mut expect = (Expect::Absent, Expect::Absent);
        for lease in [HOUR, HOUR * 2, HOUR * 3] {
            let renewal = Write { expect: expect.0, ..session(of, lease) };
            let write = Write { expect: expect.1, ..listed(id, of) };
            expect = (Expect::Token(renewal.token), Expect::Token(write.token));
            let mut writes = vec![renewal, write];
            if !is_session_first {
                writes.reverse();
            }
            let answer = rule.put(&writes).await;
            let found = |id| answer.rows.iter().flatten().find(|row| row.id == id);
            let (until, lease) = (found(of).and_then(|row| row.until), found(id).map(|row| row.lease));
            rule.check(until.is_some() && lease == Some(until), || {
                format!("one put wrote a session until {until:?} and a row of it, whose lease it answered as {lease:?}")
            });
        }
    }
}
