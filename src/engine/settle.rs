//! Records how a run ended, before any client is answered.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::context::Rerun;
use super::engine::{Engine, Presented, STORE_TIMEOUT, source};
use super::policy::OnInterrupted;
use super::run::Run;
use super::verdict::Verdict;
use crate::fingerprint::Fingerprint;
use crate::key::RecordId;
use crate::laboratory::{self, Protection};
use crate::record::{
    Applied, ClaimPolicy, Completion, Hold, Lost, Record, Reply, Resolution, Settlement, State, Transition,
};
use crate::slots::{End, Ended, Refusal, Retrying, Slot, once_a_minute};
use crate::store::{Health, Store, StoreError};

/// The number of times a write that failed is tried while its requester waits.
const TRIES: usize = 3;
/// The pause between two looks whether a database that was away is back.
const LOOK: Duration = Duration::from_secs(1);

impl<St: Store> Run<St> {
    /// Records how the run ended.
    pub(super) async fn settle(&mut self, hold: &Hold, end: &End) -> Result<Applied, StoreError> {
        self.slot.settles(self.engine.policy.retention);
        self.engine.tell(self.presented.id, self.engine.ending(&self.presented, hold, end)).await
    }

    /// Ends a run whose operation was taken over by another process, or settled, while it ran. The record that is there
    /// now counts, and this run's other effects are unknown.
    pub(super) fn superseded<T>(self: Box<Self>, record: Option<Record>, reply: oneshot::Sender<Verdict<T>>) {
        once_a_minute!(
            self.engine.lines().superseded,
            error,
            record_id = self.presented.id.short(),
            "the operation was taken over or settled elsewhere while it ran; its outcome is not recorded"
        );
        self.engine.count(|tally| &tally.interrupted);
        self.says(&Verdict::<T>::Interrupted);
        match record {
            Some(record) => self.slot.end(record),
            None => self.end(End::Unknown { status: None }),
        }
        let _ = reply.send(Verdict::Interrupted);
    }

    /// Gives the real answer although it could not be recorded, because the effect took place. The claim stays, so that
    /// nothing runs again, and this process remembers the outcome until the store knows it.
    pub(super) async fn unrecorded<T: Send>(
        self: Box<Self>,
        hold: Hold,
        end: End,
        error: StoreError,
        verdict: Verdict<T>,
        reply: oneshot::Sender<Verdict<T>>,
    ) {
        let Self { engine, slot, presented, .. } = *self;
        engine.count(|tally| &tally.unrecorded);
        once_a_minute!(
            engine.lines().unrecorded, error, record_id = presented.id.short(), %error, source = source(&error),
            "answered without a record: retries get the answer until this process ends, and are refused afterwards"
        );
        let ended = match &end {
            End::Released => Refusal::Unavailable.into(),
            end => Ended::new(presented.fingerprint, end.clone()),
        };
        let (later, is_whole) = engine.remember(slot, ended);
        let _ = reply.send(verdict);
        let end = if is_whole { end } else { End::Unknown { status: None } };
        engine.tell_later(engine.ending(&presented, &hold, &end), error, later).await;
    }

    /// Gives back a claim under which nothing ran, and then frees the slot. Whether an earlier attempt took effect is
    /// as unknown as before.
    pub(super) async fn give_back(self: Box<Self>, hold: &Hold, rerun: Rerun) {
        let Self { engine, slot, presented, .. } = *self;
        let end = if rerun == Rerun::Yes { End::Unknown { status: None } } else { End::Released };
        let transition = engine.ending(&presented, hold, &end);
        let Err(error) = engine.tell(presented.id, transition.clone()).await else {
            return slot.end(Refusal::Unavailable);
        };
        engine.refusal(&presented, &error);
        let (later, _) = engine.remember(slot, Refusal::Unavailable.into());
        engine.tell_later(transition, error, later).await;
    }
}

