//! Claims an operation in the store, under its slot, and ends a run that is not granted it.

use std::pin::pin;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::commitment::Commitment;
use super::context::Rerun;
use super::engine::{Engine, Presented};
use super::policy::{OnInterrupted, Policy};
use super::run::{Run, Work};
use super::verdict::Verdict;
use crate::fingerprint::{Fingerprint, Match};
use crate::key::RecordId;
use crate::record::{Applied, Claim, Fence, Hold, Origin, Owner, ReclaimReason, Record, Reply, State, Transition};
use crate::slots::{End, Ended, Phase, Refusal, SharedPhase, once_a_minute};
use crate::store::{Store, StoreError};
use crate::within::{END_RECORDED_WITHIN, STORE_TIMEOUT, within};

/// The number of times an operation is claimed if its record vanishes each time before it is read.
const CLAIMS: usize = 3;

/// The result of a claim, or of the look-up that replaces it during a shutdown.
#[derive(Debug)]
pub(super) enum Acquired {
    /// This run holds the operation, whose record has this fingerprint and this origin.
    Run(Hold, Rerun, Fingerprint, Origin),
    /// The store has a record of the operation.
    Found(Box<Record>),
}

impl<St: Store> Engine<St> {
    /// Claims the operation, or takes an interrupted one over: the one under the fence `again`, about which the
    /// application said that it may run again, or any, if the policy says so. `phase` learns of a record that was read.
    /// The requester does not wait beyond `deadline`, so a claim that takes longer is given back.
    pub(super) async fn claim(
        &self,
        presented: &Presented,
        again: Option<Fence>,
        phase: &SharedPhase,
        deadline: Instant,
    ) -> Result<Acquired, Refusal> {
        if let Some(fence) = again {
            match Box::pin(self.reclaim(presented, fence, ReclaimReason::Verdict, deadline)).await {
                Ok(Some(acquired)) => return Ok(acquired),
                // The record has expired, so the operation is claimed as a new one.
                Ok(None) => {}
                Err(refusal) => {
                    // The run does not begin, so other processes may ask the application again.
                    Box::pin(self.ask_no_more(presented.id, fence)).await;
                    return Err(refusal);
                }
            }
        }
        // This is read under the slot, because drain waits for slots that were taken before it began.
        if self.store.slots().is_draining() && !presented.is_within {
            return Box::pin(self.find(presented)).await;
        }
        for _ in 0..CLAIMS {
            let wish = self.wish(presented, deadline);
            let may_repeat = wish.may_repeat;
            let claimed = self.store.apply(presented.id, Transition::Claim(wish)).await;
            // `log_and_refuse` logs the fault and returns the requester's answer.
            let Applied { reply, record } = claimed.map_err(|error| self.log_and_refuse(presented, &error))?;
            // The claim was refused because of a record that has expired since: it is sent again.
            let Some(record) = record else { continue };
            if reply == Reply::Taken {
                let rerun = if may_repeat { Rerun::Maybe } else { Rerun::No };
                return Ok(Acquired::Run(hold(presented, &record), rerun, record.fingerprint, record.origin));
            }
            // `Run::fails_open` reads this: an operation with a record does not run unprotected.
            phase.note_record();
            if let Some(acquired) = Box::pin(self.take_over_if_interrupted(presented, record, deadline)).await? {
                return Ok(acquired);
            }
        }
        // The record has vanished each time. The client retries later.
        Err(Refusal::Unavailable)
    }

    /// Answers from the record while the process is shutting down. No run begins.
    async fn find(&self, presented: &Presented) -> Result<Acquired, Refusal> {
        match self.store.load(presented.id).await {
            // If the record needs a step, the next process takes it.
            Ok(Some(record)) if self.is_answered_by(presented, &record) => Ok(Acquired::Found(Box::new(record))),
            Err(error @ StoreError::Corrupt { .. }) => Err(self.log_and_refuse(presented, &error)),
            // There is no record, or it needs a step, or the store is away.
            Ok(_) | Err(_) => Err(Refusal::ShuttingDown),
        }
    }

    /// Takes over the record's operation if it was interrupted and the policy says so. Returns `None` if the record
    /// vanished meanwhile.
    async fn take_over_if_interrupted(
        &self,
        presented: &Presented,
        record: Record,
        deadline: Instant,
    ) -> Result<Option<Acquired>, Refusal> {
        let record = match record.state {
            // This request has the slot, so no run of this process is alive under the record: its run ended without
            // settling.
            State::Running { policy, .. } if record.owner == Owner::Here => {
                // The claim may come from a layer with another policy, and from a request with another fingerprint.
                let (fingerprint, origin) = (record.fingerprint, record.origin.clone());
                let claimed = Presented { fingerprint, origin, ..presented.clone() };
                let interrupt = self.interruption(&claimed, policy, &hold(presented, &record), None);
                let interrupted = self.store.apply(presented.id, interrupt).await;
                interrupted.map_err(|error| self.log_and_refuse(presented, &error))?.record
            }
            // The operation is done or interrupted already, or another process has its run.
            _ => Some(record),
        };
        match record {
            Some(record) if self.runs_again(presented, &record) => {
                self.reclaim(presented, record.fence, ReclaimReason::Policy, deadline).await
            }
            // The record is the answer, or it is gone: `claim` then tries again.
            record => Ok(record.map(Box::new).map(Acquired::Found)),
        }
    }

