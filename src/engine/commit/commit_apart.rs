//! A run's transaction without a database, for the laboratory of interleavings: its writer is a task of the schedule.

use bytes::Bytes;

use crate::engine::commitment::{CommitResult, PendingCommit};
use crate::engine::context::RunContext;
use crate::record::{Completion, RunResult};

/// A transaction that was sent. If this value is dropped, the transaction's end is unknown.
#[derive(Debug)]
pub struct SentApart {
    /// Passes the end on to the run. If it is dropped unanswered, the end is unknown.
    pending: PendingCommit,
    completion: Completion,
}

impl RunContext {
    /// Sends the run's transaction, which records `outcome`, to the holder of the returned value. Returns `None` if the
    /// run cannot commit.
    pub fn send_apart(&self, outcome: Bytes) -> Option<SentApart> {
        let commitment = self.commitment()?;
        let pending = PendingCommit::begin(commitment)?;
        Some(SentApart { pending, completion: commitment.completion(outcome) })
    }
}

impl SentApart {
    /// Returns the completion that is to be recorded in the run's store.
    pub fn completion(&self) -> Completion {
        self.completion.clone()
    }

    /// Answers that the transaction is durable.
    pub fn committed(self) {
        // `send_apart` makes no other result.
        if let RunResult::Outcome(outcome) = self.completion.result {
            self.pending.answered(CommitResult::Committed(outcome));
        }
    }

    /// Answers that the transaction was not done.
    pub fn aborted(self) {
        self.pending.answered(CommitResult::Nothing);
    }
}
