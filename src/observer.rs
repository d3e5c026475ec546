//! What happens over a store, as it happens: for metrics, alerts and audits of your own.

use std::fmt;
use std::time::Duration;

/// Learns of what happens over a store in this process, to all layers and consumers. Give it to the store with
/// [`Store::observe`](crate::store::Store::observe). Each method is one event and does nothing by default.
///
/// Every argument is a duration, a number, or one of few values. None of them says which operation, key, path, scope
/// or account an event is about, so that all of them can be labels of metrics. Spans and events of `tracing` name
/// operations.
///
/// A method is called where the event happens: on the threads of the runtime, and for an embedded store on its writer
/// thread. **It must return at once and must not block**: requests wait for it. If it panics, the panic is caught and
/// logged, at most once a minute, and the request goes on.
#[allow(unused_variables, reason = "the names of arguments are documentation")]
pub trait Observer: Send + Sync + 'static {
    /// A handler has ended, or was dropped. `took` is the time since it was called. If it has committed a transaction
    /// that holds its outcome, the transaction decides how the run ends, whatever `end` says.
    fn ran(&self, end: RunEnd, took: Duration) {}

    /// A request was answered with the outcome of an earlier one. `took` is the time since the engine was asked, waits
    /// included.
    fn replayed(&self, took: Duration) {}

    /// A request was rejected. `kind` is one of the names in [`problem`](crate::problem), such as `in-flight`, or
    /// `custom` for a rejection of the application's own.
    fn rejected(&self, kind: &'static str) {}

    /// A duplicate has waited this long for the run of another request.
    fn waited(&self, took: Duration) {}

    /// An operation was claimed. `took` is the time since the engine was asked, the look-up of the key included.
    fn claimed(&self, took: Duration) {}

    /// The end of a run was recorded. `took` is the time until the store's answer.
    fn recorded(&self, took: Duration) {}

    /// The end of a run could not be recorded at once, and its answer was given all the same.
    fn unrecorded(&self) {}

    /// It is unknown whether a run took effect.
    fn interrupted(&self) {}

    /// An interrupted operation was settled.
    fn settled(&self, by: SettledBy) {}

    /// An outcome came after its operation had been taken over by another process, or settled.
    fn disputed(&self) {}

    /// Expired records were deleted.
    fn swept(&self, records: usize) {}

    /// The lease of this process over a shared store has changed.
    fn lease(&self, change: LeaseChange) {}

    /// The circuit breaker of a shared store has opened or closed. While it is open, new keys are refused.
    fn breaker(&self, is_open: bool) {}
}

/// How a handler ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RunEnd {
    /// Its answer is the outcome, which is recorded.
    Completed,
    /// It took effect, and its answer is not recorded: it is a stream, or too long or too slow.
    NotReplayable,
    /// It took no effect: the key is free.
    Released,
    /// Its answer or its error leaves it unknown whether it took effect.
    Unknown,
    /// It panicked.
    Panicked,
    /// It took longer than `max_run`.
    TooLong,
    /// It was dropped, because another process may run the operation again.
    Stopped,
}

impl RunEnd {
    /// Returns its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::NotReplayable => "not-replayable",
            Self::Released => "released",
            Self::Unknown => "unknown",
            Self::Panicked => "panicked",
            Self::TooLong => "too-long",
            Self::Stopped => "stopped",
        }
    }
}

/// The one who settled an interrupted operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SettledBy {
    /// An operator, through `resolve` or `resolve_all`.
    Operator,
    /// The application's reconciler.
    Reconciler,
}

impl SettledBy {
    /// Returns its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Reconciler => "reconciler",
        }
    }
}

/// A change of this process's lease over a shared store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LeaseChange {
    /// It was renewed.
    Renewed,
    /// It was lost: another process has taken this one for dead.
    Lost,
}

impl LeaseChange {
    /// Returns its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Renewed => "renewed",
            Self::Lost => "lost",
        }
    }
}

/// The store has an observer already. Make one that passes each event on to several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store has an observer already; make one that passes each event on to several")]
#[non_exhaustive]
pub struct AlreadyObserved;

/// `Debug` shows only that there is one.
impl fmt::Debug for dyn Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}
