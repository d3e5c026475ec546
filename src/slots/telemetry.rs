//! What happens to the runs over one store: it is counted, the observer learns of it, and a log line is written at most
//! once a minute.

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ahash::RandomState;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::stats::Counters;
use crate::observer::{AlreadyObserved, LeaseChange, Observer, SettledBy};
use crate::panics::panic_message;
use crate::record::Cause;

/// The time between two log lines.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Logs an event that a client can cause as often as it likes: at its level at most once a minute, with the `count` of
/// such events since the last line, and otherwise at DEBUG.
#[doc(hidden)]
#[macro_export]
macro_rules! once_a_minute {
    ($lines:expr, $level:ident, $($event:tt)*) => {
        match $lines.take_due() {
            Some(count) => tracing::$level!(target: "tower_idempotency", count, $($event)*),
            None => tracing::debug!(target: "tower_idempotency", $($event)*),
        }
    };
}
pub(crate) use once_a_minute;

/// What happens over a store and is both counted and passed to the observer.
#[derive(Debug, Clone, Copy)]
pub enum Event {
    /// A request that began then was answered with an outcome.
    Replayed(Instant),
    /// A request has waited for a run for this time.
    Waited(Duration),
    /// A claim that was asked for then was granted, and the handler is called.
    Claimed(Instant),
    /// The store has recorded an end that was sent at this time, if that was noted.
    Recorded(Option<Instant>),
    /// The end of a run could not be recorded.
    Unsaved,
    /// A run has ended without saying how, for this reason.
    Interrupted(Cause),
    /// An interrupted operation was settled.
    Settled(SettledBy),
    /// An outcome came after its operation was taken over or settled.
    Disputed,
    /// So many expired records were deleted.
    Swept(usize),
    /// The lease of this process was renewed or lost.
    Lease(LeaseChange),
    /// Claims are refused from now on, because the database is away.
    BreakerOpened,
    /// Claims are sent again.
    BreakerClosed,
    /// A layer has refused a request: the number of the kind, and its name.
    Refused(usize, &'static str),
}

/// The counters, the throttles of the log, and the observer of a store.
#[derive(Debug, Default)]
pub struct Telemetry {
    pub counters: Counters,
    pub lines: Lines,
    /// The lines of refused requests, by the names of the refusals.
    pub(crate) refused: Lines,
    /// The application's observer, if it has set one.
    observer: OnceLock<Box<dyn Observer>>,
    /// The interrupted runs of an earlier process, until there is an observer: it is set once the store is open.
    found: AtomicU64,
}

impl Telemetry {
    /// Sets the observer. Only the first one is set. It learns of the runs that the opening has found interrupted.
    pub(crate) fn observe(&self, observer: Box<dyn Observer>) -> Result<(), AlreadyObserved> {
        self.observer.set(observer).map_err(|_| AlreadyObserved)?;
        (0..self.found.swap(0, Ordering::Relaxed))
            .for_each(|_| self.notify(|observer| observer.interrupted(Cause::ProcessEnded)));
        Ok(())
    }

    /// Counts a run of an earlier process that the opening of a store has found interrupted.
    #[cfg(feature = "_embedded")]
    pub(crate) fn found_interrupted(&self) {
        self.found.fetch_add(1, Ordering::Relaxed);
    }

    /// Passes an event to the observer, if there is one.
    #[inline]
    pub(crate) fn notify(&self, event: impl FnOnce(&dyn Observer)) {
        if let Some(observer) = self.observer.get() {
            self.pass(&**observer, event);
        }
    }

    /// Returns the time, if an observer is to learn how long something takes.
    #[inline]
    pub(crate) fn start(&self) -> Option<Instant> {
        self.observer.get().map(|_| Instant::now())
    }

