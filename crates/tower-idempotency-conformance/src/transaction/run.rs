//! A run whose record a transaction writes.

use std::fmt::Debug;
use std::future::ready;

use tower_idempotency::internals::End;
use tower_idempotency::internals::{Records as _, Reply, Stepped, Transition};
use tower_idempotency::store::CommitError;
use tower_idempotency_shared::{Clocks, PendingTransaction, RecordInTransaction, Row, RunRecord, Write};

use super::subject::TransactionSubject;
use crate::fresh::fresh_id;
use crate::store::sample::{complete, hold, repeatable};

/// A rule of the contract, as it is tried on a subject.
pub(super) type Rule<'a, B> = crate::rule::Rule<'a, TransactionSubject<B>>;

pub(super) type Transacted<B> = Result<(), CommitError<<B as RecordInTransaction>::Error>>;

/// The outcome of every run.
pub(super) const OUTCOME: &[u8] = b"charged";

/// A run under way, and the record that completes it.
pub(super) struct Run<B: RecordInTransaction> {
    pub(super) record: RunRecord,
    pending: PendingTransaction<B>,
}

impl<B: RecordInTransaction> Rule<'_, B> {
    /// Begins a run. If its transaction is rolled back, the key `is_free`, or the run is interrupted.
    pub(super) async fn begin(&self, is_free: bool) -> Run<B> {
        let (id, store) = (fresh_id(), &self.subject.store);
        let applied = self.within(store.apply(id, Transition::Claim(repeatable()))).await;
        let Ok(Stepped { reply: Reply::Taken, record: Some(record) }) = applied else {
            self.fail(format!("a claim was answered {applied:?}"))
        };
        let Transition::Complete(completion) = complete(hold(id, &record), OUTCOME) else { unreachable!() };
        let Some((record, pending)) = store.complete_apart(completion, is_free) else {
            self.fail("a run has no record for a transaction")
        };
        Run { record, pending }
    }

    /// Makes an effect and writes the record, and commits both or rolls both back.
    pub(super) async fn transact(&self, run: &Run<B>, commits: bool) -> Transacted<B> {
        self.within((self.subject.transact)(run.record.clone(), Box::pin(ready(commits)))).await
    }

    /// Waits until the store knows how the run's transaction ended.
    pub(super) async fn end(&self, run: &Run<B>) -> End {
        self.within(run.pending.end()).await
    }

    pub(super) async fn effects(&self) -> usize {
        self.within((self.subject.effects)()).await
    }

    /// Checks that `work` makes this many effects, and returns its output.
    pub(super) async fn makes<T>(&self, expected: usize, what: &str, work: impl Future<Output = T>) -> T {
        let before = self.effects().await;
        let output = work.await;
        let made = self.effects().await - before;
        self.check(made == expected, || format!("{what} made {made} effects, and not {expected}"));
        output
    }

    pub(super) async fn row(&self, run: &Run<B>) -> Option<Row> {
        let ids = [run.record.id()];
        let get = self.subject.store.backend().get(Clocks::default(), &ids);
        self.answered(self.within(get).await.map(|mut answer| answer.rows.pop().flatten()))
    }

    /// Sends a write of the run's row, as another process does. Returns the row if the write was done.
    pub(super) async fn put(&self, write: &Write) -> Option<Row> {
        let put = self.subject.store.backend().put(Clocks::default(), std::slice::from_ref(write));
        let row = self.answered(self.within(put).await.map(|mut answer| answer.rows.pop().flatten()));
        row.filter(|row| row.token == write.token)
    }

    fn answered<T>(&self, answer: Result<T, impl Debug>) -> T {
        answer.unwrap_or_else(|error| self.fail(format!("the backend answered {error:?}")))
    }
}
