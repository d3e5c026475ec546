//! Warns of values that switch the protection off, or the service.

use super::policy::Policy;

impl Policy {
    /// Logs a WARN for each time that is zero, so that nothing is kept, for one that changes nothing, and if nothing
    /// may run.
    pub(crate) fn warn(&self) {
        if self.max_run.is_zero() {
            tracing::warn!(target: "tower_idempotency", "`max_run` is zero: every run is interrupted as it begins");
        }
        if self.max_runs == 0 {
            tracing::warn!(target: "tower_idempotency", "`max_runs` is zero: every new key is refused");
        }
        if self.kept().is_zero() {
            tracing::warn!(target: "tower_idempotency", "`retention` is zero: a retry after the answer runs again");
        }
        if self.outcome_retention.is_some_and(|kept| kept < self.retention) {
            tracing::warn!(
                target: "tower_idempotency",
                "`outcome_retention` is shorter than `retention`, and changes nothing: a record is kept for both"
            );
        }
        if self.interrupted_retention.is_zero() {
            tracing::warn!(
                target: "tower_idempotency",
                "`interrupted_retention` is zero: a retry after a run that was interrupted runs again"
            );
        }
    }
}
