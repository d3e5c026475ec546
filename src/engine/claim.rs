//! Claims an operation in the store, under its slot.

use std::sync::Arc;

use tokio::time::Instant;

use super::context::Rerun;
use super::engine::Engine;
use super::met::Met;
use super::policy::{OnInterrupted, Policy};
use super::reconcile::ask_no_more;
use crate::record::{
    Cause, Claim, Fence, Hold, Operation, Owner, ReclaimReason, Record, Reply, State, Stepped, Transition,
};
use crate::slots::{Refusal, SharedPhase};
use crate::store::{Store, StoreError};
use crate::timeouts::END_TIMEOUT;

/// The number of times an operation is claimed if its record vanishes each time before it is read.
const CLAIMS: usize = 3;

/// The answer to a claim, or to the look-up that replaces it during a shutdown.
#[derive(Debug)]
pub(super) enum Claimed {
    /// The run holds the operation, as its record has it.
    Granted(Operation, Hold, Rerun),
    /// The store has a record of the operation.
    Met(Box<Record>),
}

/// A run that claims its operation.
pub(super) struct Claimant<St> {
    pub(super) engine: Arc<Engine<St>>,
    pub(super) operation: Operation,
    /// `true` if a run that is still under way has sent the request.
    pub(super) is_within: bool,
    /// Learns of a record that was read.
    pub(super) phase: SharedPhase,
    /// The requester does not wait beyond it, so a claim that takes longer is given back.
    pub(super) deadline: Instant,
}

impl<St: Store> Claimant<St> {
    /// Claims the operation, or takes an interrupted one over: the one under the fence `again`, about which the
    /// application said that it may run again, or any, if the policy says so.
    pub(super) async fn claim(&self, again: Option<Fence>) -> Result<Claimed, Refusal> {
        let Self { engine, operation, is_within, phase, .. } = self;
        if let Some(fence) = again {
            match Box::pin(self.reclaim(fence, ReclaimReason::Verdict)).await {
                Ok(Some(claimed)) => return Ok(claimed),
                // The record has expired, so the operation is claimed as a new one.
                Ok(None) => {}
                Err(refusal) => {
                    // The run does not begin, so other processes may ask the application again.
                    Box::pin(ask_no_more(engine, operation.id, fence)).await;
                    return Err(refusal);
                }
            }
        }
        // This is read under the slot, because drain waits for slots that were taken before it began.
        if engine.store.slots().is_draining() && !is_within {
            return Box::pin(self.find()).await;
        }
        for _ in 0..CLAIMS {
            let wish = wish(&engine.policy, operation.clone(), self.deadline);
            let may_repeat = wish.may_repeat;
            let claimed = engine.store.apply(operation.id, Transition::Claim(wish)).await;
            // `refused` logs the fault and returns the requester's answer.
            let Stepped { reply, record } = claimed.map_err(|error| self.refused(&error))?;
            // The claim was refused because of a record that has expired since: it is sent again.
            let Some(record) = record else { continue };
            if reply == Reply::Taken {
                return Ok(self.granted(&record, if may_repeat { Rerun::Maybe } else { Rerun::No }));
            }
            // `Run::fails_open` reads this: an operation with a record does not run unprotected.
            phase.note_record();
            if let Some(claimed) = Box::pin(self.take_over_if_interrupted(record)).await? {
                return Ok(claimed);
            }
        }
        // The record has vanished each time. The client retries later.
        Err(Refusal::Unavailable)
    }

    /// Answers from the record while the process is shutting down. No run begins.
    async fn find(&self) -> Result<Claimed, Refusal> {
        match self.engine.store.load(self.operation.id).await {
            // If the record needs a step, the next process takes it.
            Ok(Some(record)) if self.met(&record).is_answer() => Ok(Claimed::Met(Box::new(record))),
            Err(error @ StoreError::Corrupt { .. }) => Err(self.refused(&error)),
            // There is no record, or it needs a step, or the store is away.
            Ok(_) | Err(_) => Err(Refusal::ShuttingDown),
        }
    }

    /// Takes over the record's operation if it was interrupted and the policy says so. Returns `None` if the record
    /// vanished meanwhile.
    async fn take_over_if_interrupted(&self, record: Record) -> Result<Option<Claimed>, Refusal> {
        let Self { engine, operation: Operation { id, .. }, .. } = self;
        let record = match record.state {
            // This request has the slot, so no run of this process is alive under the record: its run ended without
            // settling. The claim may come from a layer with another policy, and from another request.
            State::Running { policy, .. } if record.owner == Owner::Here => {
                let (operation, hold) = (Operation::of(*id, &record), hold(&record));
                let interrupt = engine.interruption(&operation, hold, policy, Cause::Unknown);
                engine.store.apply(*id, interrupt).await.map_err(|error| self.refused(&error))?.record
            }
            // The operation is done or interrupted already, or another process has its run.
            _ => Some(record),
        };
        match record {
            Some(record) if self.met(&record).runs_again() => self.reclaim(record.fence, ReclaimReason::Policy).await,
            // The record is the answer, or it is gone: `claim` then tries again.
            record => Ok(record.map(Box::new).map(Claimed::Met)),
        }
    }

    /// Takes over the operation that was interrupted under this fence. Returns `None` if the record is gone, for
    /// example because it expired.
    async fn reclaim(&self, fence: Fence, reason: ReclaimReason) -> Result<Option<Claimed>, Refusal> {
        let Self { engine, operation, .. } = self;
        let wish = wish(&engine.policy, operation.clone(), self.deadline);
        let reclaimed = engine.store.apply(operation.id, Transition::Reclaim(wish, fence, reason)).await;
        let Stepped { reply, record } = reclaimed.map_err(|error| self.refused(&error))?;
        Ok(record.map(|record| match reply {
            Reply::Taken => self.granted(&record, Rerun::Yes),
            // It was settled meanwhile.
            Reply::Refused => Claimed::Met(Box::new(record)),
        }))
    }

    /// The record's fingerprint and origin count from now on, as they do when the run is over.
    fn granted(&self, record: &Record, rerun: Rerun) -> Claimed {
        Claimed::Granted(Operation::of(self.operation.id, record), hold(record), rerun)
    }

    fn refused(&self, error: &StoreError) -> Refusal {
        self.engine.log_and_refuse(&self.operation.id, error)
    }

    fn met<'a>(&'a self, record: &'a Record) -> Met<'a> {
        Met { policy: &self.engine.policy, fingerprint: &self.operation.fingerprint, record }
    }
}

/// Returns the claim that asks the store for the operation, with the durations of the policy.
pub(super) fn wish(policy: &Policy, operation: Operation, deadline: Instant) -> Claim {
    Claim {
        operation,
        policy: policy.claim_policy(),
        // After a crash the operation may run again, so an embedded store need not keep the claim.
        may_repeat: policy.on_interrupted == OnInterrupted::Rerun,
        // The clocks of the process that ends the run, and of those that judge the bound, may run at different rates.
        bound: (policy.max_run.saturating_mul(5) / 4).saturating_add(END_TIMEOUT),
        interrupted_retention: policy.interrupted_retention,
        timeout: deadline.saturating_duration_since(Instant::now()),
    }
}

/// Returns the hold of the run that claimed `record`: its transitions name this fence.
pub(super) fn hold(record: &Record) -> Hold {
    Hold { fence: record.fence, attempt: record.attempt }
}
