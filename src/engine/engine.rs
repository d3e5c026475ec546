//! The engine: one request's way to its verdict.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument as _, field};

use super::context::RunContext;
use super::policy::{OnInFlight, OnInterrupted, Policy};
use super::run::Run;
use super::verdict::{Finished, Verdict};
use crate::fingerprint::Fingerprint;
use crate::key::RecordId;
use crate::record::{Fence, Resolution, Settled, State};
use crate::slots::{End, Entered, Joined, Phase, Refusal, Waiter};
use crate::store::{Store, StoreError};

/// How long the store may take to answer before the requester is told that it is away.
pub(super) const STORE_TIMEOUT: Duration = Duration::from_secs(5);

/// Through which a run's future passes before it is spawned.
pub(crate) type WrapRun = Arc<dyn Fn(BoxFuture<'static, ()>) -> BoxFuture<'static, ()> + Send + Sync>;

/// A store and how it is used.
pub(crate) struct Engine<St> {
    pub(crate) store: Arc<St>,
    pub(crate) policy: Policy,
    pub(crate) wrap_run: Option<WrapRun>,
}

impl<St: fmt::Debug> fmt::Debug for Engine<St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("store", &self.store).field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// Which operation, and what is presented for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    pub(crate) id: RecordId,
    pub(crate) fingerprint: Fingerprint,
}

/// What this process has counted since the store was opened, over all layers on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Handlers started.
    pub runs: u64,
    /// Requests answered with the outcome of an earlier one.
    pub replays: u64,
    /// Runs that were cut short: panics, errors, time-outs.
    pub interrupted: u64,
    /// Answers given though their record could not be written: after a restart, their retries are refused.
    pub unrecorded: u64,
    /// Handlers started without protection, because `fail_open` was chosen and the store was away.
    pub unprotected: u64,
    /// Damaged records met.
    pub corrupt: u64,
    /// Runs under way now.
    pub live: u64,
}

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

    /// What the requester is told of a fault, which is logged here.
    pub(super) fn refusal(&self, ask: &Ask, error: &StoreError) -> Refusal {
        let source = std::error::Error::source(error).map(ToString::to_string);
        tracing::error!(target: "tower_idempotency", record_id = ask.id.short(), %error, source, "the store failed");
        match error {
            StoreError::Full { .. } => Refusal::Full,
            StoreError::Corrupt { .. } => {
                self.count(|tally| &tally.corrupt);
                Refusal::Corrupt
            }
            StoreError::Unavailable { .. } | StoreError::Uncertain { .. } => Refusal::Unavailable,
        }
    }

    pub(super) fn count(&self, which: impl FnOnce(&crate::slots::Tally) -> &AtomicU64) {
        which(&self.store.slots().tally).fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the claim must be durable before the work starts.
    pub(super) fn claims_durably(&self) -> bool {
        match self.policy.on_interrupted {
            OnInterrupted::Refuse => true,
            OnInterrupted::Rerun => false,
        }
    }

    /// Whether a run may go ahead without the store.
    pub(super) fn fails_open(&self) -> bool {
        self.policy.fail_open && !self.store.slots().is_draining()
    }

    /// Refuses new keys from now on, waits for the runs under way, at most `deadline`, and says how many are left.
    pub(crate) async fn drain(&self, deadline: Duration) -> usize {
        let slots = self.store.slots();
        let _ = tokio::time::timeout(deadline, slots.drained()).await;
        slots.live()
    }

    /// Settles an interrupted operation. The slot is held meanwhile, so that nobody is answered from what is not durable.
    pub(crate) async fn resolve(
        &self,
        id: RecordId,
        fence: Fence,
        resolution: Resolution,
    ) -> Result<Settled, StoreError> {
        let Entered::Mine(slot) = self.store.slots().take(id) else {
            return Ok(Settled::Superseded);
        };
        let settled = self.store.resolve(id, fence, resolution).await?;
        // Who has met the slot meanwhile is answered from the record, or told to come again.
        slot.end(match self.store.load(id).await {
            Ok(Some(record)) => End::Found(record),
            Ok(None) | Err(_) => End::Refused(Refusal::Unavailable),
        });
        Ok(settled)
    }

    pub(crate) fn counts(&self) -> Counts {
        let slots = self.store.slots();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let tally = &slots.tally;
        Counts {
            runs: read(&tally.runs),
            replays: read(&tally.replays),
            interrupted: read(&tally.interrupted),
            unrecorded: read(&tally.unrecorded),
            unprotected: read(&tally.unprotected),
            corrupt: read(&tally.corrupt),
            live: slots.live() as u64,
        }
    }
}

/// For a span's field.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
