//! The application's choices about runs.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use tracing::Level;

use super::reconciler::Reconciler;
use crate::record::ClaimPolicy;

/// The answer to a duplicate while the first request still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnInFlight {
    /// The run's answer, if it comes within this time; `in-flight` after it.
    Wait(Duration),
    /// `in-flight` at once.
    Reject,
}

/// The answer to a retry when the run before it was interrupted: the run ended without saying how, or its answer said
/// that its effect is unknown.
///
/// A third way is to ask the application, which may be able to find out:
/// [`IdempotencyLayer::reconcile_with`](crate::IdempotencyLayer::reconcile_with) and
/// [`Once::reconcile_with`](crate::Once::reconcile_with). What has to be durable, and when, follows from the choice:
///
/// | policy | claim durable before the handler | outcome durable before the answer |
/// |---|---|---|
/// | `Refuse`, or asking | yes | yes |
/// | `Rerun`, embedded store | no: the slot in this process is the claim | yes |
/// | `Rerun`, shared store | yes: other processes have to see the claim | yes |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnInterrupted {
    /// The retry is refused with `outcome-unknown`, until an operator settles the operation. This is for
    /// effects elsewhere, such as cards and e-mail.
    Refuse,
    /// The retry runs. **If the first run had taken effect before it was interrupted, that is a second effect.** This
    /// is only for effects that are safe to repeat, or that the handler deduplicates by the derived key.
    ///
    /// It holds for runs that were claimed under this policy. Operations that were interrupted under another one are
    /// still refused with `outcome-unknown` after a change to this one, until they are settled;
    /// [`Stats::not_rerun`](super::Stats::not_rerun) counts such refusals.
    Rerun,
}

/// The levels of the events of requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Levels {
    pub(crate) ran: Level,
    pub(crate) replayed: Level,
    /// Of each kind of refusal, one event a minute has this level.
    pub(crate) refused: Level,
}

impl Default for Levels {
    fn default() -> Self {
        Self { ran: Level::DEBUG, replayed: Level::DEBUG, refused: Level::INFO }
    }
}

/// Reads the HTTP status of a recorded outcome, if it has one.
#[derive(Clone, Copy)]
pub(crate) struct ReadStatus(pub(crate) fn(&[u8]) -> Option<u16>);

/// Shows no address, so that equal policies show alike.
impl fmt::Debug for ReadStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadStatus")
    }
}

/// The policy of one layer or consumer.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) on_in_flight: OnInFlight,
    pub(crate) on_interrupted: OnInterrupted,
    /// The reconciler that is asked about an interrupted run before a retry is refused.
    pub(crate) reconciler: Option<Reconciler<Bytes>>,
    /// The time for which an outcome is replayed after its run.
    pub(crate) retention: Duration,
    /// The time for which the record of a done operation is kept, if it is longer than `retention`. Between the two, a
    /// retry gets the status of the outcome.
    pub(crate) outcome_retention: Option<Duration>,
    /// A consumer's outcome has no status.
    pub(crate) status: ReadStatus,
    /// The time for which an interrupted operation is kept. After it, a retry runs.
    pub(crate) interrupted_retention: Duration,
    /// The time after which a handler is dropped, and its run counts as interrupted.
    pub(crate) max_run: Duration,
    /// The most runs at once over the store, of all its layers and consumers.
    pub(crate) max_runs: usize,
    /// Lets handlers run unprotected while the store is away. A consumer can't set it.
    pub(crate) fail_open: bool,
    /// Whether the caller asks the application before a replay. Then it counts the replay, if that is given.
    pub(crate) asks_before_replay: bool,
    /// The levels of the events of requests. A consumer has the defaults.
    pub(crate) levels: Levels,
}

impl Default for Policy {
    fn default() -> Self {
        const HOUR: Duration = Duration::from_secs(3_600);
        Self {
            on_in_flight: OnInFlight::Wait(Duration::from_secs(2)),
            on_interrupted: OnInterrupted::Refuse,
            reconciler: None,
            retention: HOUR * 24,
            outcome_retention: None,
            status: ReadStatus(|_| None),
            interrupted_retention: HOUR * 24 * 30,
            max_run: Duration::from_secs(600),
            max_runs: 16_384,
            fail_open: false,
            asks_before_replay: false,
            levels: Levels::default(),
        }
    }
}

impl Policy {
    /// Returns what the record of a claim says about this policy.
    pub(crate) fn claim_policy(&self) -> ClaimPolicy {
        match (self.on_interrupted, &self.reconciler) {
            // The two methods below never set `Rerun` and a reconciler together.
            (OnInterrupted::Rerun, _) => ClaimPolicy::Rerun,
            (OnInterrupted::Refuse, Some(_)) => ClaimPolicy::Ask,
            (OnInterrupted::Refuse, None) => ClaimPolicy::Refuse,
        }
    }

    /// Returns how long the record of a done operation is kept after its run.
    pub(crate) fn kept(&self) -> Duration {
        self.outcome_retention.map_or(self.retention, |longer| longer.max(self.retention))
    }

    /// Returns how long a duplicate waits for a run.
    pub(super) fn wait_timeout(&self) -> Duration {
        match self.on_in_flight {
            OnInFlight::Wait(timeout) => timeout,
            OnInFlight::Reject => Duration::ZERO,
        }
    }

    /// Returns whether the retry of a run whose end is unknown may get more than a refusal: it runs, or the application
    /// is asked.
    #[cfg(feature = "server")]
    pub(crate) fn answers_retries(&self) -> bool {
        self.reconciler.is_some() || self.on_interrupted == OnInterrupted::Rerun
    }

    /// Sets what a retry gets, and removes the reconciler.
    pub(crate) fn set_on_interrupted(&mut self, on_interrupted: OnInterrupted) {
        (self.on_interrupted, self.reconciler) = (on_interrupted, None);
    }

    /// Sets the reconciler. A retry is refused if the reconciler does not know.
    pub(crate) fn reconcile_with(&mut self, reconciler: Reconciler<Bytes>) {
        (self.on_interrupted, self.reconciler) = (OnInterrupted::Refuse, Some(reconciler));
    }
}
