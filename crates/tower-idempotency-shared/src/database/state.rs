//! Keeps whether the database can be reached, and what its answers say about servers, clocks and fences. Each call asks
//! it before and tells it after.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::lazy;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tower_idempotency::Fence;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::internals::{Event, LogThrottle, Slots, once_a_minute, panic_message};
use tower_idempotency::store::Health;

use super::clocks::{KEPT_CLOCK, Skew, ThreeClocks};
use super::snapshot::Rows;
use crate::backend::{Answer, BackendError, Clocks, Row, ServerId};

/// The number of calls that have to fail, one after the other, before claims are refused without a call.
const FAILURES: u32 = 3;
/// The slowest link for which time limits allow, in bytes a second. Several calls may share it.
const SLOWEST: usize = 64 * 1024;
/// The time between two claims that are let through to find out whether the database is back.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// The state that every call of the database uses, and every answer changes.
#[derive(Debug)]
pub(crate) struct DatabaseState {
    /// The clocks that each call brings along. Each answer adds the database's time to them.
    pub(crate) clocks: ThreeClocks,
    /// The greatest fence that was seen in any row. New fences are greater: see `floor()`.
    floor: AtomicU64,
    /// The servers that have answered. `Sessions` reads their changes, and barriers are noted here.
    servers: Mutex<Servers>,
    /// Notified when another server answers than before: the same server after a restart, or one that took over.
    /// `protocol/restore.rs` waits for it.
    pub(crate) replaced: Notify,
    /// The store's slots. Their telemetry counts skewed answers and limits the log lines about them.
    pub(crate) slots: Arc<Slots>,
    /// The time that a call with few bytes may take before its answer counts as lost.
    pub(crate) timeout: Duration,
    /// The series of failed calls. No code holds this lock together with that of `servers`.
    breaker: Mutex<Breaker>,
    /// At most one line a minute says that the database is away: if few calls succeed, that changes with each that
    /// does.
    lines: LogThrottle,
}

/// Limits the lines about panics: a backend of the application can panic in every call.
static PANICS: LogThrottle = LogThrottle::new();

/// The servers that have answered.
#[derive(Debug, Default)]
struct Servers {
    last: Option<ServerId>,
    /// The server that has answered a write as durable. All that it had shown before is durable too.
    barrier: Option<ServerId>,
    /// The number of times that another server has answered than before. When it grows, `Sessions` watches anew.
    changes: u64,
}

/// The circuit breaker: the calls that failed since the last answer. An answer resets it.
#[derive(Debug, Default)]
struct Breaker {
    failures: u32,
    /// The time of the first failure, and the reason of the last. `health` reports both.
    since: Option<Instant>,
    reason: String,
    /// The time at which `admits` last let a claim through, or at which the database began to count as away.
    probed: Option<Instant>,
    /// `true` if the log says that the database is away.
    is_logged: bool,
}

impl DatabaseState {
    pub(crate) fn new(clocks: ThreeClocks, timeout: Duration, slots: Arc<Slots>) -> Self {
        Self {
            clocks,
            floor: AtomicU64::default(),
            servers: Mutex::default(),
            replaced: Notify::new(),
            slots,
            timeout,
            breaker: Mutex::default(),
            lines: LogThrottle::new(),
        }
    }

    /// Calls the database, with this many bytes there or back, for which a slow link needs time. If the answer does not
    /// come in time, or the backend panics, the answer counts as lost.
    ///
    /// Renewals have few bytes. So only the time for few bytes has to be short in comparison with the lease.
    // This is not an async function, because that would keep the backend's future twice.
    pub(crate) fn call<T, F>(
        &self,
        bytes: usize,
        ask: impl FnOnce() -> F + Send,
    ) -> impl Future<Output = Result<T, BackendError>> + Send
    where
        F: Future<Output = Result<T, BackendError>> + Send,
    {
        let milliseconds = u64::try_from(bytes.saturating_mul(1_000) / SLOWEST).unwrap_or(u64::MAX);
        let limit = self.timeout.saturating_add(Duration::from_millis(milliseconds));
        // The function itself may panic before it returns a future.
        let answer = AssertUnwindSafe(lazy(|_| ask()).flatten()).catch_unwind();
        timeout(limit, answer).map(|answer| match answer {
            Ok(answer) => answer.unwrap_or_else(|panic| Err(panicked(&*panic))),
            Err(_) => Err(BackendError::Uncertain("it did not come in time".into())),
        })
    }

    /// Reads with one call, which has this many bytes there or back, and notes its answer. Its caller notes the fences.
    pub(crate) async fn ask<R, F>(
        &self,
        bytes: usize,
        call: impl FnOnce(Clocks) -> F + Send,
    ) -> Result<Rows<R>, BackendError>
    where
        F: Future<Output = Result<Answer<R>, BackendError>> + Send,
    {
        let (clocks, sent) = (self.clocks.now(), Instant::now());
        let answer = self.call(bytes, || call(clocks)).await;
        let Answer { now, server, rows } = answer.inspect_err(|error| self.failed(error))?;
        // `false`: a read does not show that anything is durable.
        self.answered(server, now, sent, false, None);
        Ok(Rows { server, sent, earliest: clocks.at(now).earliest, rows })
    }

