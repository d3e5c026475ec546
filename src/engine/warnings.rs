//! Warns of times without which nothing is protected.

use super::policy::Policy;

impl Policy {
    /// Logs a WARN for each time that is zero, so that nothing is kept.
    pub(crate) fn warn(&self) {
        if self.retention.is_zero() {
            tracing::warn!(target: "tower_idempotency", "`retention` is zero: a retry after the answer runs again");
        }
        if self.interrupted_retention.is_zero() {
            tracing::warn!(
                target: "tower_idempotency",
                "`interrupted_retention` is zero: a retry after a run that was interrupted runs again"
            );
        }
    }
}