    /// Takes over the operation that was interrupted under this fence. Returns `None` if the record is gone, for
    /// example because it expired.
    async fn reclaim(
        &self,
        presented: &Presented,
        fence: Fence,
        reason: ReclaimReason,
        deadline: Instant,
    ) -> Result<Option<Acquired>, Refusal> {
        let reclaim = Transition::Reclaim(self.wish(presented, deadline), fence, reason);
        let reclaimed = self.store.apply(presented.id, reclaim).await;
        let Applied { reply, record } = reclaimed.map_err(|error| self.log_and_refuse(presented, &error))?;
        Ok(record.map(|record| match reply {
            Reply::Taken => Acquired::Run(hold(presented, &record), Rerun::Yes, record.fingerprint, record.origin),
            // It was settled meanwhile.
            Reply::Refused => Acquired::Found(Box::new(record)),
        }))
    }

    /// Returns whether an interrupted operation runs again for this request.
    fn runs_again(&self, presented: &Presented, record: &Record) -> bool {
        record.may_run_again() && self.would_run_again(presented, record)
    }

    /// Returns whether an interrupted operation would run again for this request if it had been claimed under `Rerun`.
    fn would_run_again(&self, presented: &Presented, record: &Record) -> bool {
        record.is_interrupted()
            && self.policy.on_interrupted == OnInterrupted::Rerun
            && record.fingerprint.compare(&presented.fingerprint) == Match::Same
    }

    /// Counts a request that is answered from `record` if it is refused because the operation was claimed under another
    /// policy than `Rerun`, which is the policy now. Logs at most one line a minute, because a deploy may leave
    /// thousands of such operations.
    pub(super) fn report_not_rerun(&self, presented: &Presented, record: &Record) {
        if record.may_run_again() || !self.would_run_again(presented, record) {
            return;
        }
        self.count(|tally| &tally.not_rerun);
        once_a_minute!(
            self.store.slots().tally.lines.not_rerun,
            warn,
            record_id = presented.id.short(),
            "an interrupted operation does not run again, because it was not claimed under Rerun: list the interrupted \
             operations and settle them"
        );
    }

    /// Returns whether this request can be answered from the record without any further step.
    pub(super) fn is_answered_by(&self, presented: &Presented, record: &Record) -> bool {
        match record.state {
            State::Completed { .. } | State::Consumed { .. } => true,
            // A run of this process without a slot has ended without settling, and is interrupted before its answer.
            State::Running { .. } => record.owner == Owner::Elsewhere,
            State::Interrupted { .. } => {
                !self.runs_again(presented, record) && self.reconciler(presented, record).is_none()
            }
        }
    }

    /// Returns the answers to a request and to its duplicates for a record that a claim has met. They may be different
    /// clients' requests. If the record needs a step that only a request with its own fingerprint may take, the client
    /// of that request retries, and the retry takes the step. This request is also asked to retry if it was to take the
    /// operation over and another process took a step first.
    pub(super) fn found(&self, presented: &Presented, record: Record) -> Ended {
        let fingerprint = record.fingerprint;
        let is_other = fingerprint.compare(&presented.fingerprint) != Match::Same;
        // A request with another fingerprint gets a mismatch at once; this is about the waiters whose fingerprint fits.
        let is_answer = if is_other {
            self.is_answered_by(&Presented { fingerprint, ..presented.clone() }, &record)
        } else {
            !self.runs_again(presented, &record)
        };
        let ended = Ended::from(record);
        if is_answer || ended.is_in_flight() { ended } else { Ended::new(fingerprint, End::Released) }
    }

    /// Returns the claim that asks the store for the operation, with the durations of the policy.
    pub(super) fn wish(&self, presented: &Presented, deadline: Instant) -> Claim {
        Claim {
            fingerprint: presented.fingerprint,
            origin: presented.origin.clone(),
            policy: self.policy.claim_policy(),
            may_repeat: !self.claims_durably(),
            // The clocks of the process that ends the run, and of those that judge the bound, may run at different
            // rates.
            bound: (self.policy.max_run.saturating_mul(5) / 4).saturating_add(END_RECORDED_WITHIN),
            interrupted_retention: self.policy.interrupted_retention,
            patience: deadline.saturating_duration_since(Instant::now()),
        }
    }
}

/// A run whose claim was answered, what it was granted or has met, its work, and where its verdict goes.
pub(super) type Claimed<St, W, T> =
    (Box<Run<St>>, Result<(Arc<Commitment>, Rerun), Met>, W, oneshot::Sender<Verdict<T>>);