    /// Passes an event to the observer, whose panics end here.
    #[cold]
    fn pass(&self, observer: &dyn Observer, event: impl FnOnce(&dyn Observer)) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| event(observer))) {
            let panic = panic_message(&*panic);
            once_a_minute!(self.lines.of("observer_panicked"), error, panic, "the observer panicked");
        }
    }

    /// Counts records that were swept, and returns how many.
    pub fn count_swept(&self, records: usize) -> usize {
        if records > 0 {
            self.happened(Event::Swept(records));
        }
        records
    }

    /// Counts an event, and passes it to the observer.
    pub fn happened(&self, event: Event) {
        let counters = &self.counters;
        match event {
            Event::Replayed(began) => self.count(&counters.replays, 1, |observer| observer.replayed(began.elapsed())),
            Event::Waited(took) => self.count(&counters.waited, 1, |observer| observer.waited(took)),
            Event::Claimed(asked) => self.count(&counters.claimed, 1, |observer| observer.claimed(asked.elapsed())),
            Event::Recorded(sent) => self.count(&counters.recorded, 1, |observer| {
                sent.into_iter().for_each(|sent| observer.recorded(sent.elapsed()));
            }),
            Event::Unsaved => self.count(&counters.unsaved, 1, |observer| observer.unsaved()),
            Event::Interrupted(cause) => self.count(&counters.interrupted, 1, |observer| observer.interrupted(cause)),
            Event::Settled(by) => self.count(&counters.settled, 1, |observer| observer.settled(by)),
            Event::Disputed => self.count(&counters.disputed, 1, |observer| observer.disputed()),
            Event::Swept(records) => self.count(&counters.swept, records, |observer| observer.swept(records)),
            Event::Lease(change) => {
                let counter = match change {
                    LeaseChange::Renewed => &counters.lease_renewals,
                    LeaseChange::Lost => &counters.lease_losses,
                };
                self.count(counter, 1, |observer| observer.lease(change));
            }
            Event::BreakerOpened => self.count(&counters.breaker_openings, 1, |observer| observer.breaker(true)),
            Event::BreakerClosed => self.notify(|observer| observer.breaker(false)),
            Event::Refused(kind, name) => self.count(&counters.refused[kind], 1, |observer| observer.rejected(name)),
        }
    }

    #[inline]
    fn count(&self, counter: &AtomicU64, by: usize, event: impl FnOnce(&dyn Observer)) {
        counter.fetch_add(by as u64, Ordering::Relaxed);
        self.notify(event);
    }
}

/// The kinds of events that can come often, some as often as a client likes, by their names. Of each, there is at most
/// one line a minute:
/// - refusals of requests, by their kind; `overloaded`;
/// - faults of the store, by the requester's answer: `unavailable`, `full`, `corrupt`; `unanswered`: a claim has no
///   answer in time;
/// - ends of runs: `panicked`, `too_long`, `unknown`, `not_rerun`, `unsaved`, `fail_open`; `stopped`: the run was
///   dropped, in time because another process may run its operation again, or with its task; `superseded`: another
///   process took the operation over, or it was settled, before the run ended; `outdone`: an unprotected run whose
///   operation was claimed elsewhere meanwhile;
/// - of consumers: `unwritable`: an outcome that JSON can't have; `wrong_type`: one that was recorded for another type;
/// - of an embedded store: `unswept`: expired records that can't be deleted; `exhausted`: reads, and merges of tables,
///   for which no file or memory is left;
/// - of a shared store: `lost`, `skewed`, `disputed`, `consumed`; `doubtful`: the end of a transaction is unknown;
///   `kept_apart`: the clock that this process keeps differs from the others;
/// - questions to the application: `reconciler_panicked`, `reconciler_late`, `observer_panicked`.
#[derive(Default)]
pub struct Lines(Mutex<HashMap<&'static str, Arc<LogThrottle>, RandomState>>);

/// Writes no kinds, because their names would look like events in a log.
impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").finish_non_exhaustive()
    }
}

impl Lines {
    /// Returns the throttle of the events of this name.
    pub fn of(&self, name: &'static str) -> Arc<LogThrottle> {
        Arc::clone(self.0.lock().entry(name).or_default())
    }
}

/// Counts events, and decides which of them is logged. An event that is logged each time it happens, and happens often,
/// would drown the rest of the log. [`once_a_minute`] logs by it.
#[derive(Debug, Default)]
pub struct LogThrottle {
    /// The time of the last line, and the number of events after it.
    state: Mutex<(Option<Instant>, u64)>,
}

impl LogThrottle {
    /// Creates a throttle that has logged nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: Mutex::new((None, 0)) }
    }

    /// Counts an event. If a log line is due, returns how many events there were since the last line, this one
    /// included.
    pub fn take_due(&self) -> Option<u64> {
        let (last, since) = &mut *self.state.lock();
        let now = Instant::now();
        *since += 1;
        if last.is_some_and(|last| now.saturating_duration_since(last) < LOG_EVERY) {
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_is_said_at_once_and_the_others_once_a_minute() {
        let throttle = LogThrottle::default();
        assert_eq!([throttle.take_due(), throttle.take_due(), throttle.take_due()], [Some(1), None, None]);
        tokio::time::advance(LOG_EVERY - Duration::from_millis(1)).await;
        assert_eq!(throttle.take_due(), None);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!([throttle.take_due(), throttle.take_due()], [Some(4), None]);
    }
}
