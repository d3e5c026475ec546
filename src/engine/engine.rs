//! The engine: a store and the policy it is used with. The steps of an exchange come back to it for what they share: a
//! run is spawned here (`spawn`), a record is read as the policy shows it (`presented`), an end is passed to the store
//! (`record`), also an operator's.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tracing::{Instrument as _, Span};

use super::policy::{Policy, ReadStatus};
use super::send_end::{self, PendingEnd};
use crate::key::RecordId;
use crate::laboratory;
use crate::record::{Cause, Record, State, Stepped, Transition};
use crate::slots::{Client, Counters, Event, Lines, Refusal, Telemetry, once_a_minute};
use crate::store::{Store, StoreError};
use crate::timeouts::STORE_TIMEOUT;

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

/// The sender of a request, as far as it decides whether the request may run.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Caller {
    /// The client in whose share of `max_runs` the run counts, if it counts in one.
    pub(crate) client: Option<Client>,
    /// `true` if the request is sent by a run that is still under way. It belongs to that run then, even while the
    /// process shuts down.
    pub(crate) is_within: bool,
}

impl<St: Store> Engine<St> {
    /// Logs a fault of the store, and returns the refusal that the requester gets for it.
    pub(super) fn log_and_refuse(&self, id: &RecordId, error: &StoreError) -> Refusal {
        let (refusal, line) = match error {
            StoreError::Overloaded { reason } => return self.overloaded(reason),
            StoreError::Full { .. } => (Refusal::Full, "full"),
            StoreError::Corrupt { .. } => {
                self.count(|counters| &counters.corrupt);
                (Refusal::Corrupt, "corrupt")
            }
            StoreError::Unavailable { .. } | StoreError::Uncertain { .. } => (Refusal::Unavailable, "unavailable"),
        };
        once_a_minute!(
            self.lines().of(line), error, record_id = id.short(), %error, source = source(error), "the store failed"
        );
        refusal
    }

    /// Refuses because too much is under way.
    pub(super) fn overloaded(&self, reason: &'static str) -> Refusal {
        once_a_minute!(self.lines().of("overloaded"), warn, reason, "overloaded: new keys are refused");
        Refusal::Overloaded
    }

    /// Returns the log lines that are written at most once a minute.
    pub(super) fn lines(&self) -> &Lines {
        &self.store.slots().telemetry.lines
    }

    /// Returns the counters and the observer of the store.
    pub(super) fn telemetry(&self) -> &Telemetry {
        &self.store.slots().telemetry
    }

    /// Counts a run of which it is unknown whether it took effect, for this reason.
    pub(super) fn count_interrupted(&self, cause: Cause) {
        self.telemetry().happened(Event::Interrupted(cause));
    }

    /// Adds one to a counter of this process, which [`Stats`](super::Stats) shows.
    pub(super) fn count(&self, which: impl FnOnce(&Counters) -> &AtomicU64) {
        which(&self.telemetry().counters).fetch_add(1, Ordering::Relaxed);
    }

    /// Returns a record that a request has met, as the present policy shows it: an outcome that is not replayed any
    /// longer is consumed.
    pub(super) fn presented(&self, record: Record) -> Record {
        let Policy { outcome_retention: Some(_), retention, status: ReadStatus(status), .. } = self.policy else {
            return record;
        };
        match &record.state {
            State::Completed { outcome } if record.since.plus(retention) <= self.store.now() => {
                let status = status(outcome).unwrap_or(0);
                Record { state: State::Consumed { status }, ..record }
            }
            _ => record,
        }
    }

    /// Returns whether a run may go ahead without the store.
    pub(super) fn fails_open(&self) -> bool {
        // While the process shuts down, no handler begins without a claim.
        self.policy.fail_open && !self.store.slots().is_draining()
    }

    /// Passes the store a transition that ends a run or settles an operation. It is passed again until this process
    /// is about to forget the end, because a newer run may begin then.
    pub(super) fn record(
        &self,
        id: RecordId,
        transition: Transition,
    ) -> impl Future<Output = Result<Stepped, PendingEnd>> + Send {
        send_end::pass(&self.store, id, transition, self.retries_for())
    }

    /// Returns for how long this process sends an end that it remembers to the store.
    pub(super) fn retries_for(&self) -> Duration {
        self.policy.kept().saturating_sub(STORE_TIMEOUT)
    }

    /// Passes a future that calls the application through the layer's `wrap_run`.
    pub(crate) fn wrapped(&self, run: BoxFuture<'static, ()>) -> BoxFuture<'static, ()> {
        match &self.wrap_run {
            Some(wrap) => wrap(run),
            None => run,
        }
    }

    /// Spawns a run in a task of its own, in the present span. A layer's `wrap_run` may wrap it.
    pub(super) fn spawn(&self, run: BoxFuture<'static, ()>) {
        let run = self.wrapped(run);
        let span = Span::current();
        if span.is_disabled() { laboratory::spawn(run) } else { laboratory::spawn(run.instrument(span)) }
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
