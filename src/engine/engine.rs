//! The engine: a store, how it is used, and what this process counts.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::policy::{OnInterrupted, Policy};
use crate::fingerprint::Fingerprint;
use crate::key::RecordId;
use crate::laboratory::{self, Protection};
use crate::slots::{REFUSALS, Refusal};
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
    /// Whether a run that goes on asks for it: then it belongs to that run, also while the process shuts down.
    pub(crate) is_within: bool,
}

/// What this process has counted since the store was opened, over all layers on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Handlers started.
    pub runs: u64,
    /// Requests answered with the outcome of an earlier one.
    pub replays: u64,
    /// Runs of which nobody knows how they ended: panics, errors, time-outs, and answers that mean so.
    pub interrupted: u64,
    /// Those of them whose handler answered, and whose answer means that nobody knows.
    pub unknown: u64,
    /// Answers given though their record could not be written: after a restart, their retries are refused.
    pub unrecorded: u64,
    /// Handlers started without protection, because `fail_open` was chosen and the store was away.
    pub unprotected: u64,
    /// Damaged records met.
    pub corrupt: u64,
    /// Interrupted operations that the reconciler settled with an outcome.
    pub reconciled: u64,
    /// Runs under way now.
    pub live: u64,
    // By the kind of refusal.
    pub(crate) refused: [u64; REFUSALS],
}

/// What is left when a process stops waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Drained {
    /// Runs under way. They are cut short when the process ends.
    pub runs: usize,
    /// Runs that are over and that the store doesn't know the end of. Their requesters were answered; after a restart, retries
    /// are refused, or, under `Rerun`, run again.
    pub unrecorded: usize,
}

impl Drained {
    /// Whether nothing is left.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.runs == 0 && self.unrecorded == 0
    }
}

impl<St: Store> Engine<St> {
    /// What the requester is told of a fault, which is logged here.
    pub(super) fn refusal(&self, ask: &Ask, error: &StoreError) -> Refusal {
        let refusal = match error {
            StoreError::Overloaded { reason } => return self.overloaded(reason),
            StoreError::Full { .. } => Refusal::Full,
            StoreError::Corrupt { .. } => {
                self.count(|tally| &tally.corrupt);
                Refusal::Corrupt
            }
            StoreError::Unavailable { .. } | StoreError::Uncertain { .. } => Refusal::Unavailable,
        };
        let source = source(error);
        tracing::error!(target: "tower_idempotency", record_id = ask.id.short(), %error, source, "the store failed");
        refusal
    }

    /// Too much is under way. One line a minute for all that are refused for it.
    pub(super) fn overloaded(&self, reason: &'static str) -> Refusal {
        if let Some(count) = self.store.slots().tally.overloaded_lines.due() {
            tracing::warn!(
                target: "tower_idempotency", count, reason,
                "overloaded: new keys are refused; `count` of them since the last such line, of which there is at most one a \
                 minute"
            );
        }
        Refusal::Overloaded
    }

    pub(super) fn count(&self, which: impl FnOnce(&crate::slots::Tally) -> &AtomicU64) {
        which(&self.store.slots().tally).fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the claim must be durable before the work starts.
    pub(super) fn claims_durably(&self) -> bool {
        match &self.policy.on_interrupted {
            OnInterrupted::Refuse | OnInterrupted::Reconcile(_) => !laboratory::is_broken(Protection::DurableClaim),
            OnInterrupted::Rerun => false,
        }
    }

    /// Whether a run may go ahead without the store.
    pub(super) fn fails_open(&self) -> bool {
        self.policy.fail_open && !self.store.slots().is_draining()
    }

    /// Refuses new keys from now on, waits for the runs under way and for what the store is still being told, at most
    /// `deadline`, and says what is left.
    pub(crate) async fn drain(&self, deadline: Duration) -> Drained {
        let slots = self.store.slots();
        let _ = tokio::time::timeout(deadline, slots.drained()).await;
        Drained { runs: slots.live(), unrecorded: slots.unrecorded() }
    }

    pub(crate) fn counts(&self) -> Counts {
        let slots = self.store.slots();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let tally = &slots.tally;
        Counts {
            runs: read(&tally.runs),
            replays: read(&tally.replays),
            interrupted: read(&tally.interrupted),
            unknown: read(&tally.unknown),
            unrecorded: read(&tally.unrecorded),
            unprotected: read(&tally.unprotected),
            corrupt: read(&tally.corrupt),
            reconciled: read(&tally.reconciled),
            live: slots.live() as u64,
            refused: tally.refused.each_ref().map(read),
        }
    }
}

/// What the store's backend says of a fault, for a log.
pub(super) fn source(error: &StoreError) -> Option<String> {
    std::error::Error::source(error).map(ToString::to_string)
}

/// For a span's field.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
