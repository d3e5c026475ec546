//! The outcomes of runs whose operations were taken over or settled meanwhile.

use std::time::Duration;

use tower_idempotency::RecordId;
use tower_idempotency::internals::{
    Completion, Draft, Event, Expiry, Fence, Operation, RunResult, State, once_a_minute,
};

use super::Protocol;
use crate::backend::{Backend, Kind, Write};

/// The time for which a disputed outcome is kept.
const DISPUTED_KEPT: Duration = Duration::from_secs(30 * 86_400);

impl<B: Backend> Protocol<B> {
    /// Keeps an outcome that is refused because another process took the operation over, or because the operation was
    /// settled. The outcome gets a row of its own, for operators.
    pub(crate) async fn dispute(&self, completion: &Completion) {
        let Completion { operation: Operation { id, fingerprint, origin }, hold, result, .. } = completion;
        let state = match result {
            RunResult::Outcome(outcome) => State::Completed { outcome: outcome.clone() },
            RunResult::Consumed { status } => State::Consumed { status: *status },
        };
        let (fence, expiry) = (Some(hold.fence), Expiry::In(DISPUTED_KEPT));
        let (fingerprint, attempt, origin) = (*fingerprint, hold.attempt, origin.clone());
        let draft = Draft { fence, expiry, owned: None, fingerprint, attempt, origin, state, times: None };
        let row = disputed(*id, hold.fence);
        // The row names its operation as its session: `rows.rs` reads that.
        let write = self.write(row, &draft, None, None);
        let write = write.map(|write| Write { kind: Kind::Disputed, session: Some(*id), ..write });
        // An outcome that can't be encoded can't be kept either.
        let Some(write) = write else { return };
        let token = write.token;
        let kept = self.database.writes.insist(write).await;
        // The outcome has its row already, which this process or another has written after an earlier failover.
        if kept.as_ref().is_ok_and(|result| result.row.as_ref().is_some_and(|row| row.token != token)) {
            return;
        }
        self.slots.telemetry.happened(Event::Disputed);
        once_a_minute!(
            self.slots.telemetry.lines.of("disputed"),
            error,
            record_id = id.short(),
            fence = hold.fence.0,
            kept = kept.is_ok(),
            "a run ended after its operation was taken over or settled: its outcome is disputed"
        );
    }
}

/// Returns the id of the row that keeps the disputed outcome of the run with this fence.
pub(super) fn disputed(id: RecordId, fence: Fence) -> RecordId {
    let digest = blake3::Hasher::new_derive_key("tower-idempotency 2026 disputed outcome v1")
        .update(id.as_bytes())
        .update(&fence.0.to_le_bytes())
        .finalize();
    RecordId::from_bytes(*digest.as_bytes())
}