impl<St: Store> Engine<St> {
    /// Returns the end that is recorded: if it is unknown how a run ended and the policy is `Rerun`, the key is
    /// released.
    pub(super) fn judged(&self, presented: &Presented, end: End) -> End {
        let End::Unknown { status } = end else { return end };
        self.count(|tally| &tally.interrupted);
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

    /// Records an operation's end in the store, and tries a few more times while the requester waits.
    pub(super) async fn tell(&self, id: RecordId, transition: Transition) -> Result<Applied, StoreError> {
        match self.store.apply(id, transition.clone()).await {
            Err(error) => {
                let pauses = backoff(Duration::from_millis(20)).take(TRIES - 1);
                Box::pin(self.tell_again(id, &transition, error, pauses, Duration::MAX)).await
            }
            told => told,
        }
    }

    /// Sends the store again what it failed to take, after each of these pauses, for at most `at_most`.
    async fn tell_again(
        &self,
        id: RecordId,
        transition: &Transition,
        mut error: StoreError,
        pauses: impl Iterator<Item = Duration>,
        at_most: Duration,
    ) -> Result<Applied, StoreError> {
        let began = Instant::now();
        let mut may_be_done = false;
        for pause in pauses {
            may_be_done |= matches!(error, StoreError::Uncertain { .. });
            if !may_recover(&*self.store) || began.elapsed().saturating_add(pause) >= at_most {
                break;
            }
            self.pause(pause).await;
            match self.store.apply(id, transition.clone()).await {
                // An earlier try may have been done, whatever this one returned.
                Err(again) if may_be_done => error = StoreError::uncertain(again.to_string()),
                Err(again) => error = again,
                Ok(Applied { record, .. }) if may_be_done && was_done(record.as_ref(), transition) => {
                    return Ok(Applied { reply: Reply::Taken, record });
                }
                told => return told,
            }
        }
        Err(error)
    }

    /// Waits before the next try: for this long, or until a database that is away is back.
    async fn pause(&self, pause: Duration) {
        let is_away = || matches!(self.store.health(), Health::Away { .. });
        if !is_away() {
            return tokio::time::sleep(pause).await;
        }
        let end = Instant::now() + pause;
        while is_away() && Instant::now() < end {
            tokio::time::sleep_until(end.min(Instant::now() + LOOK)).await;
        }
    }

    /// Returns the transition that records a run that ended in this way.
    pub(super) fn ending(&self, presented: &Presented, hold: &Hold, end: &End) -> Transition {
        let (fingerprint, policy) = (presented.fingerprint, self.policy.claim_policy());
        let settlement = match end {
            End::Outcome(_) if laboratory::is_broken(Protection::Record) => return Transition::Release(hold.fence),
            End::Outcome(outcome) => Settlement::Outcome(outcome.clone()),
            End::Consumed { status } => Settlement::Consumed { status: *status },
            End::Released => return Transition::Release(hold.fence),
            End::Unknown { status } => return self.interruption(fingerprint, policy, hold, *status),
            // No work ends in these ways. If one did, its effects would be unknown.
            End::InDoubt | End::InFlight | End::Refused(_) => {
                return self.interruption(fingerprint, policy, hold, None);
            }
        };
        let retention = self.policy.retention;
        Transition::Complete(Completion { hold: *hold, fingerprint, settlement, retention })
    }

    /// Returns the transition that records a run that was claimed under this policy and whose end is unknown.
    pub(super) fn interruption(
        &self,
        fingerprint: Fingerprint,
        policy: ClaimPolicy,
        hold: &Hold,
        status: Option<u16>,
    ) -> Transition {
        let Hold { fence, attempt, .. } = *hold;
        let retention = self.policy.interrupted_retention;
        let lost = (!self.store.is_exclusive()).then_some(Lost { fingerprint, attempt, policy, retention });
        Transition::Interrupt { fence, status, lost }
    }

    /// Keeps the end of an operation in this process, because the store does not know it, or not durably. Returns also
    /// whether there is room for its outcome.
    pub(super) fn remember(&self, slot: Slot, ended: Ended) -> (Later, bool) {
        let (id, turn, retrying) = (slot.id(), slot.turn(), self.store.slots().retrying());
        (Later { id, turn, _retrying: retrying }, slot.remember(ended, self.policy.retention))
    }

    /// Sends the transition again until the store knows the end, or can no longer learn it, or the end is about to be
    /// forgotten, because a newer run may begin then.
    pub(super) async fn tell_later(&self, transition: Transition, error: StoreError, later: Later) {
        let at_most = self.policy.retention.saturating_sub(STORE_TIMEOUT);
        let pauses = backoff(Duration::from_millis(200));
        match self.tell_again(later.id, &transition, error, pauses, at_most).await {
            // The store has no record that could be interrupted: only this process keeps the operation from running
            // again. One that several processes share would have made a record that was lost: without one, it refuses
            // only if the key was freed since, or the record would have expired.
            Ok(Applied { reply: Reply::Refused, record: None })
                if matches!(transition, Transition::Interrupt { .. }) && self.store.is_exclusive() => {}
            // If this was refused, the store knows another end, and that one counts.
            Ok(_) => self.forget(&later),
            Err(_) => {}
        }
    }

    /// Frees a slot whose end was remembered, because the store knows it now, or knows another one.
    pub(super) fn forget(&self, later: &Later) {
        self.store.slots().remembered.forget(&later.id, later.turn);
    }
}

/// Returns the pauses before a failed write is tried again. The first is about `first` long, and there is no last one.
pub(super) fn backoff(first: Duration) -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(first)
        .with_max_delay(Duration::from_secs(30))
        .with_jitter()
        .without_max_times()
        .build()
}

