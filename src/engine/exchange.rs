//! One request, up to its verdict: it joins a run, is answered from the record, or runs; and then it gets the verdict
//! here, from the run that it has spawned or joined. Rule 2 of section 3 of `docs/design.md` says why it looks at the
//! slot twice.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{Instrument as _, Span, field};

use super::drive::drive;
use super::engine::{Caller, Engine, millis};
use super::event::Facts;
use super::met::Met;
use super::run::{Run, Work};
use super::verdict::{Unanswered, Verdict};
use super::watch::wait_elsewhere;
use crate::record::{Cause, Operation, Origin};
use crate::slots::{Attempt, End, Ended, Entered, Event, Phase, SharedPhase, Waiter};
use crate::store::{Store, StoreError};
use crate::timeouts::{STORE_TIMEOUT, within};

/// Creates the span of one exchange. Fields that are not known yet are recorded later.
pub(crate) fn span() -> Span {
    tracing::debug_span!(
        target: "tower_idempotency", "exchange", record_id = field::Empty, label = field::Empty,
        outcome = field::Empty, waited_ms = field::Empty, ran_ms = field::Empty
    )
}

/// The beginning of an exchange. Whatever the work holds, such as a permit of an inner concurrency limit, is dropped by
/// now, unless the request runs.
enum Begun<T> {
    /// The request has its verdict.
    Over(Verdict<T>),
    /// The request has met a run, for which it may wait.
    Met(Waiter),
    /// The request runs. If the run is dropped without a reply, its phase says how it ended, and this is its origin.
    Run(oneshot::Receiver<Verdict<T>>, SharedPhase, Origin),
}

