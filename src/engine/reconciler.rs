//! The question to the application about an interrupted operation.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::timeout;

use crate::panics::panic_message;
use crate::slots::{Lines, LogThrottle, once_a_minute};
use crate::store::InterruptedRun;

/// The application's answer about an interrupted operation.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reconciled<O> {
    /// The operation took place; this is its outcome, which is replayed from now on.
    Outcome(O),
    /// The operation did not take place, or may take place again: the next retry runs it.
    RunAgain,
    /// It is unknown so far. Retries are refused; the next one asks again.
    StillUnknown,
}

/// The application's function. Its future is boxed, so that the type of a reconciler names the outcome alone.
type AskFn<O> = dyn Fn(InterruptedRun) -> BoxFuture<'static, Reconciled<O>> + Send + Sync;

/// Asks the application about interrupted operations.
///
/// The function must only *find out*: it looks the operation up by its derived key, in the service where the effect
/// took place. Its future is detached from the request that asks, and runs at most once at a time for an operation. If
/// it panics or takes longer than the timeout, the outcome is [`StillUnknown`](Reconciled::StillUnknown); a late future
/// is dropped, and counts for nothing.
///
/// ```
/// use std::time::Duration;
/// use tower_idempotency::engine::{Reconciled, Reconciler};
/// use tower_idempotency::store::InterruptedRun;
/// use tower_idempotency::{Once, store::Store};
///
/// # fn consumer<St: Store>(store: St) {
/// # async fn look_up(key: &str) -> Result<Option<String>, std::io::Error> { Ok(None) }
/// let reconciler = Reconciler::new(|run: InterruptedRun| async move {
///     let Some(key) = run.derived_key("charge") else { return Reconciled::StillUnknown };
///     match look_up(&key).await {
///         Ok(Some(receipt)) => Reconciled::Outcome(receipt),
///         Ok(None) => Reconciled::RunAgain, // only because this provider cannot still be charging
///         Err(_) => Reconciled::StillUnknown,
///     }
/// });
/// let once = Once::new(store).reconcile_with(reconciler.timeout(Duration::from_secs(3)));
/// # let _ = once;
/// # }
/// ```
pub struct Reconciler<O> {
    ask: Arc<AskFn<O>>,
    timeout: Duration,
}

impl<O: 'static> Reconciler<O> {
    /// Creates a reconciler that asks `ask`. Its [`timeout`](Self::timeout) is ten seconds by default.
    #[must_use]
    pub fn new<F>(ask: impl Fn(InterruptedRun) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Reconciled<O>> + Send + 'static,
    {
        Self { ask: Arc::new(move |run| Box::pin(ask(run))), timeout: Duration::from_secs(10) }
    }

    /// Sets how long the reconciler may take to answer. Default: ten seconds.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Returns the same reconciler with outcomes of another form. If an outcome cannot be given that form, it is
    /// unknown, and the error says why.
    pub(crate) fn map<P: 'static, F>(&self, form: impl Fn(O) -> F + Clone + Send + Sync + 'static) -> Reconciler<P>
    where
        O: Send,
        F: Future<Output = Result<P, &'static str>> + Send + 'static,
    {
        // The calls of one reconciler share a throttle for the line that is logged.
        let (ask, lines) = (Arc::clone(&self.ask), Arc::new(LogThrottle::new()));
        let mapped = move |run: InterruptedRun| {
            let (id, form, lines) = (run.id, form.clone(), Arc::clone(&lines));
            let asked = ask(run);
            async move {
                let outcome = match asked.await {
                    Reconciled::Outcome(outcome) => outcome,
                    Reconciled::RunAgain => return Reconciled::RunAgain,
                    Reconciled::StillUnknown => return Reconciled::StillUnknown,
                };
                form(outcome).await.map_or_else(
                    |why| {
                        once_a_minute!(
                            lines,
                            error,
                            record_id = id.short(),
                            "the reconciler's outcome can't be recorded: {why}"
                        );
                        Reconciled::StillUnknown
                    },
                    Reconciled::Outcome,
                )
            }
        };
        Reconciler::new(mapped).timeout(self.timeout)
    }

    /// Returns the timeout. The bound of a question is longer, by the time that the store may take.
    pub(crate) fn limit(&self) -> Duration {
        self.timeout
    }

    /// Asks the application. Returns [`Reconciled::StillUnknown`] if it does not answer in time.
    pub(super) async fn ask(&self, run: InterruptedRun, lines: &Lines) -> Reconciled<O> {
        let record_id = run.id.short();
        // The function itself may panic before it returns a future.
        let asking = AssertUnwindSafe(async { (self.ask)(run).await }).catch_unwind();
        match timeout(self.timeout, asking).await {
            Ok(Ok(reconciled)) => return reconciled,
            Ok(Err(panic)) => {
                let panic = panic_message(&*panic);
                once_a_minute!(lines.of("reconciler_panicked"), error, record_id, panic, "the reconciler panicked");
            }
            Err(_) => {
                once_a_minute!(lines.of("reconciler_late"), error, record_id, "the reconciler exceeded its timeout");
            }
        }
        Reconciled::StillUnknown
    }
}

impl<O> Clone for Reconciler<O> {
    fn clone(&self) -> Self {
        Self { ask: Arc::clone(&self.ask), timeout: self.timeout }
    }
}

impl<O> fmt::Debug for Reconciler<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconciler").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}
