//! Restores the outcomes that a failover has lost and this process still has.
//!
//! A record that a transaction of the application wrote under `Rerun` is not restored: it was lost together with its
//! effects, so the operation may run again, and this process forgets the record.
//!
//! A completed record neither changes nor disappears before it expires, unless an operator has it or its answer
//! forgotten, which leaves a tombstone or a consumed row under its fence. So if it is missing in a server that has
//! replaced another one, it was lost. So it was if there is a record with an older fence in its place that is not done
//! and began with it: that of a run which was taken over, or of an interruption which was settled. If there is another
//! one, the operation has run again, or its forgotten outcome is back, and this outcome is disputed.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tower_idempotency::RecordId;
use tower_idempotency::internals::{Completion, Hold, Operation, Record, Reply, RunResult, State, Stepped, Transition};

use super::Protocol;
use super::step::until_answered;
use crate::backend::Backend;

/// The number of records that are checked at a time.
const MAX_AT_ONCE: usize = 16;
/// The number of times that a record is checked again because the database did not answer. Then the next record has its
/// turn, and the next change of the server.
const TRIES: usize = 16;

impl<B: Backend> Protocol<B> {
    /// Restores missing outcomes each time that another server answers.
    pub(crate) async fn keep_restoring(self: Arc<Self>) {
        loop {
            self.database.state.replaced.notified().await;
            let (lost, known): (Vec<_>, Vec<_>) = self.cache.all().into_iter().partition(|(.., is_of)| *is_of);
            lost.iter().for_each(|(id, record, _)| self.cache.remove_record(id, record.fence));
            let known = futures_util::stream::iter(known);
            known.for_each_concurrent(MAX_AT_ONCE, |(id, record, _)| self.restore(id, record)).await;
        }
    }

    /// Completes the operation once more, as its run did.
    async fn restore(&self, id: RecordId, record: Arc<Record>) {
        let fence = record.fence;
        let complete = || async {
            // A record that has expired need not be restored.
            let Some(completion) = self.completion(id, &record) else { return Ok(()) };
            self.note_forgotten(&self.read(id).await?).await;
            if self.cache.is_forgotten(&id, fence) {
                return Ok(());
            }
            // `step` writes a lost record anew. If it is refused, it keeps the outcome as disputed.
            let Stepped { reply, record: other } = self.step(id, &Transition::Complete(completion)).await?;
            if reply == Reply::Refused && other.is_some() {
                // The operation's new run counts.
                self.cache.remove_record(&id, fence);
            }
            Ok(())
        };
        // An outcome that is not restored now may be restored at the next change of the server.
        let _ = until_answered(TRIES, complete).await;
    }

    /// Returns the completion of the run that this record is of, or `None` if the record has expired by any clock.
    fn completion(&self, id: RecordId, record: &Record) -> Option<Completion> {
        let Record { fence, attempt, expires, began, .. } = *record;
        let latest = self.clocks().latest();
        let left = expires?.as_millis().checked_sub(latest.as_millis()).filter(|left| *left > 0)?;
        let result = match &record.state {
            State::Completed { outcome } => RunResult::Outcome(outcome.clone()),
            State::Consumed { status } => RunResult::Consumed { status: *status },
            State::Running { .. } | State::Interrupted { .. } => return None,
        };
        let (operation, hold) = (Operation::of(id, record), Hold { fence, attempt });
        Some(Completion { operation, hold, result, retention: Duration::from_millis(left), began: Some(began) })
    }
}
