//! Which operations are meant.

use std::time::Duration;

use super::record::{OperationRecord, OperationState, StateKind};
use crate::clock::Timestamp;
use crate::record::Cause;

/// Selects operations. Without a method called, it selects all.
// The fields are for the packages of this repository, which fill them from options and URLs, and show them again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Filter {
    #[doc(hidden)]
    pub state: Option<StateKind>,
    #[doc(hidden)]
    pub older_than: Option<Duration>,
    #[doc(hidden)]
    pub status: Option<u16>,
    #[doc(hidden)]
    pub cause: Option<Cause>,
    #[doc(hidden)]
    pub label: Option<String>,
    #[doc(hidden)]
    pub since: Option<Timestamp>,
    #[doc(hidden)]
    pub before: Option<Timestamp>,
    #[doc(hidden)]
    pub scope: Option<[u8; 32]>,
}

impl Filter {
    /// Selects all operations.
    pub fn all() -> Self {
        Self::default()
    }

    /// Selects the operations in this state. A list of interrupted operations is ordered by time, the oldest first; all
    /// others are ordered by id, so that one that is read page by page misses none.
    pub fn in_state(self, state: StateKind) -> Self {
        Self { state: Some(state), ..self }
    }

    /// Selects the operations that have been in their state for longer than this.
    pub fn older_than(self, age: Duration) -> Self {
        Self { older_than: Some(age), ..self }
    }

    /// Selects the operations whose client was answered with this HTTP status.
    pub fn answered_with(self, status: u16) -> Self {
        Self { status: Some(status), ..self }
    }

    /// Selects the interrupted operations with this cause; those of an answer whatever its status, which
    /// [`answered_with`](Self::answered_with) selects by. The list is in the order of interrupted operations.
    pub fn caused_by(self, cause: Cause) -> Self {
        Self { cause: Some(cause), ..self }
    }

    /// Selects the operations whose [label](OperationRecord::label) begins with this text.
    pub fn labelled(self, prefix: impl Into<String>) -> Self {
        Self { label: Some(prefix.into()), ..self }
    }

    /// Selects the operations that came to their state at this time or later.
    pub fn since(self, time: Timestamp) -> Self {
        Self { since: Some(time), ..self }
    }

    /// Selects the operations that came to their state before this time.
    pub fn before(self, time: Timestamp) -> Self {
        Self { before: Some(time), ..self }
    }

    /// Selects the operations of the scope with this [digest](crate::Scope::digest).
    pub fn of_scope(self, digest: [u8; 32]) -> Self {
        Self { scope: Some(digest), ..self }
    }

    /// Returns whether the filter selects this operation, as it is at `now`. A damaged record has no other properties
    /// than its state.
    pub(super) fn selects(&self, operation: &OperationRecord, now: Timestamp) -> bool {
        let age = now.as_millis().saturating_sub(operation.since.as_millis());
        let is_old = self.older_than.is_none_or(|least| u128::from(age) > least.as_millis());
        let is_damaged = matches!(operation.state, OperationState::Damaged { .. });
        let is_within = self.since.is_none_or(|since| operation.since >= since)
            && self.before.is_none_or(|before| operation.since < before);
        self.state.is_none_or(|state| state == operation.state.kind())
            && (is_old && !is_damaged || self.older_than.is_none())
            && (is_within && !is_damaged || self.since.is_none() && self.before.is_none())
            && self.cause.is_none_or(|cause| operation.state.cause().is_some_and(|known| known.name() == cause.name()))
            && self.label.as_ref().is_none_or(|prefix| operation.label().is_some_and(|label| label.starts_with(prefix)))
            && (self.status.is_none() || self.status == operation.state.status())
            && (self.scope.is_none() || self.scope == operation.scope())
    }
}
