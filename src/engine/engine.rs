//! The engine: a store and the policy it is used with.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::policy::{OnInterrupted, Policy};
use crate::fingerprint::Fingerprint;
use crate::key::RecordId;
use crate::laboratory::{self, Protection};
use crate::record::Origin;
use crate::slots::{Attempt, Client, End, Ended, Lines, Refusal, Tally, once_a_minute};
use crate::store::{Store, StoreError};

/// A function that wraps a run's future before it is spawned.
pub(crate) type WrapRun = Arc<dyn Fn(BoxFuture<'static, ()>) -> BoxFuture<'static, ()> + Send + Sync>;

/// A store and the policy it is used with.
pub(crate) struct Engine<St> {
    /// The store. All engines over it share its slots and counts.
    pub(crate) store: Arc<St>,
    pub(crate) policy: Policy,
    /// A layer's `wrap_run`, which may carry task-locals over to the run. A consumer has none.
    pub(crate) wrap_run: Option<WrapRun>,
}

impl<St: fmt::Debug> fmt::Debug for Engine<St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("store", &self.store).field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// The operation that a request names, and the fingerprint that it presents.
#[derive(Debug, Clone)]
pub(crate) struct Presented {
    /// The digest of scope and key: the name of the slot and of the record.
    pub(crate) id: RecordId,
    /// The digest of this request. A record answers the request only if it has the same one.
    pub(crate) fingerprint: Fingerprint,
    /// The origin of the operation. A layer finds it out once the request runs: see `Work::origin`.
    pub(crate) origin: Origin,
    /// The number of the attempt that the request has claimed; 0 before that.
    pub(crate) attempt: u32,
    /// The client in whose share of `max_runs` the run counts, if it counts in one.
    pub(crate) client: Option<Client>,
    /// `true` if the request is sent by a run that is still under way. It belongs to that run then, even while the
    /// process shuts down.
    pub(crate) is_within: bool,
}

impl Presented {
    /// A request that is no client's of a layer, and sent by no run.
    pub(crate) fn new(id: RecordId, fingerprint: Fingerprint, origin: Origin) -> Self {
        Self { id, fingerprint, origin, attempt: 0, client: None, is_within: false }
    }

    /// Returns the attempt of the request's own run, for logs.
    pub(super) fn attempt(&self) -> Attempt {
        Attempt { number: self.attempt, origin: self.origin.clone() }
    }

    /// Returns this end of the request's own run.
    pub(super) fn ended(&self, end: End) -> Ended {
        Ended::new(self.fingerprint, end).of(self.attempt())
    }
}

impl<St: Store> Engine<St> {
    /// Logs a fault of the store, and returns the refusal that the requester gets for it.
    pub(super) fn log_and_refuse(&self, presented: &Presented, error: &StoreError) -> Refusal {
        let (refusal, lines) = match error {
            StoreError::Overloaded { reason } => return self.overloaded(reason),
            StoreError::Full { .. } => (Refusal::Full, &self.lines().full),
            StoreError::Corrupt { .. } => {
                self.count(|tally| &tally.corrupt);
                (Refusal::Corrupt, &self.lines().corrupt)
            }
            StoreError::Unavailable { .. } | StoreError::Uncertain { .. } => {
                (Refusal::Unavailable, &self.lines().unavailable)
            }
        };
        once_a_minute!(
            lines, error, record_id = presented.id.short(), %error, source = source(error), "the store failed"
        );
        refusal
    }

    /// Refuses because too much is under way.
    pub(super) fn overloaded(&self, reason: &'static str) -> Refusal {
        once_a_minute!(self.lines().overloaded, warn, reason, "overloaded: new keys are refused");
        Refusal::Overloaded
    }

    /// Returns the log lines that are written at most once a minute.
    pub(super) fn lines(&self) -> &Lines {
        &self.store.slots().tally.lines
    }

    /// Returns the counters and the observer of the store.
    pub(super) fn tally(&self) -> &Tally {
        &self.store.slots().tally
    }

    /// Counts a run of which it is unknown whether it took effect.
    pub(super) fn count_interrupted(&self) {
        self.count(|tally| &tally.interrupted);
        self.tally().notify(|observer| observer.interrupted());
    }

    /// Adds one to a counter of this process, which [`Stats`](super::Stats) shows.
    pub(super) fn count(&self, which: impl FnOnce(&Tally) -> &AtomicU64) {
        which(self.tally()).fetch_add(1, Ordering::Relaxed);
    }

    /// Returns whether the claim must be durable before the work starts.
    pub(super) fn claims_durably(&self) -> bool {
        match self.policy.on_interrupted {
            OnInterrupted::Refuse => !laboratory::is_broken(Protection::DurableClaim),
            // After a crash the operation may run again, so an embedded store need not keep the claim.
            OnInterrupted::Rerun => false,
        }
    }

    /// Returns whether a run may go ahead without the store.
    pub(super) fn fails_open(&self) -> bool {
        // While the process shuts down, no handler begins without a claim.
        self.policy.fail_open && !self.store.slots().is_draining()
    }
}

/// Returns what the store's backend says about a fault, for a log.
pub(super) fn source(error: &StoreError) -> Option<String> {
    std::error::Error::source(error).map(ToString::to_string)
}

/// Returns the milliseconds of a duration, for a field of a span.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
