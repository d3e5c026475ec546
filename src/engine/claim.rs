//! Claims an operation in the store, under its slot.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::Instant;

use super::context::Rerun;
use super::engine::{Engine, Presented};
use super::policy::OnInterrupted;
use crate::fingerprint::{Fingerprint, Match};
use crate::record::{Applied, Claim, Fence, Hold, Origin, Owner, ReclaimReason, Record, Reply, State, Transition};
use crate::slots::{End, Ended, Refusal, once_a_minute};
use crate::store::{Store, StoreError};
use crate::within::END_RECORDED_WITHIN;

/// The number of times an operation is claimed if its record vanishes each time before it is read.
const CLAIMS: usize = 3;

/// The result of a claim, or of the look-up that replaces it during a shutdown.
#[derive(Debug)]
pub(super) enum Acquired {
    /// This run holds the operation, whose record has this fingerprint.
    Run(Hold, Rerun, Fingerprint),
    /// The store has a record of the operation.
    Found(Box<Record>),
}

impl<St: Store> Engine<St> {
    /// Claims the operation, or takes an interrupted one over: the one under the fence `again`, about which the
    /// application said that it may run again, or any, if the policy says so. `known` is set once a record was read.
    /// The requester does not wait beyond `deadline`, so a claim that takes longer is given back.
    pub(super) async fn claim(
        &self,
        presented: &Presented,
        again: Option<Fence>,
        known: &AtomicBool,
        deadline: Instant,
    ) -> Result<Acquired, Refusal> {
        if let Some(fence) = again {
            match Box::pin(self.reclaim(presented, fence, ReclaimReason::Verdict, deadline)).await {
                Ok(Some(acquired)) => return Ok(acquired),
                // The record has expired, so the operation is claimed as a new one.
                Ok(None) => {}
                Err(refusal) => {
                    // The run does not begin, so other processes may ask the application again.
                    self.ask_no_more(presented.id, fence).await;
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
                return Ok(Acquired::Run(hold(presented, &record), rerun, record.fingerprint));
            }
            // `Run::fails_open` reads this: an operation with a record does not run unprotected.
            known.store(true, Ordering::Relaxed);
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
                // The claim may come from a layer with another policy.
                let interrupt = self.interruption(record.fingerprint, policy, &hold(presented, &record), None);
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
            Reply::Taken => Acquired::Run(hold(presented, &record), Rerun::Yes, record.fingerprint),
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
            self.is_answered_by(&Presented { fingerprint, ..*presented }, &record)
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
            // No caller says where a request comes from yet.
            origin: Origin::default(),
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

/// Returns the hold of the run that claimed `record`: its transitions name this fence.
pub(super) fn hold(presented: &Presented, record: &Record) -> Hold {
    Hold { id: presented.id, fence: record.fence, attempt: record.attempt }
}