/// Returns whether a store that failed may work again within this process.
pub(super) fn may_recover(store: &impl Store) -> bool {
    !matches!(store.health(), Health::Poisoned { .. } | Health::Closed)
}

/// Returns whether the record is the one that the transition writes.
fn was_done(record: Option<&Record>, transition: &Transition) -> bool {
    let held = record.map(|record| &record.state);
    match transition {
        Transition::Resolve(_, Resolution::Forget, _) => record.is_none(),
        Transition::Complete(Completion { settlement: Settlement::Consumed { status }, .. }) => {
            held == Some(&State::Consumed { status: *status })
        }
        transition => {
            matches!((held, transition.outcome()), (Some(State::Completed { outcome: held }), Some(told)) if held == told)
        }
    }
}

/// An operation whose end is not in the store yet. Drain waits for it.
pub(super) struct Later {
    id: RecordId,
    turn: u64,
    _retrying: Retrying,
}

#[cfg(all(test, feature = "test-util"))]
mod tests {
    use std::sync::Arc;

    use super::super::policy::Policy;
    use super::*;
    use crate::record::Fence;
    use crate::slots::Entered;
    use crate::store::Records as _;
    use crate::store::test::TestStore;

    // Its claim left no trace, and its outcome was too much to be remembered.
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
        let (later, _) = engine.remember(slot, Ended::new(fingerprint, End::Unknown { status: None }));
        let transition = engine.interruption(fingerprint, ClaimPolicy::Rerun, &hold, None);
        engine.tell_later(transition, StoreError::unavailable("it was away"), later).await;
        let told = slots.look(&id).expect("it is remembered").join(&fingerprint, Duration::ZERO).await;
        assert!(matches!(told, Ok(End::Unknown { .. })), "{told:?}");
        // The store has an answer to everything else: that one counts.
        let id = RecordId::from_bytes([2; 32]);
        let Entered::Mine(slot) = slots.take(id, 1, None) else { panic!("it is free") };
        let (later, _) = engine.remember(slot, Refusal::Unavailable.into());
        engine.tell_later(Transition::Release(Fence(1)), StoreError::unavailable("it was away"), later).await;
        assert!(slots.look(&id).is_none());
    }
}