impl<St: Store> Engine<St> {
    /// Brings a request to its verdict, and returns also how long it has waited for another one's run. `work` is called
    /// at most once, and only if this request runs. A run reports its verdict by itself; any other verdict is reported
    /// by the caller, once it knows the client's answer.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing for a run that has begun: it was spawned, and it records its outcome.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` keeps its arguments twice")]
    pub(crate) fn exchange<T: Send + 'static>(
        self: &Arc<Self>,
        span: &Span,
        operation: Operation,
        caller: Caller,
        work: Box<dyn Work<T>>,
    ) -> impl Future<Output = (Verdict<T>, Option<Duration>)> + Send {
        async move {
            let mut began = Instant::now();
            let deadline = began + STORE_TIMEOUT;
            let begun = if span.is_disabled() {
                self.begin(span, &operation, &caller, work, deadline).await
            } else {
                // `short` makes a text, which a span that is switched off does not need.
                span.record("record_id", operation.id.short());
                Box::pin(self.begin(span, &operation, &caller, work, deadline).instrument(span.clone())).await
            };
            // Only a request that waited for another's run gets `waited_ms` in its span.
            let mut has_waited = false;
            let mut verdict = match begun {
                Begun::Over(verdict) => verdict,
                Begun::Met(waiter) => {
                    (began, has_waited) = (Instant::now(), true);
                    Box::pin(waiter.join(&operation.fingerprint, self.policy.wait_timeout())).await.into()
                }
                Begun::Run(reply, phase, origin) => match reply.await {
                    Ok(verdict) => verdict,
                    Err(_) => Box::pin(self.last_word(span, &operation, phase, origin)).await,
                },
            };
            if let Verdict::Unanswered { why: Unanswered::InFlight, .. } = verdict
                && !self.store.is_exclusive()
            {
                // Another process has the run, unless this request has already waited long enough for a run of this
                // process.
                let timeout = self.policy.wait_timeout().saturating_sub(began.elapsed());
                if !has_waited {
                    (began, has_waited) = (Instant::now(), true);
                }
                verdict = Box::pin(wait_elsewhere(self, &operation, timeout)).await.into();
            }
            let waited = has_waited.then(|| began.elapsed());
            if let Some(waited) = waited {
                span.record("waited_ms", millis(waited));
                if !self.policy.wait_timeout().is_zero()
                    && !matches!(verdict, Verdict::Unanswered { why: Unanswered::Mismatch(_), .. })
                {
                    self.telemetry().happened(Event::Waited(waited));
                }
            }
            if let Some(part) = verdict.differs() {
                self.store.slots().mismatches.note(operation.id, part, self.store.now());
            }
            if let Verdict::Outcome { is_own: false, .. } = verdict
                && !self.policy.asks_before_replay
            {
                self.telemetry().happened(Event::Replayed(began));
            }
            (verdict, waited)
        }
    }

    /// Looks at the slot, the store, and the slot again, and begins a run if the operation has none.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` keeps its arguments twice")]
    fn begin<T: Send + 'static>(
        self: &Arc<Self>,
        span: &Span,
        operation: &Operation,
        caller: &Caller,
        work: Box<dyn Work<T>>,
        deadline: Instant,
    ) -> impl Future<Output = Begun<T>> + Send {
        async move {
            if let Some(waiter) = self.store.slots().look(&operation.id) {
                return Begun::Met(waiter);
            }
            // Slot, record, slot: a record that was read between two looks at a free slot is durable.
            let loaded = if self.store.is_exclusive() {
                // A look-up that hangs must leave time for the claim. The claim finds the record by itself.
                within(Some(deadline - STORE_TIMEOUT / 2), self.store.load(operation.id)).await
            } else {
                // A look-up would cost as much as the claim, and the claim returns the record if there is one.
                Some(Ok(self.store.recall(operation.id)))
            };
            let (slots, id) = (self.store.slots(), &operation.id);
            if let Some(waiter) = slots.look(id) {
                return Begun::Met(waiter);
            }
            let (policy, fingerprint) = (&self.policy, &operation.fingerprint);
            let known = match loaded {
                Some(Ok(Some(record))) if Met { policy, fingerprint, record: &record }.is_answer() => {
                    Met { policy, fingerprint, record: &record }.report_not_rerun(self, id);
                    return Begun::Over(Ended::from(self.presented(record)).result_for(fingerprint).into());
                }
                Some(Err(error @ StoreError::Corrupt { .. })) => {
                    return Begun::Over(self.log_and_refuse(id, &error).into());
                }
                // There is no record, or it needs a step under the slot, or the store is away. The claim finds out
                // which.
                loaded => matches!(loaded, Some(Ok(Some(_)))),
            };
            if slots.unsaved.is_crowded() {
                return Begun::Over(self.overloaded("too many outcomes could not be recorded yet").into());
            }
            let slot = match slots.take(*id, self.policy.max_runs, caller.client) {
                Entered::Mine(slot) => slot,
                Entered::Occupied(waiter) => return Begun::Met(waiter),
                Entered::Full(reason) => return Begun::Over(self.overloaded(reason).into()),
            };
            let (reply, verdict) = oneshot::channel();
            let (engine, phase) = (Arc::clone(self), slot.phase());
            if known {
                phase.note_record();
            }
            let mut operation = operation.clone();
            if let Some(origin) = work.origin() {
                operation.origin = origin;
            }
            if !span.is_disabled()
                && let Some(label) = operation.origin.label()
            {
                span.record("label", label);
            }
            let (origin, span) = (operation.origin.clone(), span.clone());
            let run = Run { engine, slot, operation, attempt: 0, is_within: caller.is_within, deadline, span };
            let run = Box::pin(drive(Box::new(run), work, reply));
            self.spawn(run);
            Begun::Run(verdict, phase, origin)
        }
    }

    /// Returns the verdict of a run that ended without a reply: its runtime is shutting down, or a hook dropped it. The
    /// slot has the run's end.
    async fn last_word<T>(&self, span: &Span, operation: &Operation, phase: SharedPhase, origin: Origin) -> Verdict<T> {
        if let Phase::Ended(ended) = phase.reach(|phase| matches!(phase, Phase::Ended(_))).await
            && let Ok((End::Refused(refusal), _)) = ended.result_for(&operation.fingerprint)
        {
            return refusal.into();
        }
        let attempt = Attempt { number: 0, origin };
        let verdict = Verdict::own_end(End::Interrupted { cause: Cause::Shutdown }, attempt.clone());
        let facts = Facts { id: Some(&operation.id), attempt: Some(&attempt), ..Facts::default() };
        self.report(span, verdict.name(), facts);
        verdict
    }
}
