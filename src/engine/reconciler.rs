//! What the application is asked about an interrupted operation.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::timeout;

use crate::store::InterruptedRun;

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

type AskFn<O> = dyn Fn(InterruptedRun) -> BoxFuture<'static, Reconciled<O>> + Send + Sync;

/// How the application is asked about interrupted operations.
///
/// The function must only *find out*: look the operation up by its derived key, where the effect went. Its future is
/// detached from the request that asks, runs at most once at a time for an operation, and counts as
/// [`Unknown`](Reconciled::Unknown) if it panics or takes longer than the timeout; then it is dropped, and what it says
/// later counts for nothing.
///
/// ```
/// use std::time::Duration;
/// use bytes::Bytes;
/// use tower_idempotency::engine::{InterruptedRun, Reconciled, Reconciler};
/// use tower_idempotency::{Once, store::Store};
///
/// # fn consumer<St: Store>(store: St) {
/// # async fn look_up(key: &str) -> Result<Option<Bytes>, std::io::Error> { Ok(None) }
/// let reconciler = Reconciler::new(|run: InterruptedRun| async move {
///     match look_up(&run.derived_key("charge")).await {
///         Ok(Some(receipt)) => Reconciled::Outcome(receipt),
///         Ok(None) => Reconciled::RunAgain, // only because this provider cannot still be charging
///         Err(_) => Reconciled::Unknown,
///     }
/// });
/// let once = Once::new(store).reconcile_with(reconciler.timeout(Duration::from_secs(3)));
/// # let _ = once;
/// # }
/// ```
pub struct Reconciler<O = Bytes> {
    ask: Arc<AskFn<O>>,
    timeout: Duration,
}

impl<O: 'static> Reconciler<O> {
    /// Asks `ask`, for at most ten seconds.
    #[must_use]
    pub fn new<F>(ask: impl Fn(InterruptedRun) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Reconciled<O>> + Send + 'static,
    {
        Self { ask: Arc::new(move |run| Box::pin(ask(run))), timeout: Duration::from_secs(10) }
    }

    /// How long an answer is waited for. Default: ten seconds.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The same, with outcomes of another form. An outcome that can't be given that form is unknown.
    pub(crate) fn map<P: 'static, F>(&self, form: impl Fn(O) -> F + Clone + Send + Sync + 'static) -> Reconciler<P>
    where
        O: Send,
        F: Future<Output = Option<P>> + Send + 'static,
    {
        let ask = Arc::clone(&self.ask);
        let mapped = move |run: InterruptedRun| {
            let (asked, form) = (ask(run), form.clone());
            async move {
                match asked.await {
                    Reconciled::Outcome(outcome) => form(outcome).await.map_or_else(|| unfit(run), Reconciled::Outcome),
                    Reconciled::RunAgain => Reconciled::RunAgain,
                    Reconciled::Unknown => Reconciled::Unknown,
                }
            }
        };
        Reconciler::new(mapped).timeout(self.timeout)
    }

    pub(super) fn patience(&self) -> Duration {
        self.timeout
    }

    /// What the application says; [`Reconciled::Unknown`] if it says nothing in time.
    pub(super) async fn ask(&self, run: InterruptedRun) -> Reconciled<O> {
        // The function itself may panic, before there is a future.
        let asking = AssertUnwindSafe(async { (self.ask)(run).await }).catch_unwind();
        let record_id = run.id.short();
        match timeout(self.timeout, asking).await {
            Ok(Ok(reconciled)) => return reconciled,
            Ok(Err(panic)) => {
                let panic = panic_message(&*panic);
                tracing::error!(target: "tower_idempotency", record_id, panic, "the reconciler panicked");
            }
            Err(_) => tracing::error!(target: "tower_idempotency", record_id, "the reconciler exceeded its timeout"),
        }
        Reconciled::Unknown
    }
}

fn unfit<O>(run: InterruptedRun) -> Reconciled<O> {
    tracing::error!(target: "tower_idempotency", record_id = run.id.short(), "the reconciler's outcome can't be recorded: it is too long, or its body failed");
    Reconciled::Unknown
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

/// The message of a panic, where it has one.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it has no message")
}
