//! One request's way to its verdict: slot, store, slot again; then joined, answered from the record, or run.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tracing::{Instrument as _, Span, field};

use super::engine::{Ask, Engine, STORE_TIMEOUT, millis};
use super::policy::OnInFlight;
use super::run::{Run, Work};
use super::verdict::Verdict;
use crate::laboratory::{self, Protection};
use crate::slots::{End, Entered, Joined, Phase, Waiter};
use crate::store::{Store, StoreError};
use crate::within::within;

/// The span of one exchange. What is not known yet is recorded later.
pub(crate) fn span() -> Span {
    tracing::info_span!(
        target: "tower_idempotency", "exchange", record_id = field::Empty, outcome = field::Empty,
        waited_ms = field::Empty, ran_ms = field::Empty
    )
}

impl<St: Store> Engine<St> {
    /// Brings a request to its verdict; `span` is told of it. `work` is called at most once, and only for the request
    /// that runs.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing for a run that has begun: it was spawned, and records what it produces.
    pub(crate) async fn exchange<T: Send + 'static>(
        self: &Arc<Self>,
        span: &Span,
        ask: Ask,
        work: impl Work<T>,
    ) -> Verdict<T> {
        if !span.is_disabled() {
            span.record("record_id", ask.id.short());
        }
        let verdict = self.decide(span, &ask, work).instrument(span.clone()).await;
        if !verdict.is_of_own_run() {
            span.record("outcome", verdict.name());
        }
        if let Verdict::Replayed(_) = verdict {
            self.count(|tally| &tally.replays);
        }
        verdict
    }

    async fn decide<T: Send + 'static>(self: &Arc<Self>, span: &Span, ask: &Ask, work: impl Work<T>) -> Verdict<T> {
        let slots = self.store.slots();
        // What the work holds, such as an inner concurrency limit's permit, is given back before anybody waits.
        if let Some(waiter) = slots.look(&ask.id) {
            drop(work);
            return Box::pin(self.join(span, waiter, ask)).await;
        }
        // Slot, record, slot: a record seen between two looks at a free slot is durable.
        let deadline = Instant::now() + STORE_TIMEOUT;
        let known = {
            // A look-up that hangs leaves time for the claim, which finds out by itself.
            let loaded = within(Some(deadline - STORE_TIMEOUT / 2), self.store.load(ask.id)).await;
            if let Some(waiter) = slots.look(&ask.id) {
                drop(work);
                return Box::pin(self.join(span, waiter, ask)).await;
            }
            match loaded {
                Some(Ok(Some(record))) if self.is_answered_by(ask, &record) => {
                    return Verdict::of_record(record, &ask.fingerprint);
                }
                Some(Err(error @ StoreError::Corrupt { .. })) => return Verdict::Refused(self.refusal(ask, &error)),
                // New, to be settled under the slot, or the store is away, which the claim will say.
                loaded => matches!(loaded, Some(Ok(Some(_)))),
            }
        };
        if slots.is_crowded() {
            return Verdict::Refused(self.overloaded("too many outcomes could not be recorded yet"));
        }
        let (verdict, phase) = match slots.take(ask.id, self.policy.max_runs) {
            Entered::Full => return Verdict::Refused(self.overloaded("there are max_runs runs")),
            Entered::Taken(waiter) => {
                drop(work);
                return Box::pin(self.join(span, waiter, ask)).await;
            }
            Entered::Mine(slot) => {
                let (reply, verdict) = oneshot::channel();
                let phase = slot.watch();
                let (engine, known, span) = (Arc::clone(self), Arc::new(AtomicBool::new(known)), span.clone());
                let run = Box::new(Run { engine, slot, ask: *ask, known, deadline, span });
                let run = Box::pin(run.drive(work, reply));
                if laboratory::is_broken(Protection::Detached) {
                    run.await;
                } else {
                    self.spawn(run);
                }
                (verdict, phase)
            }
        };
        match verdict.await {
            Ok(verdict) => verdict,
            Err(_) => Box::pin(last_word(span, phase)).await,
        }
    }

    pub(super) fn spawn(&self, run: BoxFuture<'static, ()>) {
        let run = match &self.wrap_run {
            Some(wrap) => wrap(run),
            None => run,
        };
        laboratory::spawn(run.in_current_span());
    }

    async fn join<T>(&self, span: &Span, waiter: Waiter, ask: &Ask) -> Verdict<T> {
        let patience = match self.policy.on_in_flight {
            OnInFlight::Wait(patience) => patience,
            OnInFlight::Reject => Duration::ZERO,
        };
        let began = Instant::now();
        let joined = waiter.join(&ask.fingerprint, patience).await;
        span.record("waited_ms", millis(began.elapsed()));
        match joined {
            Joined::Ended(end) => Verdict::of_end(end, &ask.fingerprint),
            Joined::Mismatch(found) => Verdict::Mismatch(found),
            Joined::InFlight => Verdict::InFlight,
        }
    }
}

/// What is said of a run that is gone without a word: its runtime is shutting down, or a hook dropped it. Its slot says it.
async fn last_word<T>(span: &Span, mut phase: watch::Receiver<Phase>) -> Verdict<T> {
    match phase.wait_for(|phase| matches!(phase, Phase::Ended(_))).await.as_deref() {
        Ok(Phase::Ended(End::Refused(refusal))) => Verdict::Refused(*refusal),
        _ => {
            span.record("outcome", Verdict::<T>::CutShort.name());
            Verdict::CutShort
        }
    }
}
