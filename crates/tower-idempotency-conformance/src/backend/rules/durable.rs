//! Rows that are shown while nothing becomes durable.

use std::time::Duration;

use tokio::time::timeout;
use tower_idempotency::RecordId;
use tower_idempotency_shared::{Answer, Backend, BackendError, Clocks, Expect, Kind, Row, Token, Write};

use crate::backend::rule::{Bears, Rule, is_done};
use crate::backend::sample::{HOUR, claim, complete, fresh_token, session};
use crate::backend::subject::BackendSubject;
use crate::fresh::fresh_id;

/// The time after which a put that is not answered counts as one that waits until it is durable.
const HIDDEN_AFTER: Duration = Duration::from_secs(1);

/// While nothing becomes durable, no call shows what a put has written, and the put is not answered as done.
pub(crate) async fn a_row_that_a_call_shows_is_durable<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "let each call that shows rows wait behind a barrier of its own, as a put does, and fail where it is not \
                  reached: a write on the same connection, and the wait for it. Or hide rows until they are durable";
    let rule = Rule::new(subject, "a_row_that_a_call_shows_is_durable", advice);
    let Some(undurable) = &subject.undurable else { return rule.leave_out("`undurable_by`") };
    let row = rule.done(&claim(fresh_id())).await;
    let writes = [Write { kind: Kind::Interrupted, ..complete(&row) }, session(fresh_id(), HOUR)];
    undurable(true);
    if let Ok(Ok(answer)) = timeout(HIDDEN_AFTER, subject.backend.put(Clocks::default(), &writes)).await {
        let done = answer.rows.iter().zip(&writes).filter(|(row, write)| is_done(row.as_ref(), write)).count();
        rule.check(done == 0, || format!("{done} writes were answered as done, and are not durable"));
    }
    for backend in [Some(&subject.backend), subject.another_process.as_ref()].into_iter().flatten() {
        shows_none_of(&rule, backend, writes.each_ref().map(|write| (write.id, write.token))).await;
    }
    undurable(false);
    let settled = rule.within(rule.settled(&subject.backend, &writes, Bears::Any)).await;
    let done = settled.iter().zip(&writes).filter(|(row, write)| is_done(row.as_ref(), write)).count();
    rule.check(done == writes.len(), || format!("the writes were sent again, and {settled:?} was answered"));
    let shown = rule.get(row.id).await;
    rule.check(is_done(shown.as_ref(), &writes[0]), || format!("a row that is durable was read as {shown:?}"));
}

/// Each call fails, or shows neither of the rows.
async fn shows_none_of<B: Backend>(rule: &Rule<'_, B>, backend: &B, hidden: [(RecordId, Token); 2]) {
    let clocks = Clocks::default();
    let ids = hidden.map(|(id, _)| id);
    let shown = |call: &str, rows: Vec<Row>| {
        let shown = rows.iter().find(|row| hidden.contains(&(row.id, row.token)));
        rule.check(shown.is_none(), || format!("{call} shows {shown:?}, which is not durable"));
    };
    let some = |answer: Result<Answer<Vec<Option<Row>>>, BackendError>| {
        answer.map_or_else(|_| Vec::new(), |answer| answer.rows.into_iter().flatten().collect())
    };
    let all = |answer: Result<Answer<Vec<Row>>, BackendError>| answer.map_or_else(|_| Vec::new(), |answer| answer.rows);
    shown("get", some(rule.within(backend.get(clocks, &ids)).await));
    let refused = |id| Write { expect: Expect::Token(fresh_token()), ..claim(id) };
    shown("a put that was refused", some(rule.within(backend.put(clocks, &ids.map(refused))).await));
    shown("sessions", all(rule.within(backend.sessions(clocks)).await));
    shown("list", all(rule.within(backend.list(clocks, &[], None, 10_000)).await));
    shown("scan", all(rule.within(backend.scan(clocks, None, 10_000)).await));
}
