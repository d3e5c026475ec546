//! A run's transaction without a database, for the laboratory of interleavings: its writer is a task of the schedule.

use serde::Serialize;

use crate::engine::commitment::PendingCommit;
use crate::engine::once_context::{OnceContext, json_of};
use crate::record::{Completion, RunResult};
use crate::slots::End;

/// A transaction that was sent. If this value is dropped, the transaction's end is unknown.
#[derive(Debug)]
pub struct SentApart {
    /// Passes the end on to the run. If it is dropped unanswered, the end is unknown.
    pending: PendingCommit,
    completion: Completion,
}

impl<T: Serialize> OnceContext<T> {
    /// Sends the run's transaction, which records `outcome`, to the holder of the returned value. Returns `None` if the
    /// run cannot commit.
    pub fn send_apart(&self, outcome: &T) -> Option<SentApart> {
        let json = json_of(outcome).ok()?;
        let commitment = self.run.commitment()?;
        let pending = PendingCommit::begin(commitment)?;
        Some(SentApart { pending, completion: commitment.completion(json) })
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
            self.pending.answered(Some(End::Outcome(outcome)));
        }
    }

    /// Answers that the transaction was not done.
    pub fn aborted(self) {
        self.pending.answered(None);
    }
}
