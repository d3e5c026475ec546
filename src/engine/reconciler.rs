//! What the application is asked about an interrupted operation.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::timeout;

use crate::clock::Timestamp;
use crate::key::RecordId;
use crate::record::Fence;
use crate::store::InterruptedRecord;

/// An interrupted operation, as the application is asked about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct InterruptedRun {
    /// Which operation.
    pub id: RecordId,
    /// A fence taken for this question, newer than that of the run: hand it to what the answer changes, if it changes
    /// anything, so that a run that was only thought dead changes nothing more.
    pub fence: Fence,
    /// The number of the interrupted attempt, from 1.
    pub attempt: u32,
    /// When the operation began: its first attempt. Nothing of it is older.
    pub began: Timestamp,
    /// The HTTP status that its client was answered, where the handler's answer was that nobody knows; `None` where it was
    /// cut short without an answer.
    pub status: Option<u16>,
}

impl InterruptedRun {
    pub(super) fn new(record: &InterruptedRecord, fence: Fence) -> Self {
        let InterruptedRecord { id, attempt, began, status, .. } = *record;
        Self { id, fence, attempt, began, status }
    }

    /// The key that the run was given for `step`: what it called in turn knows the operation by it.
    #[must_use]
    pub fn derived_key(&self, step: &str) -> String {
        self.id.derived_key(step)
    }
}

/// What the application knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reconciled<O = Bytes> {
    /// It took place; this is its outcome, replayed from now on.
    Outcome(O),
    /// It did not take place, or may take place again: it runs for whoever retries it.
    RunAgain,
    /// Nobody knows yet. Retries are refused; the next one asks again.
    Unknown,
}

type Ask<O> = dyn Fn(InterruptedRun) -> BoxFuture<'static, Reconciled<O>> + Send + Sync;

/// How the application is asked about interrupted operations.
///
/// The function must only *find out*: look the operation up by its derived key, where the effect went. Its future is
/// detached from the request that asks, runs at most once at a time for an operation, and counts as
/// [`Unknown`](Reconciled::Unknown) if it panics or takes longer than the time-out; then it is dropped, and what it says
/// later counts for nothing.
///
/// ```
/// use std::time::Duration;
/// use bytes::Bytes;
/// use tower_idempotency::engine::{InterruptedRun, OnInterrupted, Reconciled, Reconciler};
///
/// # async fn look_up(key: &str) -> Result<Option<Bytes>, std::io::Error> { Ok(None) }
/// let reconciler = Reconciler::new(|run: InterruptedRun| async move {
///     match look_up(&run.derived_key("charge")).await {
///         Ok(Some(receipt)) => Reconciled::Outcome(receipt),
///         Ok(None) => Reconciled::RunAgain,
///         Err(_) => Reconciled::Unknown,
///     }
/// });
/// let policy = OnInterrupted::Reconcile(reconciler.time_out(Duration::from_secs(3)));
/// # let _ = policy;
/// ```
pub struct Reconciler<O = Bytes> {
    ask: Arc<Ask<O>>,
    time_out: Duration,
}

impl<O: 'static> Reconciler<O> {
    /// Asks `ask`, for at most ten seconds.
    #[must_use]
    pub fn new<F>(ask: impl Fn(InterruptedRun) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Reconciled<O>> + Send + 'static,
    {
        Self { ask: Arc::new(move |run| Box::pin(ask(run))), time_out: Duration::from_secs(10) }
    }

    /// How long an answer is waited for. Default: ten seconds.
    #[must_use]
    pub fn time_out(self, time_out: Duration) -> Self {
        Self { time_out, ..self }
    }

    /// The same, with outcomes of another form; one that can't be given it is unknown.
    pub(crate) fn map<P: 'static>(
        &self,
        form: impl Fn(O) -> Option<P> + Clone + Send + Sync + 'static,
    ) -> Reconciler<P> {
        let ask = Arc::clone(&self.ask);
        let mapped = move |run: InterruptedRun| {
            let (asked, form) = (ask(run), form.clone());
            async move {
                match asked.await {
                    Reconciled::Outcome(outcome) => form(outcome).map_or_else(|| unfit(run), Reconciled::Outcome),
                    Reconciled::RunAgain => Reconciled::RunAgain,
                    Reconciled::Unknown => Reconciled::Unknown,
                }
            }
        };
        Reconciler::new(mapped).time_out(self.time_out)
    }

    pub(super) fn patience(&self) -> Duration {
        self.time_out
    }

    /// What the application says; [`Reconciled::Unknown`] if it says nothing in time.
    pub(super) async fn ask(&self, run: InterruptedRun) -> Reconciled<O> {
        // The function itself may panic, before there is a future.
        let asking = AssertUnwindSafe(async { (self.ask)(run).await }).catch_unwind();
        let failed = match timeout(self.time_out, asking).await {
            Ok(Ok(reconciled)) => return reconciled,
            Ok(Err(_)) => "the reconciler panicked",
            Err(_) => "the reconciler exceeded its time-out",
        };
        tracing::error!(target: "tower_idempotency", record_id = run.id.short(), "{failed}");
        Reconciled::Unknown
    }
}

fn unfit<O>(run: InterruptedRun) -> Reconciled<O> {
    tracing::error!(target: "tower_idempotency", record_id = run.id.short(), "the reconciler's outcome is too long to record");
    Reconciled::Unknown
}

impl<O> Clone for Reconciler<O> {
    fn clone(&self) -> Self {
        Self { ask: Arc::clone(&self.ask), time_out: self.time_out }
    }
}

impl<O> fmt::Debug for Reconciler<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconciler").field("time_out", &self.time_out).finish_non_exhaustive()
    }
}
