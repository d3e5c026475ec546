//! The record of an operation.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::cause::Cause;
use crate::clock::Timestamp;
use crate::digest::raw;
use crate::fingerprint::Fingerprint;

/// A number that grows with each claim of a record id and never repeats, whether records were released, swept or
/// expired. It fits a signed 64-bit column, so that a database downstream can refuse a writer with an older one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fence(pub u64);

/// Writes the number.
impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The record that a store holds of one operation. `O` is the form of an outcome.
///
/// A store that several processes share keeps the first four fields as columns of their own, and the others as bytes.
/// Stored bytes have the fields in this order, so the order stays.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record<O = Bytes> {
    /// The latest fence that was given for the operation.
    pub fence: Fence,
    /// The time at which the first attempt of the operation began.
    pub began: Timestamp,
    /// The time at which the operation entered its state; of a done one, when it was done.
    pub since: Timestamp,
    /// The time at which the record expires; `None` while the operation is running.
    pub expires: Option<Timestamp>,
    /// The fingerprint of the request.
    pub fingerprint: Fingerprint,
    /// The number of times that the operation was claimed and not released, counted from 1.
    pub attempt: u32,
    /// The origin of the operation, as far as that is recorded.
    pub origin: Origin,
    /// The state of the operation.
    pub state: State<O>,
    /// The owner of the operation, as the store judges it when it reads the record.
    #[serde(skip)]
    pub owner: Owner,
}

/// The origin of an operation, for operators who have to find out what became of it. The first claim says it, and it
/// stays as it is. No decision depends on it. Clones share the content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Origin(pub Option<Arc<Described>>);

/// The content of an [`Origin`]. Stored bytes have the fields in this order, so the order stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Described {
    /// The digest of the scope that the key belongs to.
    #[serde(with = "raw::optional")]
    pub scope: Option<[u8; 32]>,
    /// The application's name for the operation.
    pub label: Option<String>,
    /// The trace id of the first run.
    #[serde(with = "raw::optional")]
    pub trace: Option<[u8; 16]>,
}

/// The most bytes of a label.
const MAX_LABEL_BYTES: usize = 200;

impl Described {
    /// Returns a label of this text: at most 200 bytes, on one line, without control characters. `None` if nothing is
    /// left.
    #[must_use]
    pub fn label(text: &str) -> Option<String> {
        // A terminal or a page would obey control characters, and show text after others in another order.
        let is_refused = |char: char| {
            char.is_control()
                || matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        let text = text.trim_matches(|char: char| char.is_whitespace() || is_refused(char));
        let mut end = text.len().min(MAX_LABEL_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let label: String = text[..end].chars().map(|char| if is_refused(char) { ' ' } else { char }).collect();
        Some(label).filter(|label| !label.is_empty())
    }
}

impl Origin {
    /// Returns an origin with this content, or an empty one if there is none.
    #[must_use]
    pub fn of(described: Described) -> Self {
        Self((described != Described::default()).then(|| Arc::new(described)))
    }

    /// Returns about how many bytes of memory it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |described| size_of::<Described>() + described.label.as_ref().map_or(0, String::len))
    }

    /// Returns the application's name for the operation, if there is one.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.0.as_ref()?.label.as_deref()
    }

    /// Returns the trace id of the first run in hexadecimal, if there is one.
    #[must_use]
    pub(crate) fn trace_id(&self) -> Option<String> {
        let trace = self.0.as_ref()?.trace?;
        Some(format!("{:032x}", u128::from_be_bytes(trace)))
    }
}

/// The state of an operation. Stored bytes have a variant's index, so the order of the variants stays.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State<O = Bytes> {
    /// The operation is claimed, and its handler may be running.
    Running {
        /// The policy under which the run was claimed.
        policy: ClaimPolicy,
        /// The time for which the record is kept if the run is interrupted.
        interrupted_retention: Duration,
    },
    /// It is unknown whether the effect took place: the run ended without saying how, or its handler's answer says that
    /// it is unknown.
    Interrupted {
        /// The policy under which the interrupted run was claimed.
        policy: ClaimPolicy,
        /// The fence of the interrupted run, with which it may still say how it ended.
        run: Fence,
        /// The reason why it is unknown.
        cause: Cause,
    },
    /// The operation is done, and its outcome is recorded.
    Completed {
        /// The outcome that the run produced.
        outcome: O,
    },
    /// The operation is done, but its outcome could not be stored, or is not kept any longer: it does not run again,
    /// and it cannot be replayed.
    Consumed {
        /// The status, which is all that remains of the outcome.
        status: u16,
    },
}

