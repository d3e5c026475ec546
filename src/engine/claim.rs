//! Asking the store for the operation, under its slot.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::context::Rerun;
use super::engine::{Ask, Engine};
use super::nonce;
use super::policy::OnInterrupted;
use crate::fingerprint::Match;
use crate::record::{Claim, Claimed, Fence, Hold, Record, State};
use crate::slots::Refusal;
use crate::store::{Store, StoreError};

/// How often an operation is claimed whose record vanishes each time before it is looked at.
const CLAIMS: usize = 3;

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
        match self.try_acquire(ask, known, deadline).await {
            Ok(acquired) => acquired,
            Err(error) => Acquired::Refused(self.refusal(ask, &error)),
        }
    }

    async fn try_acquire(&self, ask: &Ask, known: &AtomicBool, deadline: Instant) -> Result<Acquired, StoreError> {
        // Looked at under the slot: drain waits for slots taken before it said so.
        if self.store.slots().is_draining() && !ask.is_within {
            return Box::pin(self.find(ask)).await;
        }
        if let Some(doubted) = self.store.slots().doubted(&ask.id) {
            Box::pin(self.undo(Claim { patience: left(deadline), ..doubted })).await?;
        }
        self.claim(ask, known, deadline).await
    }

    async fn claim(&self, ask: &Ask, known: &AtomicBool, deadline: Instant) -> Result<Acquired, StoreError> {
        for _ in 0..CLAIMS {
            if let Some(acquired) = self.claim_once(ask, known, deadline).await? {
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
        // The next process will run it.
        let runs = matches!(record.state, State::Running { .. })
            || self.runs_again(ask, &record)
            || self.reconciler(ask, &record).is_some();
        Ok(if runs { Acquired::Refused(Refusal::ShuttingDown) } else { Acquired::Found(Box::new(record)) })
    }

    /// Claims, and takes over what was interrupted, where the policy says so; `None` if the record vanished in between.
    async fn claim_once(
        &self,
        ask: &Ask,
        known: &AtomicBool,
        deadline: Instant,
    ) -> Result<Option<Acquired>, StoreError> {
        let claim = self.draw(ask, deadline)?;
        let claimed = match self.store.claim(claim).await {
            Err(StoreError::Uncertain { .. }) => Box::pin(self.again(&claim, self.store.claim(claim))).await,
            claimed => claimed,
        };
        let record = match claimed? {
            Claimed::Fresh(hold) => {
                let rerun = if claim.durable { Rerun::No } else { Rerun::Unknown };
                return Ok(Some(Acquired::Run(hold, rerun)));
            }
            Claimed::Held(record) => record,
        };
        known.store(true, Ordering::Relaxed);
        Box::pin(self.held(ask, claim, record)).await
    }

    /// Takes over what is there, if it was interrupted and the policy says so.
    async fn held(&self, ask: &Ask, claim: Claim, record: Record) -> Result<Option<Acquired>, StoreError> {
        let record = match record.state {
            // We have the slot, so no run of this process is alive under it: it ended without settling.
            State::Running { .. } => {
                self.store.interrupt(ask.id, record.fence, None).await?;
                self.store.load(ask.id).await?
            }
            State::Interrupted { .. } | State::Completed { .. } | State::Consumed { .. } => Some(record),
        };
        match record {
            Some(record) if self.runs_again(ask, &record) => self.reclaim(claim, record.fence).await,
            record => Ok(record.map(Box::new).map(Acquired::Found)),
        }
    }

    /// Whether an interrupted operation runs again for this request.
    fn runs_again(&self, ask: &Ask, record: &Record) -> bool {
        matches!(record.state, State::Interrupted { .. })
            && matches!(self.policy.on_interrupted, OnInterrupted::Rerun)
            && record.fingerprint.compare(&ask.fingerprint) == Match::Same
    }

    /// Whether an operation stays interrupted whatever this request does.
    pub(super) fn stays(&self, ask: &Ask, record: &Record) -> bool {
        matches!(record.state, State::Interrupted { .. })
            && !self.runs_again(ask, record)
            && self.reconciler(ask, record).is_none()
    }

    /// Undoes a claim that an earlier request sent and the store may hold: nothing ran under it.
    async fn undo(&self, doubted: Claim) -> Result<(), StoreError> {
        // Sent again, it is known for our own by its nonce.
        let undone = match self.store.claim(doubted).await {
            Ok(Claimed::Fresh(hold)) if hold.attempt > 1 => {
                self.store.interrupt(hold.id, hold.fence, None).await.map(drop)
            }
            Ok(Claimed::Fresh(hold)) if hold.recorded => self.store.release(hold.id, hold.fence).await.map(drop),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if undone.is_err() {
            self.store.slots().doubt(doubted);
        }
        undone
    }

    /// Sends what takes an operation again, as its answer was lost: the nonce shows that it is ours. Where that one is lost
    /// too, the next request for the operation undoes it.
    async fn again<T: Send>(
        &self,
        claim: &Claim,
        sent: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let result = sent.await;
        // Whatever became of it, the store may hold the first.
        if result.is_err() {
            self.store.slots().doubt(*claim);
        }
        result
    }

    /// Takes over an operation that somebody said may run again.
    pub(super) async fn take_over(
        &self,
        ask: &Ask,
        interrupted: Fence,
        known: &AtomicBool,
        deadline: Instant,
    ) -> Acquired {
        let taking = async {
            match self.reclaim(self.draw(ask, deadline)?, interrupted).await? {
                Some(acquired) => Ok(acquired),
                // It expired during the question: it is new.
                None => self.claim(ask, known, deadline).await,
            }
        };
        taking.await.unwrap_or_else(|error| Acquired::Refused(self.refusal(ask, &error)))
    }

    fn draw(&self, ask: &Ask, deadline: Instant) -> Result<Claim, StoreError> {
        Ok(Claim {
            id: ask.id,
            fingerprint: ask.fingerprint,
            nonce: nonce::draw()?,
            durable: self.claims_durably(),
            interrupted_retention: self.policy.interrupted_retention,
            patience: left(deadline),
        })
    }

    async fn reclaim(&self, claim: Claim, interrupted: Fence) -> Result<Option<Acquired>, StoreError> {
        let taken = match self.store.reclaim(claim, interrupted).await {
            Err(StoreError::Uncertain { .. }) => self.again(&claim, self.store.reclaim(claim, interrupted)).await,
            taken => taken,
        };
        match taken? {
            Some(hold) => Ok(Some(Acquired::Run(hold, Rerun::Yes))),
            // Settled by somebody meanwhile.
            None => Ok(self.store.load(claim.id).await?.map(Box::new).map(Acquired::Found)),
        }
    }
}

/// How long somebody still waits.
fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