/// The reason why a run was not granted its operation.
pub(super) enum Met {
    /// The store has this record of it.
    Record(Box<Record>),
    /// The claim was refused.
    Refusal(Refusal),
}

impl<St: Store> Run<St> {
    /// Claims the operation. Returns `None` if the claim took too long: then the run has ended otherwise.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` keeps its arguments twice")]
    pub(super) fn acquire<W: Work<T>, T: Send>(
        self: Box<Self>,
        session: Option<RecordId>,
        again: Option<Fence>,
        work: W,
        reply: oneshot::Sender<Verdict<T>>,
    ) -> impl Future<Output = Option<Claimed<St, W, T>>> + Send {
        async move {
            // If this is dropped, they are dropped in the reverse order: the work, and then the slot.
            let (mut this, work, reply) = (self, work, reply);
            let (engine, presented, phase) = (Arc::clone(&this.engine), this.presented.clone(), this.slot.phase());
            let mut claiming = pin!(engine.claim(&presented, again, &phase, this.deadline));
            let Some(acquired) = within(Some(this.deadline), claiming.as_mut()).await else {
                Box::pin(this.stalled(session, work, reply, claiming)).await;
                return None;
            };
            let granted = match acquired {
                Ok(Acquired::Run(hold, rerun, fingerprint, origin)) => {
                    engine.count(|tally| &tally.claimed);
                    // The record's fingerprint and origin count from now on, as they do when the run is over.
                    (this.presented.fingerprint, this.presented.origin) = (fingerprint, origin);
                    this.presented.attempt = hold.attempt;
                    Ok((this.commitment(hold, session), rerun))
                }
                Ok(Acquired::Found(record)) => Err(Met::Record(record)),
                Err(refusal) => Err(Met::Refusal(refusal)),
            };
            Some((this, granted, work, reply))
        }
    }

    /// Ends a run that was not granted the operation: asks the application, answers from the record, or runs without
    /// the store.
    pub(super) async fn not_granted<W: Work<T>, T: Send + 'static>(
        self: Box<Self>,
        met: Met,
        again: Option<Fence>,
        work: W,
        reply: oneshot::Sender<Verdict<T>>,
    ) {
        match met {
            Met::Record(record) => match self.engine.reconciler(&self.presented, &record) {
                Some((reconciler, listed)) if again.is_none() => {
                    self.reconcile(reconciler, listed, work, reply).await;
                }
                // There is no reconciler for the record, or this run has asked it already.
                _ => {
                    drop(work);
                    self.engine.report_not_rerun(&self.presented, &record);
                    let found = self.engine.found(&self.presented, *record);
                    self.over(found, reply);
                }
            },
            Met::Refusal(Refusal::Unavailable) if self.fails_open() => {
                // The claim has failed. `unprotected` makes another one when the work is done.
                let claiming = std::future::ready(Err(Refusal::Unavailable));
                self.unprotected(None, work, reply, claiming).await;
            }
            Met::Refusal(refusal) => {
                drop(work);
                self.over(refusal, reply);
            }
        }
    }

    /// Returns the commitment of this run, which holds the operation.
    fn commitment(&self, hold: Hold, session: Option<RecordId>) -> Arc<Commitment> {
        let Policy { retention, on_interrupted, .. } = self.engine.policy;
        let slots = Arc::clone(self.engine.store.slots());
        let (may_rerun, turn) = (on_interrupted == OnInterrupted::Rerun, self.slot.turn());
        Arc::new(Commitment::new(hold, &self.presented, retention, slots, session, may_rerun, turn))
    }

    /// Handles a claim that takes too long. The requester is answered now; the slot is kept until the store has
    /// answered, so that a claim that was made can be undone.
    async fn stalled<W: Work<T>, T: Send>(
        self: Box<Self>,
        session: Option<RecordId>,
        work: W,
        reply: oneshot::Sender<Verdict<T>>,
        claiming: impl Future<Output = Result<Acquired, Refusal>> + Send,
    ) {
        let fail_open = self.fails_open();
        once_a_minute!(
            self.engine.lines().unanswered,
            error,
            record_id = self.presented.id.short(),
            fail_open,
            "the store has not answered in {STORE_TIMEOUT:?}"
        );
        if fail_open {
            return self.unprotected(session, work, reply, claiming).await;
        }
        drop(work);
        self.slot.show_phase(Phase::Stalled);
        let _ = reply.send(Refusal::Unavailable.into());
        match claiming.await {
            Ok(Acquired::Run(hold, rerun, ..)) => self.give_back(&hold, rerun).await,
            // There is no claim to undo.
            Ok(Acquired::Found(_)) | Err(_) => self.slot.end(Refusal::Unavailable),
        }
    }

    /// Returns whether the run may go ahead without the store.
    fn fails_open(&self) -> bool {
        self.engine.fails_open() && !self.slot.phase().has_record()
    }
}

/// Returns the hold of the run that claimed `record`: its transitions name this fence.
pub(super) fn hold(presented: &Presented, record: &Record) -> Hold {
    Hold { id: presented.id, fence: record.fence, attempt: record.attempt }
}
