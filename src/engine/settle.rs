//! Records how a run ended, before any client is answered.

use std::time::Duration;

use tokio::sync::oneshot;

use super::context::Rerun;
use super::engine::{Engine, Presented, source};
use super::policy::OnInterrupted;
use super::run::{Run, Worked};
use super::verdict::Verdict;
use crate::key::RecordId;
use crate::laboratory::{self, Protection};
use crate::record::{Applied, ClaimPolicy, Completion, Hold, Lost, Record, Reply, RunResult, Transition};
use crate::slots::{End, Ended, Refusal, Retrying, Slot, once_a_minute};
use crate::store::Store;
use crate::store::recording::{self, PendingEnd};
use crate::within::STORE_TIMEOUT;

impl<St: Store> Run<St> {
    /// Records how the run ended.
    pub(super) fn settle(
        &mut self,
        hold: &Hold,
        end: &End,
    ) -> impl Future<Output = Result<Applied, PendingEnd>> + Send + use<'_, St> {
        // From here on a dropped slot stays taken: the end may be readable and not durable.
        self.slot.begin_settling(self.engine.policy.retention);
        self.engine.record(self.presented.id, self.engine.ending(&self.presented, hold, end))
    }

    /// Ends a run whose operation was taken over by another process, or settled, while it ran. The record that is there
    /// now counts, and this run's other effects are unknown.
    /// `ran` is the time that its handler took.
    pub(super) fn superseded<T>(
        self: Box<Self>,
        record: Option<Record>,
        ran: Duration,
        reply: oneshot::Sender<Verdict<T>>,
    ) {
        once_a_minute!(
            self.engine.lines().superseded,
            error,
            record_id = self.presented.id.short(),
            "the operation was taken over or settled elsewhere while it ran; its outcome is not recorded"
        );
        self.engine.count_interrupted();
        let Worked { verdict, .. } = self.interrupted(ran);
        self.report(&verdict, ran);
        // The duplicates get the end that the record has now.
        match record {
            Some(record) => self.slot.end(record),
            None => self.end(End::Interrupted { status: None }),
        }
        let _ = reply.send(verdict);
    }

    /// Gives the real answer although it could not be recorded, because the effect took place. The claim stays, so that
    /// the operation does not run again, and this process remembers the outcome until the store has it.
    pub(super) async fn unrecorded<T: Send>(
        self: Box<Self>,
        hold: Hold,
        end: End,
        pending: PendingEnd,
        verdict: Verdict<T>,
        reply: oneshot::Sender<Verdict<T>>,
    ) {
        let Self { engine, slot, presented, .. } = *self;
        engine.count(|tally| &tally.unrecorded);
        engine.tally().notify(|observer| observer.unrecorded());
        once_a_minute!(
            engine.lines().unrecorded, error, record_id = presented.id.short(), error = %pending.error,
            source = source(&pending.error),
            "answered without a record: retries get the answer until this process ends, and are refused afterwards"
        );
        let ended = match &end {
            // The store may still have the claim, so the key is not free yet.
            End::Released => Refusal::Unavailable.into(),
            end => presented.ended(end.clone()),
        };
        let (remembered, is_whole) = engine.remember(slot, ended);
        let _ = reply.send(verdict);
        let recorded = if is_whole || !engine.store.is_exclusive() {
            // Over a shared store the outcome may still be on its way. An interruption would overtake it.
            Err(pending)
        } else {
            // There is no room for the outcome: the store records only that the run is over.
            drop(pending);
            engine.record(remembered.id, engine.ending(&presented, &hold, &End::Interrupted { status: None })).await
        };
        engine.free_once_recorded(recorded, remembered).await;
    }

    /// Gives back a claim under which nothing ran, and then frees the slot. Whether an earlier attempt took effect is
    /// as unknown as before.
    pub(super) async fn give_back(self: Box<Self>, hold: &Hold, rerun: Rerun) {
        let Self { engine, slot, presented, .. } = *self;
        let end = if rerun == Rerun::Yes { End::Interrupted { status: None } } else { End::Released };
        let transition = engine.ending(&presented, hold, &end);
        let Err(pending) = engine.record(presented.id, transition).await else {
            // The claim is undone: waiters retry and find out what the store has.
            return slot.end(Refusal::Unavailable);
        };
        // This only logs the fault, because the requester was answered before.
        engine.log_and_refuse(&presented, &pending.error);
        let (remembered, _) = engine.remember(slot, Refusal::Unavailable.into());
        engine.free_once_recorded(Err(pending), remembered).await;
    }
}

