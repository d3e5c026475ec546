//! One request's way to its verdict: slot, store, slot again; then joined, answered from the record, or run.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument as _, field};

use super::context::RunContext;
use super::engine::{Ask, Engine, STORE_TIMEOUT, millis};
use super::policy::OnInFlight;
use super::run::Run;
use super::verdict::{Finished, Verdict};
use crate::record::State;
use crate::slots::{End, Entered, Joined, Phase, Waiter};
use crate::store::{Store, StoreError};

impl<St: Store> Engine<St> {
    /// Brings a request to its verdict, in a span of its own. `work` is called at most once, and only for the request
    /// that runs.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing for a run that has begun: it was spawned, and records what it produces.
    pub(crate) async fn exchange<W, F, T>(self: &Arc<Self>, ask: Ask, work: W) -> Verdict<T>
    where
        W: FnOnce(RunContext) -> F + Send + 'static,
        F: Future<Output = Finished<T>> + Send + 'static,
        T: Send + 'static,
    {
        let span = tracing::info_span!(
            target: "tower_idempotency", "exchange", record_id = field::Empty, outcome = field::Empty,
            waited_ms = field::Empty, ran_ms = field::Empty
        );
        if !span.is_disabled() {
            span.record("record_id", ask.id.short());
        }
        let verdict = self.decide(ask, work).instrument(span.clone()).await;
        span.record("outcome", verdict.name());
        if let Verdict::Replayed(_) = verdict {
            self.count(|tally| &tally.replays);
        }
        verdict
    }

    async fn decide<W, F, T>(self: &Arc<Self>, ask: Ask, work: W) -> Verdict<T>
    where
        W: FnOnce(RunContext) -> F + Send + 'static,
        F: Future<Output = Finished<T>> + Send + 'static,
        T: Send + 'static,
    {
        let slots = self.store.slots();
        // What the work holds, such as an inner concurrency limit's permit, is given back before anybody waits.
        if let Some(waiter) = slots.look(&ask.id) {
            drop(work);
            return self.join(waiter, &ask).await;
        }
        // Slot, record, slot: a record seen between two looks at a free slot is durable.
        let deadline = Instant::now() + STORE_TIMEOUT;
        let loaded = timeout_at(deadline, self.store.load(ask.id)).await;
        if let Some(waiter) = slots.look(&ask.id) {
            drop(work);
            return self.join(waiter, &ask).await;
        }
        match loaded {
            Ok(Ok(Some(record))) if matches!(record.state, State::Completed { .. } | State::Consumed { .. }) => {
                return Verdict::of_record(record, &ask.fingerprint);
            }
            Ok(Err(error @ StoreError::Corrupt { .. })) => return Verdict::Refused(self.refusal(&ask, &error)),
            // New, to be settled under the slot, or the store is away, which the claim will say.
            _ => {}
        }
        match slots.take(ask.id) {
            Entered::Taken(waiter) => {
                drop(work);
                self.join(waiter, &ask).await
            }
            Entered::Mine(slot) => {
                let (reply, verdict) = oneshot::channel();
                let phase = slot.watch();
                let run = Run { engine: Arc::clone(self), slot, ask, deadline };
                self.spawn(Box::pin(run.drive(work, reply)));
                // Gone without a word: its runtime is shutting down, or a hook dropped it.
                verdict.await.unwrap_or_else(|_| match &*phase.borrow() {
                    Phase::Ended(End::Refused(refusal)) => Verdict::Refused(*refusal),
                    _ => Verdict::CutShort,
                })
            }
        }
    }

    fn spawn(&self, run: BoxFuture<'static, ()>) {
        let run = match &self.wrap_run {
            Some(wrap) => wrap(run),
            None => run,
        };
        tokio::spawn(run.in_current_span());
    }

    async fn join<T>(&self, waiter: Waiter, ask: &Ask) -> Verdict<T> {
        let patience = match self.policy.on_in_flight {
            OnInFlight::Wait(patience) => patience,
            OnInFlight::Reject => Duration::ZERO,
        };
        let began = Instant::now();
        let joined = waiter.join(&ask.fingerprint, patience).await;
        tracing::Span::current().record("waited_ms", millis(began.elapsed()));
        match joined {
            Joined::Ended(end) => Verdict::of_end(end, &ask.fingerprint),
            Joined::Mismatch(found) => Verdict::Mismatch(found),
            Joined::InFlight => Verdict::InFlight,
        }
    }
}
