//! Recording how a run ended, before anybody is told.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::backoff::{self, may_recover};
use super::context::Rerun;
use super::engine::{Ask, Engine, source};
use super::policy::OnInterrupted;
use super::run::{Run, end_of};
use super::verdict::{Ended, Verdict};
use crate::laboratory::{self, Protection};
use crate::record::{Completion, Hold, Settled, Settlement};
use crate::slots::{End, Refusal};
use crate::store::{Store, StoreError};

impl<St: Store> Run<St> {
    /// Records, tells the waiters, frees the slot, and answers the requester.
    pub(super) async fn settle<T: Send>(
        self,
        hold: Hold,
        ended: Ended,
        verdict: Verdict<T>,
        reply: oneshot::Sender<Verdict<T>>,
    ) {
        let Self { engine, mut slot, ask, .. } = self;
        slot.settles();
        let ended = engine.judged(ended);
        if let Err(error) = engine.record(&ask, &hold, &ended).await {
            // The effect took place: the real answer is given. The claim stays, so that nothing runs again, and this
            // process remembers the outcome until the store knows it.
            engine.unrecorded(&ask, &error);
            slot.remember(match ended {
                Ended::Released => End::Refused(Refusal::Unavailable),
                _ => end_of(ended.clone(), &ask),
            });
            let _ = reply.send(verdict);
            Box::pin(engine.record_later(ask, hold, ended)).await;
            return;
        }
        slot.end(end_of(ended, &ask));
        let _ = reply.send(verdict);
    }

    /// Gives back a claim under which nothing ran. What an earlier attempt did is as unknown as before.
    pub(super) async fn give_back(&self, hold: &Hold, rerun: Rerun) {
        let ended = if rerun == Rerun::Yes { Ended::Unknown } else { Ended::Released };
        if let Err(error) = self.engine.record(&self.ask, hold, &ended).await {
            self.engine.refusal(&self.ask, &error);
        }
    }
}

impl<St: Store> Engine<St> {
    /// A run that was cut short may run again where the policy says so.
    fn judged(&self, ended: Ended) -> Ended {
        let Ended::Unknown = ended else { return ended };
        self.count(|tally| &tally.interrupted);
        match &self.policy.on_interrupted {
            OnInterrupted::Refuse | OnInterrupted::Reconcile(_) => Ended::Unknown,
            OnInterrupted::Rerun => Ended::Released,
        }
    }

    async fn record(&self, ask: &Ask, hold: &Hold, ended: &Ended) -> Result<(), StoreError> {
        let mut pauses = backoff::while_waited_for();
        loop {
            let error = match self.record_once(ask, hold, ended).await {
                Ok(Settled::Done) => return Ok(()),
                Ok(Settled::Superseded) => {
                    return Err(StoreError::unavailable("somebody else settled the operation while it ran"));
                }
                Err(error) => error,
            };
            match pauses.next() {
                Some(pause) if may_recover(&*self.store) => tokio::time::sleep(pause).await,
                _ => return Err(error),
            }
        }
    }

    async fn record_once(&self, ask: &Ask, hold: &Hold, ended: &Ended) -> Result<Settled, StoreError> {
        let settlement = match ended {
            Ended::Outcome(_) if laboratory::is_broken(Protection::Record) => {
                return self.store.release(hold.id, hold.fence).await;
            }
            Ended::Outcome(outcome) => Settlement::Outcome(outcome.clone()),
            Ended::Consumed { status } => Settlement::Consumed { status: *status },
            // The slot was the claim.
            Ended::Released | Ended::Unknown if !hold.recorded => return Ok(Settled::Done),
            Ended::Released => return self.store.release(hold.id, hold.fence).await,
            Ended::Unknown => return self.store.interrupt(hold.id, hold.fence).await,
        };
        let retention = self.policy.retention;
        self.store.complete(Completion { hold: *hold, fingerprint: ask.fingerprint, settlement, retention }).await
    }

    fn unrecorded(&self, ask: &Ask, error: &StoreError) {
        self.count(|tally| &tally.unrecorded);
        let source = source(error);
        tracing::error!(
            target: "tower_idempotency", record_id = ask.id.short(), %error, source,
            "answered without a record: retries get the answer until this process ends, and are refused afterwards"
        );
    }

    /// Tries on until the store knows the outcome, or never will.
    async fn record_later(self: Arc<Self>, ask: Ask, hold: Hold, ended: Ended) {
        for pause in backoff::afterwards() {
            if !may_recover(&*self.store) {
                return;
            }
            tokio::time::sleep(pause).await;
            match self.record_once(&ask, &hold, &ended).await {
                // Superseded: the store knows another end, which is the one that counts.
                Ok(Settled::Done | Settled::Superseded) => return self.store.slots().forget(&ask.id),
                Err(_) => {}
            }
        }
    }
}
