//! A run that `fail_open` lets go ahead while the store is away, and how its end is recorded all the same.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::claim::{Acquired, hold};
use super::context::RunContext;
use super::engine::{Engine, Presented};
use super::run::{Run, Work, Worked};
use super::settle::RememberedEnd;
use super::verdict::Verdict;
use crate::key::RecordId;
use crate::record::{Applied, Hold, Owner, Record, Reply, State, Transition};
use crate::slots::{End, Refusal, once_a_minute};
use crate::store::Store;
use crate::store::recording::until_answered;
use crate::within::STORE_TIMEOUT;

impl<St: Store> Run<St> {
    /// Runs without the store, as `fail_open` allows, and records how the run ended: under the claim that is under way,
    /// if the store grants it, else under a claim that is made when the store is back. Duplicates that come meanwhile
    /// share the outcome. `session` is the session that was held before the claim.
    pub(super) async fn unprotected<W: Work<T>, T: Send>(
        self: Box<Self>,
        session: Option<RecordId>,
        work: W,
        reply: oneshot::Sender<Verdict<T>>,
        claiming: impl Future<Output = Result<Acquired, Refusal>> + Send,
    ) {
        self.engine.count(|tally| &tally.unprotected);
        once_a_minute!(
            self.engine.lines().unprotected,
            warn,
            record_id = self.presented.id.short(),
            "the store is away and fail_open is set: the handler runs unprotected"
        );
        let (context, over) = RunContext::unprotected(&self.presented);
        // No process can take over an operation that has no claim. The claim stays under way: once the store grants it
        // to this run, another process may take the operation over.
        let mut claiming = pin!(claiming);
        let began = Instant::now();
        let (Worked { end, verdict, ran }, claimed) =
            match select(pin!(self.work(work, context, None, None)), claiming.as_mut()).await {
                Either::Left((worked, _)) => (worked, None),
                Either::Right((claimed, working)) => {
                    let session = session.filter(|_| matches!(claimed, Ok(Acquired::Run(..))));
                    let worked = self.unless_stopped(session, working).await;
                    (worked.unwrap_or_else(|| self.interrupted(began.elapsed())), Some(claimed))
                }
            };
        // If the claim has not ended during the work, it is waited for after the answer.
        let claiming = async move {
            match claimed {
                Some(claimed) => claimed,
                None => claiming.await,
            }
        };
        // From now on the handler's context says that the run is over.
        drop(over);
        self.report(&verdict, ran);
        let end = self.engine.count_and_judge(&self.presented, end);
        let slots = self.engine.store.slots();
        // Half of the room is kept for the ends of protected runs, which must be remembered.
        if matches!(end, End::Released) || !slots.remembered.has_plenty_of_room() {
            let _ = reply.send(verdict);
            return self.unremembered(end, claiming).await;
        }
        let Self { engine, slot, presented, .. } = *self;
        let (remembered, _) = engine.remember(slot, presented.ended(end.clone()));
        let _ = reply.send(verdict);
        let granted = match claiming.await {
            Ok(Acquired::Run(hold, ..)) => Some(hold),
            Ok(Acquired::Found(_)) => return engine.outdone(&presented, &remembered),
            // The claim has failed: `record_unprotected` makes another one.
            Err(_) => None,
        };
        engine.record_unprotected(&presented, &end, granted, remembered).await;
    }

    /// Ends a run that leaves nothing to remember, or for which there is no room. If its claim is granted late, the
    /// claim is settled.
    async fn unremembered(self: Box<Self>, end: End, claiming: impl Future<Output = Result<Acquired, Refusal>> + Send) {
        match (claiming.await, &end) {
            (Ok(Acquired::Run(hold, rerun, ..)), End::Released) => self.give_back(&hold, rerun).await,
            (Ok(Acquired::Run(hold, ..)), _) => {
                let transition = self.engine.ending(&self.presented, &hold, &end);
                // The slot is kept meanwhile: otherwise a retry would find the run interrupted. If the store does not
                // record the end, the run counts as interrupted for other processes.
                if let Err(pending) = self.engine.record(hold.id, transition).await {
                    let _ = pending.answer.await;
                }
                self.end(end);
            }
            (Ok(Acquired::Found(_)) | Err(_), _) => self.end(end),
        }
    }
}

impl<St: Store> Engine<St> {
    /// Records how a run ended that had no claim, or was `granted` one late. Tries again until the store has taken it,
    /// or the end is about to be forgotten.
    async fn record_unprotected(
        &self,
        presented: &Presented,
        end: &End,
        granted: Option<Hold>,
        remembered: RememberedEnd,
    ) {
        let hold = match granted {
            Some(hold) => hold,
            None => match self.claim_late(presented).await {
                Some(Ok(hold)) => hold,
                Some(Err(_)) => return self.outdone(presented, &remembered),
                // The store can't answer any more. The end is remembered until the retention is over.
                None => return,
            },
        };
        let transition = self.ending(presented, &hold, end);
        match self.record(presented.id, transition).await {
            Ok(Applied { reply: Reply::Refused, .. }) => self.outdone(presented, &remembered),
            recorded => self.free_once_recorded(recorded, remembered).await,
        }
    }

    /// Claims an operation that has run already. Returns the record that is there if it is another's, and `None` if the
    /// store does not answer.
    async fn claim_late(&self, presented: &Presented) -> Option<Result<Hold, Box<Record>>> {
        let claim = || Transition::Claim(self.wish(presented, Instant::now() + STORE_TIMEOUT));
        loop {
            let Applied { reply, record } =
                until_answered(&*self.store, presented.id, claim, Duration::ZERO, self.retries_for()).await?;
            // If there is no record, the one that the claim met has expired meanwhile.
            if let Some(record) = record {
                // This process remembers the operation, so that no other run of it is there: the claim that seemed to
                // have failed was made.
                let is_own = matches!(record.state, State::Running { .. }) && record.owner == Owner::Here;
                let is_held = reply == Reply::Taken || is_own;
                return Some(if is_held { Ok(hold(presented, &record)) } else { Err(Box::new(record)) });
            }
        }
    }

    /// Handles a store that has another record of the operation. That record counts, and the effects of the unprotected
    /// run are additional.
    fn outdone(&self, presented: &Presented, remembered: &RememberedEnd) {
        once_a_minute!(
            self.lines().outdone,
            error,
            record_id = presented.id.short(),
            "an operation that ran unprotected was claimed elsewhere meanwhile, and may have taken effect twice; the \
             outcome of the unprotected run is not recorded"
        );
        self.forget(remembered);
    }
}
