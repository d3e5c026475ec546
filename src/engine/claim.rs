//! Asking the store for the operation, under its slot.

use super::context::Rerun;
use super::engine::{Ask, Engine};
use super::policy::OnInterrupted;
use crate::fingerprint::Match;
use crate::record::{Claim, Claimed, Hold, Nonce, Record, State};
use crate::slots::Refusal;
use crate::store::{Store, StoreError};

/// What came of it.
#[derive(Debug)]
pub(super) enum Acquired {
    /// The operation is ours to run.
    Run(Hold, Rerun),
    /// There is a record.
    Found(Record),
    /// Neither.
    Refused(Refusal),
}

impl<St: Store> Engine<St> {
    pub(super) async fn acquire(&self, ask: &Ask) -> Acquired {
        match self.try_acquire(ask).await {
            Ok(acquired) => acquired,
            Err(error) => Acquired::Refused(self.refusal(ask, &error)),
        }
    }

    async fn try_acquire(&self, ask: &Ask) -> Result<Acquired, StoreError> {
        // Looked at under the slot: drain waits for slots taken before it said so.
        if self.store.slots().is_draining() {
            return match self.store.load(ask.id).await {
                Ok(Some(record)) if !matches!(record.state, State::Running { .. }) => Ok(Acquired::Found(record)),
                Err(error @ StoreError::Corrupt { .. }) => Err(error),
                Ok(_) | Err(_) => Ok(Acquired::Refused(Refusal::ShuttingDown)),
            };
        }
        self.undo_doubted(ask).await?;
        let claim = Claim {
            id: ask.id,
            fingerprint: ask.fingerprint,
            nonce: draw_nonce()?,
            durable: self.claims_durably(),
            interrupted_retention: self.policy.interrupted_retention,
        };
        let record = match self.claim(claim).await? {
            Claimed::Fresh(hold) => {
                return Ok(Acquired::Run(hold, if claim.durable { Rerun::No } else { Rerun::Unknown }));
            }
            Claimed::Held(record) => record,
        };
        let record = match record.state {
            // We have the slot, so no run of this process is alive under it: it ended without settling.
            State::Running { .. } => {
                self.store.interrupt(ask.id, record.fence).await?;
                match self.store.load(ask.id).await? {
                    Some(record) => record,
                    None => return Ok(Acquired::Refused(Refusal::Unavailable)),
                }
            }
            State::Interrupted { .. } | State::Completed { .. } | State::Consumed { .. } => record,
        };
        self.reclaim(ask, claim, record).await
    }

    /// Undoes a claim that an earlier request sent and the store may hold: nothing ran under it.
    async fn undo_doubted(&self, ask: &Ask) -> Result<(), StoreError> {
        let Some(doubted) = self.store.slots().doubted(&ask.id) else { return Ok(()) };
        // Sent again, it is known for our own by its nonce.
        let undone = match self.store.claim(doubted).await {
            Ok(Claimed::Fresh(hold)) if hold.attempt > 1 => self.store.interrupt(hold.id, hold.fence).await.map(drop),
            Ok(Claimed::Fresh(hold)) if hold.recorded => self.store.release(hold.id, hold.fence).await.map(drop),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if undone.is_err() {
            self.store.slots().doubt(doubted);
        }
        undone
    }

    /// Sends a claim, and sends it again where its answer was lost: the nonce shows that it is ours. Where that one is
    /// lost too, the next request for the operation undoes it.
    async fn claim(&self, claim: Claim) -> Result<Claimed, StoreError> {
        let result = match self.store.claim(claim).await {
            Err(StoreError::Uncertain { .. }) => self.store.claim(claim).await,
            result => result,
        };
        self.doubting(&claim, result)
    }

    fn doubting<T>(&self, claim: &Claim, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(StoreError::Uncertain { .. }) = result {
            self.store.slots().doubt(*claim);
        }
        result
    }

    /// An interrupted operation runs again where the policy says so, and the request is the same.
    async fn reclaim(&self, ask: &Ask, claim: Claim, record: Record) -> Result<Acquired, StoreError> {
        let interrupted = matches!(record.state, State::Interrupted { .. });
        let same = record.fingerprint.compare(&ask.fingerprint) == Match::Same;
        if !interrupted || !same || self.policy.on_interrupted != OnInterrupted::Rerun {
            return Ok(Acquired::Found(record));
        }
        let reclaimed = match self.store.reclaim(claim, record.fence).await {
            Err(StoreError::Uncertain { .. }) => self.store.reclaim(claim, record.fence).await,
            result => result,
        };
        match self.doubting(&claim, reclaimed)? {
            Some(hold) => Ok(Acquired::Run(hold, Rerun::Yes)),
            // Settled by somebody meanwhile.
            None => Ok(match self.store.load(ask.id).await? {
                Some(record) => Acquired::Found(record),
                None => Acquired::Refused(Refusal::Unavailable),
            }),
        }
    }
}

fn draw_nonce() -> Result<Nonce, StoreError> {
    let mut nonce = Nonce::default();
    getrandom::fill(&mut nonce).map_err(|error| StoreError::Unavailable {
        reason: "the operating system gives no random numbers".to_owned(),
        source: Some(error.to_string().into()),
    })?;
    Ok(nonce)
}
