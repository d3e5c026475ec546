//! What the operator decides about runs.

use std::time::Duration;

use bytes::Bytes;

use super::reconciler::Reconciler;

/// What a duplicate gets while the first request still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnInFlight {
    /// The run's answer, if it comes within this time; `in-flight` after it.
    Wait(Duration),
    /// `in-flight` at once.
    Reject,
}

/// What a retry gets when the run before it was interrupted: cut short, or answered so that nobody knows whether it took effect.
///
/// What has to be durable, and when, follows from it:
///
/// | policy | claim durable before the handler | outcome durable before the answer |
/// |---|---|---|
/// | `Refuse`, `Reconcile` | yes | yes |
/// | `Rerun`, embedded store | no: the slot in this process is the claim | yes |
///
/// `O` is the form of an outcome: bytes for [`Once`](super::Once), an answer for the layer.
#[derive(Debug)]
#[non_exhaustive]
pub enum OnInterrupted<O = Bytes> {
    /// `outcome-unknown`, until somebody who knows settles it with `resolve`. For effects elsewhere: cards, e-mail.
    Refuse,
    /// It runs again. **If the first run had taken effect before it was interrupted, that is a second effect**: only for
    /// effects that are safe to repeat, or that the handler deduplicates by the derived key.
    Rerun,
    /// The application is asked, and says: here is the outcome, run it again, or still unknown. For effects elsewhere that
    /// can be looked up.
    Reconcile(Reconciler<O>),
}

impl<O> Clone for OnInterrupted<O> {
    fn clone(&self) -> Self {
        match self {
            Self::Refuse => Self::Refuse,
            Self::Rerun => Self::Rerun,
            Self::Reconcile(reconciler) => Self::Reconcile(reconciler.clone()),
        }
    }
}

/// The policy of one layer or consumer.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) on_in_flight: OnInFlight,
    pub(crate) on_interrupted: OnInterrupted,
    pub(crate) retention: Duration,
    pub(crate) interrupted_retention: Duration,
    pub(crate) max_run: Duration,
    pub(crate) max_runs: usize,
    pub(crate) fail_open: bool,
}

impl Default for Policy {
    fn default() -> Self {
        const HOUR: Duration = Duration::from_secs(3_600);
        Self {
            on_in_flight: OnInFlight::Wait(Duration::from_secs(2)),
            on_interrupted: OnInterrupted::Refuse,
            retention: HOUR * 24,
            interrupted_retention: HOUR * 24 * 30,
            max_run: Duration::from_secs(600),
            max_runs: 16_384,
            fail_open: false,
        }
    }
}
