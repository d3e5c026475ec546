//! The way of one request to its verdict: it looks at the slot, the store, and the slot again; then it joins a run, is
//! answered from the record, or runs.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{Instrument as _, Span, field};

use super::engine::{Engine, Presented, millis};
use super::policy::OnInFlight;
use super::run::{Run, Work};
use super::verdict::Verdict;
use crate::laboratory::{self, Protection};
use crate::slots::{End, Ended, Entered, Phase, SharedPhase};
use crate::store::{Store, StoreError};
use crate::within::STORE_TIMEOUT;
use crate::within::within;

/// Creates the span of one exchange. Fields that are not known yet are recorded later.
pub(crate) fn span() -> Span {
    tracing::info_span!(
        target: "tower_idempotency", "exchange", record_id = field::Empty, outcome = field::Empty,
        waited_ms = field::Empty, ran_ms = field::Empty
    )
}

impl<St: Store> Engine<St> {
    /// Brings a request to its verdict. `work` is called at most once, and only if this request runs. A run records its
    /// verdict in `span` by itself; any other verdict is recorded by the caller, once it knows the client's answer.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing for a run that has begun: it was spawned, and it records its outcome.
    pub(crate) async fn exchange<T: Send + 'static>(
        self: &Arc<Self>,
        span: &Span,
        presented: Presented,
        work: impl Work<T>,
    ) -> Verdict<T> {
        if !span.is_disabled() {
            // `short` makes a text, which a span that is switched off does not need.
            span.record("record_id", presented.id.short());
        }
        let began = Instant::now();
        // Only a request that waited for another's run gets `waited_ms` in its span.
        let mut has_waited = false;
        let verdict = async {
            let slots = self.store.slots();
            // The block ends with a run that this request has met. In all other cases it returns the verdict.
            let waiter = 'met: {
                if let Some(waiter) = slots.look(&presented.id) {
                    break 'met waiter;
                }
                // Slot, record, slot: a record that was read between two looks at a free slot is durable.
                let deadline = began + STORE_TIMEOUT;
                let loaded = if self.store.is_exclusive() {
                    // A look-up that hangs must leave time for the claim. The claim finds the record by itself.
                    within(Some(deadline - STORE_TIMEOUT / 2), self.store.load(presented.id)).await
                } else {
                    // A look-up would cost as much as the claim, and the claim returns the record if there is one.
                    Some(Ok(self.store.recall(presented.id)))
                };
                if let Some(waiter) = slots.look(&presented.id) {
                    break 'met waiter;
                }
                let known = match loaded {
                    Some(Ok(Some(record))) if self.is_answered_by(&presented, &record) => {
                        self.report_not_rerun(&presented, &record);
                        return Ended::from(record).result_for(&presented.fingerprint).into();
                    }
                    Some(Err(error @ StoreError::Corrupt { .. })) => {
                        return self.log_and_refuse(&presented, &error).into();
                    }
                    // There is no record, or it needs a step under the slot, or the store is away. The claim finds out
                    // which.
                    loaded => matches!(loaded, Some(Ok(Some(_)))),
                };
                if slots.remembered.is_crowded() {
                    return self.overloaded("too many outcomes could not be recorded yet").into();
                }
                let slot = match slots.take(presented.id, self.policy.max_runs, presented.client) {
                    Entered::Mine(slot) => slot,
                    Entered::Taken(waiter) => break 'met waiter,
                    Entered::Full(reason) => return self.overloaded(reason).into(),
                };
                let (reply, verdict) = oneshot::channel();
                // If the run is dropped without a reply, its phase says how it ended.
                let phase = slot.phase();
                let (engine, known) = (Arc::clone(self), Arc::new(AtomicBool::new(known)));
                let run = Box::new(Run { engine, slot, presented, known, deadline, span: span.clone() });
                let run = Box::pin(run.drive(None, work, reply));
                // Only a laboratory runs it here, to show that its tests notice a run that ends with its requester.
                if laboratory::is_broken(Protection::Detached) {
                    run.await;
                } else {
                    self.spawn(run);
                }
                return match verdict.await {
                    Ok(verdict) => verdict,
                    Err(_) => Box::pin(last_word(span, &presented, phase)).await,
                };
            };
            // The work may hold something, such as a permit of an inner concurrency limit. It is dropped before the
            // wait begins.
            drop(work);
            has_waited = true;
            Box::pin(waiter.join(&presented.fingerprint, self.patience())).await.into()
        };
        let mut verdict = verdict.instrument(span.clone()).await;
        if let Verdict::Met(End::InFlight) = verdict
            && !self.store.is_exclusive()
        {
            // Another process has the run, unless this request has already waited long enough for a run of this
            // process.
            let patience = self.patience().saturating_sub(began.elapsed());
            has_waited = true;
            verdict = Box::pin(self.wait_elsewhere(&presented, patience)).await.into();
        }
        if has_waited {
            span.record("waited_ms", millis(began.elapsed()));
        }
        // The request's own run gives `Answered` or `Committed`, so this outcome is another run's.
        if let Verdict::Met(End::Outcome(_)) = verdict {
            self.count(|tally| &tally.replays);
        }
        verdict
    }

    /// Spawns a run in a task of its own, in the present span. A layer's `wrap_run` may wrap it.
    pub(super) fn spawn(&self, run: BoxFuture<'static, ()>) {
        let run = match &self.wrap_run {
            Some(wrap) => wrap(run),
            None => run,
        };
        laboratory::spawn(run.in_current_span());
    }

    /// Returns how long a duplicate waits for a run.
    fn patience(&self) -> Duration {
        match self.policy.on_in_flight {
            OnInFlight::Wait(patience) => patience,
            OnInFlight::Reject => Duration::ZERO,
        }
    }
}

/// Returns the verdict of a run that ended without a reply: its runtime is shutting down, or a hook dropped it. The
/// slot has the run's end.
async fn last_word<T>(span: &Span, presented: &Presented, phase: SharedPhase) -> Verdict<T> {
    if let Phase::Ended(ended) = phase.reach(|phase| matches!(phase, Phase::Ended(_))).await
        && let Ok(End::Refused(refusal)) = ended.result_for(&presented.fingerprint)
    {
        return refusal.into();
    }
    span.record("outcome", Verdict::<T>::Interrupted.name());
    Verdict::Interrupted
}
