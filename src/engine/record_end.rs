//! Records how a run ended, and remembers what the store does not know of it.

use super::engine::Engine;
use super::send_end::PendingEnd;
use crate::key::RecordId;
use crate::record::{Cause, ClaimPolicy, Completion, Hold, Lost, Operation, Reply, RunResult, Stepped, Transition};
use crate::slots::{End, Ended, Retrying, Slot};
use crate::store::Store;

impl<St: Store> Engine<St> {
    /// Records how the run ended that has this hold on its operation.
    pub(super) fn record_end(
        &self,
        operation: &Operation,
        hold: Hold,
        end: &End,
    ) -> impl Future<Output = Result<Stepped, PendingEnd>> + Send + use<'_, St> {
        self.record(operation.id, self.ending(operation, hold, end))
    }

    /// Returns the transition that records a run that ended in this way.
    fn ending(&self, operation: &Operation, hold: Hold, end: &End) -> Transition {
        let policy = &self.policy;
        let result = match end {
            End::Outcome(outcome) => RunResult::Outcome(outcome.clone()),
            End::Consumed { status } => RunResult::Consumed { status: *status },
            End::Released => return Transition::Release(hold.fence),
            End::Interrupted { cause } => return self.interruption(operation, hold, policy.claim_policy(), *cause),
            // Work does not end in these ways. If it did, its effects would be unknown.
            End::InDoubt | End::InFlight | End::Refused(_) => {
                return self.interruption(operation, hold, policy.claim_policy(), Cause::Unknown);
            }
        };
        let (operation, retention) = (operation.clone(), policy.kept());
        Transition::Complete(Completion { operation, hold, result, retention, began: None })
    }

    /// Returns the transition that records a run that was claimed under this policy, and whose end is unknown for this
    /// reason.
    pub(super) fn interruption(
        &self,
        operation: &Operation,
        hold: Hold,
        policy: ClaimPolicy,
        cause: Cause,
    ) -> Transition {
        let (Hold { fence, attempt }, retention) = (hold, self.policy.interrupted_retention);
        // Only a database that several processes share can lose a claim, by a failover.
        let lost =
            (!self.store.is_exclusive()).then(|| Lost { operation: operation.clone(), attempt, policy, retention });
        Transition::Interrupt { fence, cause, lost }
    }
}

/// An operation whose end this process remembers, because it is not in the store yet. Drain waits for it.
pub(super) struct UnsavedEnd {
    id: RecordId,
    /// The turn of the slot: an end that a later run left is not forgotten.
    turn: u64,
    /// Is dropped with this value; drain waits until then.
    retrying: Retrying,
}

impl UnsavedEnd {
    /// Keeps the end of an operation in this process, because the store does not know it, or not durably. Returns also
    /// whether there is room for its outcome.
    pub(super) fn keep<St: Store>(engine: &Engine<St>, slot: Slot, ended: impl Into<Ended>) -> (Self, bool) {
        let (id, turn, retrying) = (slot.id, slot.turn, engine.store.slots().retrying());
        let is_whole = slot.remember(ended, engine.policy.kept());
        (Self { id, turn, retrying }, is_whole)
    }

    /// Waits until the store knows how the run ended, and forgets the end.
    pub(super) async fn forget_once_recorded(self, recorded: Result<Stepped, PendingEnd>, is_exclusive: bool) {
        let applied = match recorded {
            Ok(applied) => Some(applied),
            Err(pending) => pending.answer.await,
        };
        match applied {
            // The store has no record that could be interrupted: only this process keeps the operation from running
            // again. A store that several processes share would have written a lost record anew. Without a record, such
            // a store refuses only if the key was freed since, or if the record would have expired.
            Some(Stepped { reply: Reply::Refused, record: None }) if is_exclusive => {}
            // If this was refused, the store has another end, and that one counts.
            Some(_) => self.forget(),
            // The store can't answer any more. The end is kept until the retention is over.
            None => {}
        }
    }

    /// Forgets the end, because the store now has this one or another one.
    pub(super) fn forget(&self) {
        self.retrying.0.unsaved.forget(&self.id, self.turn);
    }
}

#[cfg(all(test, feature = "test-util"))]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::policy::{OnInterrupted, Policy};
    use super::*;
    use crate::fingerprint::Fingerprint;
    use crate::record::{Fence, Origin};
    use crate::slots::{Entered, Refusal};
    use crate::store::contract::Records as _;
    use crate::test_util::TestStore;

    // The claim left no trace, and the outcome was too large to be kept.
    #[tokio::test(start_paused = true)]
    async fn a_run_of_unknown_end_of_which_the_store_has_no_record_does_not_run_again_here() {
        let store = TestStore::new();
        let slots = Arc::clone(store.slots());
        let mut policy = Policy::default();
        policy.set_on_interrupted(OnInterrupted::Rerun);
        let engine = Engine { store: Arc::new(store), policy, wrap_run: None };
        let (id, fingerprint) = (RecordId::from_bytes([1; 32]), Fingerprint::of(b"m"));
        let Entered::Mine(slot) = slots.take(id, 1, None) else { panic!("it is free") };
        let hold = Hold { fence: Fence(1), attempt: 1 };
        let end = End::Interrupted { cause: Cause::Panicked };
        let (unsaved, _) = UnsavedEnd::keep(&engine, slot, Ended::new(fingerprint, end.clone()));
        let operation = Operation { id, fingerprint, origin: Origin::default() };
        let recorded = engine.record_end(&operation, hold, &end).await;
        unsaved.forget_once_recorded(recorded, true).await;
        let result = slots.look(&id).expect("it is kept").join(&fingerprint, Duration::ZERO).await;
        assert!(matches!(result, Ok((End::Interrupted { .. }, _))), "{result:?}");
        // Any other answer of the store counts.
        let id = RecordId::from_bytes([2; 32]);
        let Entered::Mine(slot) = slots.take(id, 1, None) else { panic!("it is free") };
        let (unsaved, _) = UnsavedEnd::keep(&engine, slot, Refusal::Unavailable);
        let recorded = engine.record(id, Transition::Release(Fence(1))).await;
        unsaved.forget_once_recorded(recorded, true).await;
        assert!(slots.look(&id).is_none());
    }
}
