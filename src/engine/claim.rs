//! Asking the store for the operation, under its slot.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::context::Rerun;
use super::engine::{Ask, Engine};
use super::policy::OnInterrupted;
use crate::fingerprint::Match;
use crate::record::{Applied, Claim, Fence, Hold, Owner, Record, Reply, State, Transition};
use crate::slots::Refusal;
use crate::store::{Store, StoreError};

/// How often an operation is claimed whose record vanishes each time before it is looked at.
const CLAIMS: usize = 3;
/// What a run may take beyond `max_run`, to record how it ended: longer than it waits for a transaction of its own.
const RECORDED_WITHIN: Duration = Duration::from_secs(90);

/// What came of it.
#[derive(Debug)]
pub(super) enum Acquired {
    /// The operation is ours to run.
    Run(Hold, Rerun),
    /// There is a record.
    Found(Box<Record>),
    /// Neither.
    Refused(Refusal),
}

impl<St: Store> Engine<St> {
    /// `known` is set once a record was seen. What comes to pass after `deadline` is for nobody.
    pub(super) async fn acquire(&self, ask: &Ask, known: &AtomicBool, deadline: Instant) -> Acquired {
        let acquired = self.claim(ask, known, deadline).await;
        acquired.unwrap_or_else(|error| Acquired::Refused(self.refusal(ask, &error)))
    }

    /// Takes over an operation that somebody said may run again.
    pub(super) async fn take_over(
        &self,
        ask: &Ask,
        interrupted: Fence,
        known: &AtomicBool,
        deadline: Instant,
    ) -> Acquired {
        match self.reclaim(ask, interrupted, deadline).await {
            Ok(Some(acquired)) => acquired,
            // It expired during the question: it is new.
            Ok(None) => self.acquire(ask, known, deadline).await,
            Err(error) => Acquired::Refused(self.refusal(ask, &error)),
        }
    }

    async fn claim(&self, ask: &Ask, known: &AtomicBool, deadline: Instant) -> Result<Acquired, StoreError> {
        // Looked at under the slot: drain waits for slots taken before it said so.
        if self.store.slots().is_draining() && !ask.is_within {
            return Box::pin(self.find(ask)).await;
        }
        for _ in 0..CLAIMS {
            let wish = self.wish(ask, deadline);
            let leaves_no_trace = wish.may_repeat && self.store.is_exclusive();
            let Applied { reply, record } = self.store.apply(ask.id, Transition::Claim(wish)).await?;
            let Some(record) = record else { continue };
            if reply == Reply::Taken {
                let rerun = if leaves_no_trace { Rerun::Unknown } else { Rerun::No };
                return Ok(Acquired::Run(hold(ask, &record), rerun));
            }
            known.store(true, Ordering::Relaxed);
            if let Some(acquired) = Box::pin(self.held(ask, record, deadline)).await? {
                return Ok(acquired);
            }
        }
        Ok(Acquired::Refused(Refusal::Unavailable))
    }

    /// While the process is shutting down: what is there is answered, and nothing begins.
    async fn find(&self, ask: &Ask) -> Result<Acquired, StoreError> {
        let record = match self.store.load(ask.id).await {
            Ok(Some(record)) => record,
            Err(error @ StoreError::Corrupt { .. }) => return Err(error),
            Ok(None) | Err(_) => return Ok(Acquired::Refused(Refusal::ShuttingDown)),
        };
        // Where something would have to be done, the next process will do it.
        let is_answered = self.is_answered_by(ask, &record);
        Ok(if is_answered { Acquired::Found(Box::new(record)) } else { Acquired::Refused(Refusal::ShuttingDown) })
    }

    /// Takes over what is there, if it was interrupted and the policy says so; `None` if it vanished meanwhile.
    async fn held(&self, ask: &Ask, record: Record, deadline: Instant) -> Result<Option<Acquired>, StoreError> {
        let record = match record.state {
            // We have the slot, so no run of this process is alive under it: it ended without settling.
            State::Running { .. } if record.owner == Owner::Here => {
                let interrupt = Transition::Interrupt { fence: record.fence, status: None };
                self.store.apply(ask.id, interrupt).await?.record
            }
            _ => Some(record),
        };
        match record {
            Some(record) if self.runs_again(ask, &record) => self.reclaim(ask, record.fence, deadline).await,
            record => Ok(record.map(Box::new).map(Acquired::Found)),
        }
    }

    /// Takes over what was interrupted under this fence; `None` if it is gone.
    async fn reclaim(&self, ask: &Ask, fence: Fence, deadline: Instant) -> Result<Option<Acquired>, StoreError> {
        let reclaim = Transition::Reclaim(self.wish(ask, deadline), fence);
        let Applied { reply, record } = self.store.apply(ask.id, reclaim).await?;
        Ok(record.map(|record| match reply {
            Reply::Taken => Acquired::Run(hold(ask, &record), Rerun::Yes),
            // Settled by somebody meanwhile.
            Reply::Refused => Acquired::Found(Box::new(record)),
        }))
    }

    /// Whether an interrupted operation runs again for this request.
    fn runs_again(&self, ask: &Ask, record: &Record) -> bool {
        record.is_interrupted()
            && matches!(self.policy.on_interrupted, OnInterrupted::Rerun)
            && record.fingerprint.compare(&ask.fingerprint) == Match::Same
    }

    /// Whether there is nothing to be done for this request but to answer it from the record.
    pub(super) fn is_answered_by(&self, ask: &Ask, record: &Record) -> bool {
        match record.state {
            State::Completed { .. } | State::Consumed { .. } => true,
            State::Running { .. } => record.owner == Owner::Elsewhere,
            State::Interrupted { .. } => !self.runs_again(ask, record) && self.reconciler(ask, record).is_none(),
        }
    }

    fn wish(&self, ask: &Ask, deadline: Instant) -> Claim {
        Claim {
            fingerprint: ask.fingerprint,
            origin: None,
            may_repeat: !self.claims_durably(),
            bound: self.policy.max_run.saturating_add(RECORDED_WITHIN),
            interrupted_retention: self.policy.interrupted_retention,
            patience: deadline.saturating_duration_since(Instant::now()),
        }
    }
}

fn hold(ask: &Ask, record: &Record) -> Hold {
    Hold { id: ask.id, fence: record.fence, attempt: record.attempt }
}
