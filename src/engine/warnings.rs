//! Warns of values that switch the protection off, or the service.

use std::time::Duration;

use super::policy::Policy;

/// The shortest time for which a record is kept without a warning. Clients pause for several seconds between two tries.
const SHORT: Duration = Duration::from_secs(60);

impl Policy {
    /// Logs a WARN for each time in which no run or no retry can come, for one that changes nothing, and if nothing may
    /// run.
    pub(crate) fn warn(&self) {
        if self.max_run.is_zero() {
            tracing::warn!(target: "tower_idempotency", "`max_run` is zero: every run is interrupted as it begins");
        }
        if self.max_runs == 0 {
            tracing::warn!(target: "tower_idempotency", "`max_runs` is zero: every new key is refused");
        }
        if self.kept() < SHORT {
            tracing::warn!(
                target: "tower_idempotency", kept = ?self.kept(),
                "`retention` is shorter than clients go on retrying: a retry that comes later runs again"
            );
        }
        if self.outcome_retention.is_some_and(|kept| kept < self.retention) {
            tracing::warn!(
                target: "tower_idempotency",
                "`outcome_retention` is shorter than `retention`, and changes nothing: a record is kept for both"
            );
        }
        if self.interrupted_retention < SHORT {
            tracing::warn!(
                target: "tower_idempotency", kept = ?self.interrupted_retention,
                "`interrupted_retention` is shorter than clients go on retrying: a retry after a run that was interrupted \
                 runs again"
            );
        }
    }
}
