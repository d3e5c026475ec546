//! Recording how a run ended, before anybody is told.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::backoff::{self, may_recover};
use super::context::Rerun;
use super::engine::{Ask, Engine, STORE_TIMEOUT, source};
use super::policy::OnInterrupted;
use super::run::{Run, end_of};
use super::verdict::{Ended, Verdict};
use crate::laboratory::{self, Protection};
use crate::record::{Completion, Hold, Settled, Settlement};
use crate::slots::{End, Kept, Refusal};
use crate::store::{Store, StoreError};

impl<St: Store> Run<St> {
    /// Records how it ended.
    pub(super) async fn settle(&mut self, hold: &Hold, ended: &Ended) -> Result<(), StoreError> {
        self.slot.settles(self.engine.policy.retention);
        self.engine.record(&self.ask, hold, ended).await
    }

    /// The effect took place: the real answer is given. The claim stays, so that nothing runs again, and this process
    /// remembers the outcome until the store knows it.
    pub(super) async fn unrecorded<T: Send>(
        self: Box<Self>,
        hold: Hold,
        ended: Ended,
        error: StoreError,
        verdict: Verdict<T>,
        reply: oneshot::Sender<Verdict<T>>,
    ) {
        let Self { engine, slot, ask, .. } = *self;
        engine.report_unrecorded(&ask, &error);
        let (turn, retrying) = (slot.turn(), engine.store.slots().retrying());
        let end = match ended {
            Ended::Released => End::Refused(Refusal::Unavailable),
            _ => end_of(ended.clone(), &ask),
        };
        let kept = slot.remember(end, engine.policy.retention);
        let _ = reply.send(verdict);
        match kept {
            Kept::Whole => engine.record_later(ask, hold, ended, turn).await,
            // Without a claim in the store there is nothing to be said there: this process alone keeps it from running again.
            Kept::Emptied if !hold.recorded => {}
            Kept::Emptied => {
                drop(ended);
                engine.record_later(ask, hold, Ended::Unknown { status: None }, turn).await;
            }
        }
        drop(retrying);
    }

    /// Gives back a claim under which nothing ran. What an earlier attempt did is as unknown as before.
    pub(super) async fn give_back(&self, hold: &Hold, rerun: Rerun) {
        let ended = if rerun == Rerun::Yes { Ended::Unknown { status: None } } else { Ended::Released };
        if let Err(error) = self.engine.record(&self.ask, hold, &ended).await {
            self.engine.refusal(&self.ask, &error);
        }
    }
}

impl<St: Store> Engine<St> {
    /// A run of which nobody knows how it ended may run again where the policy says so.
    pub(super) fn judged(&self, ask: &Ask, ended: Ended) -> Ended {
        let Ended::Unknown { status } = ended else { return ended };
        self.count(|tally| &tally.interrupted);
        if let Some(status) = status {
            self.report_unknown(ask, status);
        }
        match &self.policy.on_interrupted {
            OnInterrupted::Refuse | OnInterrupted::Reconcile(_) => ended,
            OnInterrupted::Rerun => Ended::Released,
        }
    }

    /// An outage of what handlers call makes thousands of them: one line a minute for all.
    fn report_unknown(&self, ask: &Ask, status: u16) {
        self.count(|tally| &tally.unknown);
        if let Some(count) = self.store.slots().tally.unknown_lines.due() {
            tracing::warn!(
                target: "tower_idempotency", record_id = ask.id.short(), status, count,
                "a handler's answer means that nobody knows whether the operation took effect; `count` of them since the \
                 last such line, of which there is at most one a minute"
            );
        }
    }

    async fn record(&self, ask: &Ask, hold: &Hold, ended: &Ended) -> Result<(), StoreError> {
        let settled = match self.record_once(ask, hold, ended).await {
            Ok(settled) => settled,
            Err(error) => Box::pin(self.record_again(ask, hold, ended, error)).await?,
        };
        match settled {
            Settled::Done => Ok(()),
            Settled::Superseded => Err(StoreError::unavailable("somebody else settled the operation while it ran")),
        }
    }

    /// Tries on after an error, while the requester waits.
    async fn record_again(
        &self,
        ask: &Ask,
        hold: &Hold,
        ended: &Ended,
        mut error: StoreError,
    ) -> Result<Settled, StoreError> {
        for pause in backoff::while_waited_for() {
            if !may_recover(&*self.store) {
                break;
            }
            tokio::time::sleep(pause).await;
            match self.record_once(ask, hold, ended).await {
                Ok(settled) => return Ok(settled),
                Err(again) => error = again,
            }
        }
        Err(error)
    }

    async fn record_once(&self, ask: &Ask, hold: &Hold, ended: &Ended) -> Result<Settled, StoreError> {
        let settlement = match ended {
            Ended::Outcome(_) if laboratory::is_broken(Protection::Record) => {
                return self.store.release(hold.id, hold.fence).await;
            }
            Ended::Outcome(outcome) => Settlement::Outcome(outcome.clone()),
            Ended::Consumed { status } => Settlement::Consumed { status: *status },
            // The slot was the claim.
            Ended::Released | Ended::Unknown { .. } if !hold.recorded => return Ok(Settled::Done),
            Ended::Released => return self.store.release(hold.id, hold.fence).await,
            Ended::Unknown { status } => return self.store.interrupt(hold.id, hold.fence, *status).await,
        };
        let retention = self.policy.retention;
        self.store.complete(Completion { hold: *hold, fingerprint: ask.fingerprint, settlement, retention }).await
    }

    fn report_unrecorded(&self, ask: &Ask, error: &StoreError) {
        self.count(|tally| &tally.unrecorded);
        let source = source(error);
        tracing::error!(
            target: "tower_idempotency", record_id = ask.id.short(), %error, source,
            "answered without a record: retries get the answer until this process ends, and are refused afterwards"
        );
    }

    /// Tries on until the store knows the outcome, or never will, or nobody wants to know it any more.
    async fn record_later(self: Arc<Self>, ask: Ask, hold: Hold, ended: Ended, turn: u64) {
        let began = Instant::now();
        for pause in backoff::afterwards() {
            tokio::time::sleep(pause).await;
            if !may_recover(&*self.store) || is_outdated(began, self.policy.retention) {
                return;
            }
            match self.record_once(&ask, &hold, &ended).await {
                // Superseded: the store knows another end, which is the one that counts.
                Ok(Settled::Done | Settled::Superseded) => return self.store.slots().forget(&ask.id, turn),
                Err(_) => {}
            }
        }
    }
}

/// Whether what was remembered since then is about to be forgotten: it is not recorded any more, as a newer run may begin.
pub(super) fn is_outdated(since: Instant, retention: Duration) -> bool {
    since.elapsed() + STORE_TIMEOUT >= retention
}
