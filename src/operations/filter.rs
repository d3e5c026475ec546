//! Which operations are meant.

use std::time::Duration;

use super::record::{OperationRecord, OperationState, StateKind};
use crate::clock::Timestamp;

/// Selects operations. Without a method called, it selects all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Filter {
    pub(super) state: Option<StateKind>,
    older_than: Option<Duration>,
    status: Option<u16>,
    scope: Option<[u8; 32]>,
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
        self.state.is_none_or(|state| state == operation.state.kind())
            && (is_old && !is_damaged || self.older_than.is_none())
            && (self.status.is_none() || self.status == operation.state.status())
            && (self.scope.is_none() || self.scope == operation.scope())
    }
}