/// The policy under which a run was claimed. It says whether the run's effect is safe to repeat, whatever the policy is
/// by the time the run turns out to be interrupted. Stored bytes have a variant's index, so the order of the variants
/// stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ClaimPolicy {
    /// The record does not say it, because its bytes are damaged.
    Unreadable,
    /// [`OnInterrupted::Refuse`](crate::OnInterrupted::Refuse), without a reconciler.
    Refuse,
    /// The reconciler is asked.
    Ask,
    /// [`OnInterrupted::Rerun`](crate::OnInterrupted::Rerun).
    Rerun,
}

/// The process that sees to an operation: the one that runs it, or asks the application about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Owner {
    /// No process, or one that is gone.
    #[default]
    None,
    /// This process.
    Here,
    /// Another process, which is alive as far as the store can see.
    Elsewhere,
}

impl<O> State<O> {
    /// Returns the outcome, if there is one that is kept.
    pub(crate) fn outcome(&self) -> Option<&O> {
        if let Self::Completed { outcome } = self { Some(outcome) } else { None }
    }

    /// Returns whether the operation is done, so that it does not run again.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Completed { .. } | Self::Consumed { .. })
    }

    /// Returns the same state with its outcome in the form that `outcome` gives it. An embedded store turns stored
    /// chunks into bytes by it.
    pub(crate) fn form<P, E>(&self, outcome: impl FnOnce(&O) -> Result<P, E>) -> Result<State<P>, E> {
        Ok(match self {
            &Self::Running { policy, interrupted_retention } => State::Running { policy, interrupted_retention },
            &Self::Interrupted { policy, run, cause } => State::Interrupted { policy, run, cause },
            Self::Completed { outcome: old } => State::Completed { outcome: outcome(old)? },
            Self::Consumed { status } => State::Consumed { status: *status },
        })
    }
}

impl<O> Record<O> {
    /// Returns the record, unless it is past its expiry.
    #[must_use]
    pub fn live(self, now: Timestamp) -> Option<Self> {
        Some(self).filter(|record| record.is_live(now))
    }

    /// Returns whether the record is not past its expiry.
    pub(crate) fn is_live(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| expires > now)
    }

    /// Returns this record as interrupted, if its run ended at `since` without saying how, for this reason.
    #[must_use]
    pub fn lapse(self, since: Timestamp, cause: Cause) -> Self {
        // In every other state there is no run that could have ended.
        let State::Running { policy, interrupted_retention } = self.state else { return self };
        let state = State::Interrupted { policy, run: self.fence, cause };
        let expires = Some(since.plus(interrupted_retention));
        Self { state, since, expires, owner: Owner::None, ..self }
    }

    /// Returns whether the operation is interrupted under this fence, and no other process sees to it.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        matches!(self.state, State::Interrupted { .. }) && self.owner != Owner::Elsewhere
    }

    /// Returns whether the operation is interrupted, and was claimed under a policy that lets it run again.
    #[must_use]
    pub fn may_run_again(&self) -> bool {
        matches!(self.state, State::Interrupted { policy: ClaimPolicy::Rerun, .. })
    }

    /// Returns the same record with its outcome in the form that `outcome` gives it.
    pub fn form<P, E>(&self, outcome: impl FnOnce(&O) -> Result<P, E>) -> Result<Record<P>, E> {
        let state = self.state.form(outcome)?;
        let Self { fence, began, since, expires, fingerprint, attempt, owner, .. } = *self;
        Ok(Record { fence, began, since, expires, fingerprint, attempt, origin: self.origin.clone(), state, owner })
    }

    /// Returns a record for an operation whose own can't be read: its key is refused, and an operator settles it.
    #[must_use]
    pub fn unreadable(fence: Fence, began: Timestamp, since: Timestamp, expires: Timestamp) -> Self {
        let state = State::Interrupted { policy: ClaimPolicy::Unreadable, run: fence, cause: Cause::Unknown };
        let (fingerprint, expires) = (Fingerprint::unverifiable(), Some(expires));
        // The true number of attempts is unknown, so it counts as 1.
        let (attempt, origin, owner) = (1, Origin::default(), Owner::None);
        Self { fence, began, since, expires, fingerprint, attempt, origin, state, owner }
    }

    /// Returns the fence of the run that may still say how it ended.
    pub(super) fn run(&self) -> Option<Fence> {
        match self.state {
            State::Running { .. } => Some(self.fence),
            State::Interrupted { run, .. } => Some(run),
            State::Completed { .. } | State::Consumed { .. } => None,
        }
    }
}
