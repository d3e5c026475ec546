//! The row of a run, while a transaction is open and after another process has written it.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tower_idempotency::internals::End;
use tower_idempotency::store::CommitError;
use tower_idempotency_shared::{Clocks, Kind, NewExpiry, NewFence, RecordInTransaction, RunRecord, Token, Write};

use crate::fresh::{fresh_id, random};
use crate::transaction::run::{OUTCOME, Rule};
use crate::transaction::subject::TransactionSubject;

const HOUR: Duration = Duration::from_secs(3_600);
/// The time for which a put may wait for a lock before the rule goes on.
const WAITED: Duration = Duration::from_secs(1);

/// While a transaction is open that has written the record, no put changes the row, and the end of the run waits.
pub(crate) async fn an_open_transaction_keeps_its_row<B: RecordInTransaction>(subject: &TransactionSubject<B>) {
    let advice = "lock the row in `write_in` until the transaction has ended, as a put locks it; let a put wait for the lock, \
                  leave the row alone and answer it as it is, or answer `BackendError::Busy`";
    let rule = Rule::new(subject, "an_open_transaction_keeps_its_row", advice);
    for commits in [true, false] {
        let run = rule.begin(true).await;
        let (opened, is_open) = oneshot::channel();
        let (decide, decision) = oneshot::channel();
        let end = async move {
            let _ = opened.send(());
            decision.await.unwrap_or(false)
        };
        let transacted = (subject.transact)(run.record.clone(), Box::pin(end));
        let meanwhile = async {
            if is_open.await.is_err() {
                rule.fail("a transaction has ended before it awaited its end");
            }
            let write = released(&run.record);
            let writes = std::slice::from_ref(&write);
            let put = subject.store.backend().put(Clocks::default(), writes);
            if let Ok(Ok(answer)) = tokio::time::timeout(WAITED, put).await {
                let is_done = answer.rows.iter().flatten().any(|row| row.token == write.token);
                rule.check(!is_done, || "a put has changed the row of an open transaction".to_owned());
            }
            let _ = decide.send(commits);
            rule.end(&run).await
        };
        let both = rule.within(futures_util::future::join(transacted, meanwhile));
        let (written, end) = rule.makes(usize::from(commits), "an open transaction", both).await;
        rule.check(written.is_ok() || !commits, || format!("a transaction was answered {written:?}"));
        let is_so = match &end {
            End::Outcome(outcome) => commits && outcome == OUTCOME,
            End::Released | End::Interrupted { .. } => !commits,
            _ => false,
        };
        rule.check(is_so, || format!("a transaction with `committed: {commits}` was taken for {end:?}"));
    }
}

/// Another process has released the operation, taken it over or settled it: a transaction of the earlier run fails.
pub(crate) async fn a_run_that_was_taken_over_commits_nothing<B: RecordInTransaction>(subject: &TransactionSubject<B>) {
    let advice = "compare before you write: the row still has the fence of the record and is still running. Otherwise answer \
                  `CommitError::Superseded`, and roll the transaction back";
    let rule = Rule::new(subject, "a_run_that_was_taken_over_commits_nothing", advice);
    for what in ["released", "taken over", "settled"] {
        let run = rule.begin(true).await;
        let released = released(&run.record);
        let (fence, session) = (NewFence::Above(run.record.fence()), Some(fresh_id()));
        let state = run.record.write().state.clone();
        let write = match what {
            "released" => released,
            "taken over" => Write { kind: Kind::Running, fence, session, until: Some(HOUR), state, ..released },
            _ => Write { kind: Kind::Completed, state, ..released },
        };
        let row = rule.put(&write).await;
        rule.check(row.is_some(), || format!("the row of a run could not be {what}"));
        let written = rule.makes(0, &format!("a run that was {what}"), rule.transact(&run, true)).await;
        let is_refused = matches!(written, Err(CommitError::Superseded));
        rule.check(is_refused, || format!("the transaction of a run that was {what} was answered {written:?}"));
        let found = rule.row(&run).await;
        rule.check(found == row, || format!("the transaction of a run that was {what} made {found:?} of {row:?}"));
    }
}

/// Returns a write that releases the operation of a run.
fn released(record: &RunRecord) -> Write {
    let (token, fence, expires) = (Token(random()), NewFence::Keep, NewExpiry::In(HOUR));
    let (kind, state) = (Kind::Released, Bytes::new());
    Write { token, fence, kind, session: None, until: None, expires, state, ..record.write().clone() }
}
