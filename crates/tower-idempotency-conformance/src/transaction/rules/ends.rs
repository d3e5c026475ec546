//! The end of a transaction is that of its record.

use tower_idempotency::internals::Records as _;
use tower_idempotency::internals::{Cause, End};
use tower_idempotency::store::CommitError;
use tower_idempotency_shared::{Kind, RecordInTransaction};

use crate::transaction::run::{OUTCOME, Rule};
use crate::transaction::subject::TransactionSubject;

/// A transaction is committed: its effect is there, and the row is the record.
pub(crate) async fn a_committed_transaction_leaves_effect_and_record<B: RecordInTransaction>(
    subject: &TransactionSubject<B>,
) {
    let advice = "write the row that `RunRecord::apply_to` returns in the transaction of the effect, and let a commit be durable \
                  before it is answered";
    let rule = Rule::new(subject, "a_committed_transaction_leaves_effect_and_record", advice);
    for is_free in [true, false] {
        let run = rule.begin(is_free).await;
        let written = rule.makes(1, "a committed transaction", rule.transact(&run, true)).await;
        rule.check(written.is_ok(), || format!("a transaction was answered {written:?}"));
        let (row, record) = (rule.row(&run).await, run.record.write());
        let is_record = row.as_ref().is_some_and(|row| {
            (row.token, row.kind, row.fence) == (record.token, Kind::Completed, run.record.fence())
                && row.state == record.state
        });
        rule.check(is_record, || format!("of the record {record:?}, a commit left {row:?}"));
        let end = rule.end(&run).await;
        rule.check(end == End::Outcome(OUTCOME.into()), || format!("a commit was taken for {end:?}"));
    }
}

/// A transaction is rolled back: neither its effect is there nor the record, and the run ends without it.
pub(crate) async fn a_transaction_that_is_rolled_back_leaves_neither<B: RecordInTransaction>(
    subject: &TransactionSubject<B>,
) {
    let advice = "write the record in the transaction of the effect and nowhere else, and free the row's lock when the \
                  transaction is rolled back";
    let rule = Rule::new(subject, "a_transaction_that_is_rolled_back_leaves_neither", advice);
    for is_free in [true, false] {
        let run = rule.begin(is_free).await;
        let before = rule.row(&run).await;
        let _ = rule.makes(0, "a transaction that was rolled back", rule.transact(&run, false)).await;
        let row = rule.row(&run).await;
        rule.check(row == before, || format!("a transaction that was rolled back made {row:?} of {before:?}"));
        let end = rule.end(&run).await;
        let expected = if is_free { End::Released } else { End::Interrupted { cause: Cause::Failed } };
        rule.check(end == expected, || format!("a rollback was taken for {end:?}"));
        let loaded = rule.within(subject.store.load(run.record.id())).await;
        let is_there = matches!(loaded, Ok(Some(_)));
        rule.check(is_there != is_free, || format!("after a rollback, the operation's record is {loaded:?}"));
    }
}

/// A run that tries several transactions has one record: a second transaction fails once one was committed, and one
/// that follows a rollback does not.
pub(crate) async fn a_run_commits_once<B: RecordInTransaction>(subject: &TransactionSubject<B>) {
    let advice =
        "answer `CommitError::Superseded` where `RunRecord::apply_to` returns `None`, and roll the transaction back";
    let rule = Rule::new(subject, "a_run_commits_once", advice);
    let run = rule.begin(true).await;
    let _ = rule.makes(0, "a transaction that was rolled back", rule.transact(&run, false)).await;
    let first = rule.makes(1, "a transaction after one that was rolled back", rule.transact(&run, true)).await;
    rule.check(first.is_ok(), || format!("a transaction after one that was rolled back was answered {first:?}"));
    let second = rule.makes(0, "a second transaction", rule.transact(&run, true)).await;
    rule.check(matches!(second, Err(CommitError::Superseded)), || format!("a second one was answered {second:?}"));
}