impl<St: Store> Engine<St> {
    /// Returns the end that is recorded: if it is unknown how a run ended and the policy is `Rerun`, the key is
    /// released. Counts an end that is unknown.
    pub(super) fn count_and_judge(&self, presented: &Presented, end: End) -> End {
        let End::Interrupted { status } = end else { return end };
        self.count_interrupted();
        if let Some(status) = status {
            self.report_unknown(presented, status);
        }
        match self.policy.on_interrupted {
            OnInterrupted::Refuse => end,
            OnInterrupted::Rerun => End::Released,
        }
    }

    /// Counts an answer that means "unknown".
    fn report_unknown(&self, presented: &Presented, status: u16) {
        self.count(|tally| &tally.unknown);
        once_a_minute!(
            self.lines().unknown,
            warn,
            record_id = presented.id.short(),
            status,
            "a handler's answer leaves it unknown whether the operation took effect"
        );
    }

    /// Passes the store a transition that ends a run or settles an operation. The store tries again until this process
    /// is about to forget the end, because a newer run may begin then.
    pub(super) fn record(
        &self,
        id: RecordId,
        transition: Transition,
    ) -> impl Future<Output = Result<Applied, PendingEnd>> + Send {
        recording::record(&self.store, id, transition, self.retries_for())
    }

    /// Returns for how long this process sends an end that it remembers to the store.
    pub(super) fn retries_for(&self) -> Duration {
        self.policy.retention.saturating_sub(STORE_TIMEOUT)
    }

    /// Returns the transition that records a run that ended in this way.
    pub(super) fn ending(&self, presented: &Presented, hold: &Hold, end: &End) -> Transition {
        let (fingerprint, policy) = (presented.fingerprint, self.policy.claim_policy());
        let result = match end {
            // Only a laboratory loses an outcome, to show that its tests notice it.
            End::Outcome(_) if laboratory::is_broken(Protection::Record) => return Transition::Release(hold.fence),
            End::Outcome(outcome) => RunResult::Outcome(outcome.clone()),
            End::Consumed { status } => RunResult::Consumed { status: *status },
            End::Released => return Transition::Release(hold.fence),
            End::Interrupted { status } => return self.interruption(presented, policy, hold, *status),
            // Work does not end in these ways. If it did, its effects would be unknown.
            End::InDoubt | End::InFlight | End::Refused(_) => {
                return self.interruption(presented, policy, hold, None);
            }
        };
        let (hold, origin, retention) = (*hold, presented.origin.clone(), self.policy.retention);
        Transition::Complete(Completion { hold, fingerprint, origin, result, retention })
    }

    /// Returns the transition that records a run that was claimed under this policy and whose end is unknown.
    pub(super) fn interruption(
        &self,
        presented: &Presented,
        policy: ClaimPolicy,
        hold: &Hold,
        status: Option<u16>,
    ) -> Transition {
        let Hold { fence, attempt, .. } = *hold;
        let (fingerprint, retention) = (presented.fingerprint, self.policy.interrupted_retention);
        // Only a database that several processes share can lose a claim, by a failover.
        let lost = (!self.store.is_exclusive()).then(|| {
            let origin = presented.origin.clone();
            Lost { fingerprint, origin, attempt, policy, retention }
        });
        Transition::Interrupt { fence, status, lost }
    }