    /// Notes an answer to a call that was sent at `sent`.
    pub(crate) fn answered<'a>(
        &self,
        server: ServerId,
        now: Timestamp,
        sent: Instant,
        was_written: bool,
        rows: impl IntoIterator<Item = &'a Row>,
    ) {
        if self.note_server(server, was_written) {
            self.replaced.notify_one();
        }
        if let Some(skew) = self.clocks.answered(now, sent) {
            self.report_skew(&skew);
        }
        self.note_fences(rows);
        // Any answer ends a series of failures, so claims are sent again.
        let Breaker { failures, is_logged, .. } = std::mem::take(&mut *self.breaker.lock());
        if is_logged {
            tracing::info!(target: "tower_idempotency", failures, "the database answers again");
        }
        if failures >= FAILURES {
            self.slots.telemetry.happened(Event::BreakerClosed);
        }
    }

    /// Notes the server of an answer, and returns whether it replaces another one.
    pub(crate) fn note_server(&self, server: ServerId, was_written: bool) -> bool {
        let mut servers = self.servers.lock();
        let before = servers.last.replace(server);
        if was_written {
            servers.barrier = Some(server);
        }
        let is_other = before.is_some_and(|before| before != server);
        servers.changes += u64::from(is_other);
        is_other
    }

    /// Returns the number of times that another server has answered than before.
    pub(crate) fn server_changes(&self) -> u64 {
        self.servers.lock().changes
    }

    /// Returns whether `server` has answered a write as durable. If so, all that it had shown before is durable too.
    pub(crate) fn is_behind_barrier(&self, server: ServerId) -> bool {
        self.servers.lock().barrier == Some(server)
    }

    /// Returns the greatest fence that was seen. New fences are greater, so that fences keep growing if the clock of
    /// the database is set back.
    pub(crate) fn floor(&self) -> Fence {
        Fence(self.floor.load(Ordering::Relaxed))
    }

    /// Notes the fences of rows.
    pub(crate) fn note_fences<'a>(&self, rows: impl IntoIterator<Item = &'a Row>) {
        for row in rows {
            self.floor.fetch_max(row.fence.0, Ordering::Relaxed);
        }
    }

    /// Counts an answer that shows a difference between the clocks, and logs at most one line a minute.
    fn report_skew(&self, skew: &Skew) {
        let telemetry = &self.slots.telemetry;
        telemetry.counters.skewed.fetch_add(1, Ordering::Relaxed);
        let Skew { clock, database, wall, kept, are_apart } = *skew;
        let (database, wall, kept) = (database.as_millis(), wall.as_millis(), kept.as_millis());
        if clock == KEPT_CLOCK {
            once_a_minute!(
                telemetry.lines.of("kept_apart"),
                warn,
                database,
                wall,
                kept,
                "the clock that this process keeps differs from the others by more than five seconds (milliseconds since \
                 1970), and nothing is lost by it: it approaches them by a hundredth of the time that passes; a restart of \
                 the process sets it"
            );
            return;
        }
        let consequence = if are_apart { "no operation begins before they agree" } else { "nothing is lost by it" };
        once_a_minute!(
            telemetry.lines.of("skewed"),
            error,
            clock,
            database,
            wall,
            kept,
            consequence,
            "the clocks differ by more than five seconds (milliseconds since 1970): `clock` is farther from the one that this \
             process keeps; set it right"
        );
    }

    /// Notes a call that failed.
    pub(crate) fn failed(&self, error: &BackendError) {
        use BackendError::{Busy, Crowded, Full, Never};
        // The database was reached, and a row was refused or locked. Or the database was not called at all.
        if matches!(error, Never(_) | Busy(_) | Full(_) | Crowded(_)) {
            return;
        }
        let mut breaker = self.breaker.lock();
        breaker.failures = breaker.failures.saturating_add(1);
        breaker.since.get_or_insert_with(Instant::now);
        breaker.reason = error.to_string();
        let has_opened = breaker.failures == FAILURES;
        if has_opened {
            // The first probe comes a second from now.
            breaker.probed = Some(Instant::now());
        }
        // `take_due` comes last: it counts this line, and allows no other for a minute.
        if breaker.failures >= FAILURES && !breaker.is_logged && self.lines.take_due().is_some() {
            breaker.is_logged = true;
            tracing::error!(target: "tower_idempotency", %error, "the database does not answer: new keys are refused");
        }
        // The observer may ask for the store's health, which locks the breaker.
        drop(breaker);
        if has_opened {
            self.slots.telemetry.happened(Event::BreakerOpened);
        }
    }

    /// Returns whether a claim may be sent. While the database is away, one claim a second may.
    pub(crate) fn admits(&self) -> bool {
        let mut breaker = self.breaker.lock();
        if breaker.failures < FAILURES {
            return true;
        }
        let is_due = breaker.probed.is_none_or(|probed| probed.elapsed() >= PROBE_EVERY);
        if is_due {
            breaker.probed = Some(Instant::now());
        }
        is_due
    }

    /// Returns whether the database answers, for the store's `health()`.
    pub(crate) fn health(&self) -> Health {
        let breaker = self.breaker.lock();
        match breaker.since {
            Some(since) if breaker.failures >= FAILURES => {
                Health::Away { since: since.elapsed(), reason: breaker.reason.clone() }
            }
            // There are too few failures in a row, or none: claims are sent.
            _ => Health::Good,
        }
    }
}

/// Returns the error of a call in which the backend panicked: it is unknown what the backend had sent.
fn panicked(panic: &(dyn Any + Send)) -> BackendError {
    let panic = panic_message(panic);
    once_a_minute!(PANICS, error, panic, "the backend panicked");
    BackendError::Uncertain(format!("the backend panicked: {panic}").into())
}
