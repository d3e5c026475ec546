//! Takes an operation over, and keeps the outcome of a run that was taken over.

use std::time::Duration;

use backon::Retryable as _;

use super::Protocol;
use crate::key::RecordId;
use crate::record::{Completion, Draft, Expiry, Fence, Operation, RunResult, State};
use crate::slots::{Event, once_a_minute};
use crate::store::StoreError;
use crate::store::shared::backend::{Backend, Kind, Row, Write};
use crate::within::pauses;

/// The first and the longest pause before a disputed outcome that was not kept is sent again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// The time for which a disputed outcome is kept.
const DISPUTED_KEPT: Duration = Duration::from_secs(30 * 86_400);

impl<B: Backend> Protocol<B> {
    /// Marks the session that a row names as dead, if it is over. Returns whether the row may be taken over: it may not
    /// if the session was renewed meanwhile.
    pub(crate) async fn mark_session_dead(&self, row: Option<&Row>) -> Result<bool, StoreError> {
        // For an interrupted operation, token and fence are enough.
        let running = row.filter(|row| row.kind == Kind::Running);
        let Some(session) = running.and_then(|row| row.session) else { return Ok(true) };
        // A process never marks a session of its own as dead.
        if self.sessions.own.own().contains(&session) {
            return Ok(true);
        }
        let others = self.sessions.others();
        // The run's own bound is over, and its process says that the run is over.
        if row.and_then(|row| row.until).is_none_or(|until| others.has_ended(session, until)) {
            return Ok(true);
        }
        // With less than half of its own lease left, this process considers no other process dead.
        if !self.sessions.own.holds_half() || !others.is_over(session) {
            return Ok(false);
        }
        self.sessions.mark_dead(session).await
    }

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
        let put = || self.database.writes.put(write.clone(), None);
        let first = put().await;
        // The outcome has its row already, which this process or another has written after an earlier failover.
        if first.as_ref().is_ok_and(|result| result.row.as_ref().is_some_and(|row| row.token != write.token)) {
            return;
        }
        self.slots.telemetry.happened(Event::Disputed);
        // The twelve tries after the first are spread over some minutes, in case the database is away.
        let pauses = pauses(FIRST_PAUSE, MAX_PAUSE).with_max_times(12);
        let kept = first.is_ok() || put.retry(pauses).sleep(tokio::time::sleep).await.is_ok();
        once_a_minute!(
            self.slots.telemetry.lines.disputed,
            error,
            record_id = id.short(),
            fence = hold.fence.0,
            kept,
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