    /// Keeps the end of an operation in this process, because the store does not know it, or not durably. Returns also
    /// whether there is room for its outcome.
    pub(super) fn remember(&self, slot: Slot, ended: Ended) -> (RememberedEnd, bool) {
        let (id, turn, retrying) = (slot.id(), slot.turn(), self.store.slots().retrying());
        (RememberedEnd { id, turn, _retrying: retrying }, slot.remember(ended, self.policy.retention))
    }

    /// Waits until the store knows how a run ended, and frees its slot.
    pub(super) async fn free_once_recorded(&self, recorded: Result<Applied, PendingEnd>, remembered: RememberedEnd) {
        let applied = match recorded {
            Ok(applied) => Some(applied),
            Err(pending) => pending.answer.await,
        };
        match applied {
            // The store has no record that could be interrupted: only this process keeps the operation from running
            // again. A store that several processes share would have written a lost record anew. Without a record, such
            // a store refuses only if the key was freed since, or if the record would have expired.
            Some(Applied { reply: Reply::Refused, record: None }) if self.store.is_exclusive() => {}
            // If this was refused, the store has another end, and that one counts.
            Some(_) => self.forget(&remembered),
            // The store can't answer any more. The slot stays taken until the retention is over.
            None => {}
        }
    }

    /// Frees a slot whose end was remembered, because the store now has this end or another one.
    pub(super) fn forget(&self, remembered: &RememberedEnd) {
        self.store.slots().remembered.forget(&remembered.id, remembered.turn);
    }
}

/// An operation whose end this process remembers, because it is not in the store yet. Drain waits for it.
pub(super) struct RememberedEnd {
    id: RecordId,
    /// The turn of the slot: an end that a later run left is not forgotten.
    turn: u64,
    /// Is dropped with this value; drain waits until then.
    _retrying: Retrying,
}

#[cfg(all(test, feature = "test-util"))]
mod tests {
    use std::sync::Arc;

    use super::super::policy::Policy;
    use super::*;
    use crate::fingerprint::Fingerprint;
    use crate::record::{Fence, Origin};
    use crate::slots::Entered;
    use crate::store::Records as _;
    use crate::store::test_store::TestStore;

    // The claim left no trace, and the outcome was too large to be remembered.
    #[tokio::test(start_paused = true)]
    async fn a_run_of_unknown_end_of_which_the_store_has_no_record_does_not_run_again_here() {
        let store = TestStore::new();
        let slots = Arc::clone(store.slots());
        let mut policy = Policy::default();
        policy.set_on_interrupted(OnInterrupted::Rerun);
        let engine = Engine { store: Arc::new(store), policy, wrap_run: None };
        let (id, fingerprint) = (RecordId::from_bytes([1; 32]), Fingerprint::of(b"m"));
        let Entered::Mine(slot) = slots.take(id, 1, None) else { panic!("it is free") };
        let hold = Hold { id, fence: Fence(1), attempt: 1 };
        let (remembered, _) = engine.remember(slot, Ended::new(fingerprint, End::Interrupted { status: None }));
        let transition =
            engine.interruption(&Presented::new(id, fingerprint, Origin::default()), ClaimPolicy::Rerun, &hold, None);
        let recorded = engine.record(id, transition).await;
        engine.free_once_recorded(recorded, remembered).await;
        let result = slots.look(&id).expect("it is remembered").join(&fingerprint, Duration::ZERO).await;
        assert!(matches!(result, Ok((End::Interrupted { .. }, _))), "{result:?}");
        // Any other answer of the store counts.
        let id = RecordId::from_bytes([2; 32]);
        let Entered::Mine(slot) = slots.take(id, 1, None) else { panic!("it is free") };
        let (remembered, _) = engine.remember(slot, Refusal::Unavailable.into());
        let recorded = engine.record(id, Transition::Release(Fence(1))).await;
        engine.free_once_recorded(recorded, remembered).await;
        assert!(slots.look(&id).is_none());
    }
}
