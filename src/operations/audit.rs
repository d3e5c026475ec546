//! The event in the log that each change leaves.

use tracing::{info, warn};

use super::change::{Applied, ChangeError};
use crate::key::RecordId;
use crate::record::Fence;
use crate::store::StoreError;

/// Logs what an operator did to an operation: at INFO, or at WARN if it failed.
pub(super) fn log(
    actor: &str,
    action: &'static str,
    id: RecordId,
    fence: Fence,
    result: &Result<Applied, ChangeError>,
) {
    match result {
        Ok(applied) => info!(
            target: "tower_idempotency::audit", actor, action, record_id = %id, fence = fence.0, result = applied.name(),
            "an operator changed an operation"
        ),
        Err(error) => {
            let is_uncertain = matches!(error, ChangeError::Store(StoreError::Uncertain { .. }));
            let result = if is_uncertain { "uncertain" } else { "failed" };
            let error: &(dyn std::error::Error + 'static) = error;
            warn!(
                target: "tower_idempotency::audit", actor, action, record_id = %id, fence = fence.0, result, error,
                "an operator's change of an operation failed, or it is not known what became of it"
            );
        }
    }
}
