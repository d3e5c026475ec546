//! Taking an operation over, and what becomes of the outcome of a run that was taken over.

use std::sync::atomic::Ordering;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};

use super::backend::{Backend, Expect, Kind, Row, Write};
use super::errors::not_put;
use super::puts::Stands;
use super::session;
use super::state::Shelf;
use super::watch::Reading;
use crate::key::RecordId;
use crate::record::{Completion, Draft, Expiry, Fence, Settlement, State};
use crate::slots::once_a_minute;
use crate::store::StoreError;

/// The pause before a disputed outcome that was not kept is sent again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// How long a disputed outcome is kept.
const DISPUTED_KEPT: Duration = Duration::from_secs(30 * 86_400);

impl<B: Backend> Shelf<B> {
    /// Declares the session dead that a row names, if it is over. Returns whether the row may be taken over: not if the
    /// session was renewed meanwhile.
    pub(super) async fn bury(&self, row: Option<&Row>) -> Result<bool, StoreError> {
        // Of an interrupted operation, token and fence say enough.
        let running = row.filter(|row| row.kind == Kind::Running);
        let Some(session) = running.and_then(|row| row.session) else { return Ok(true) };
        if self.reach.session.own().contains(&session) {
            return Ok(true);
        }
        let others = &self.reach.others;
        // The run's own bound is over, and its process says that the run is.
        if row.and_then(|row| row.until).is_none_or(|until| others.has_ended(session, until)) {
            return Ok(true);
        }
        if !self.reach.session.holds_half() || !others.is_over(session) {
            return Ok(false);
        }
        self.declare_dead(session).await
    }

    /// Declares the session of another process dead, which is over. Returns whether it is dead now: not if its row has
    /// changed since it was watched.
    pub(super) async fn declare_dead(&self, session: RecordId) -> Result<bool, StoreError> {
        let others = &self.reach.others;
        let Some(expect) = others.expected(session) else { return Ok(others.is_over(session)) };
        let write = session::dead(session, expect);
        let token = write.token;
        let Stands { row, answer, sent, .. } = self.urgent.put(write, None).await.map_err(not_put)?;
        if row.as_ref().is_some_and(|row| row.token == token || row.kind == Kind::Released) {
            others.ended(session);
            return Ok(true);
        }
        if matches!((&row, expect), (Some(row), Expect::Token(token)) if row.token == token) {
            return Err(StoreError::unavailable("something else has the row of a session locked"));
        }
        others.note(Reading { server: answer.server, sent, rows: vec![(session, row)] });
        Ok(false)
    }

    /// Keeps an outcome that is refused because somebody took the operation over or settled it: in a row of its own,
    /// for operators.
    pub(super) async fn dispute(&self, completion: &Completion) {
        let Completion { hold, fingerprint, settlement, .. } = completion;
        let state = match settlement {
            Settlement::Outcome(outcome) => State::Completed { outcome: outcome.clone() },
            Settlement::Consumed { status } => State::Consumed { status: *status },
        };
        let (fence, expiry) = (Some(hold.fence), Expiry::In(DISPUTED_KEPT));
        let (fingerprint, attempt) = (*fingerprint, hold.attempt);
        let draft = Draft { fence, expiry, owned: None, fingerprint, attempt, origin: None, state };
        let id = disputed(hold.id, hold.fence);
        let write = self.write(id, &draft, None, None);
        let write = write.map(|write| Write { kind: Kind::Disputed, session: Some(hold.id), ..write });
        let Some(write) = write else { return };
        self.slots.tally.disputed.fetch_add(1, Ordering::Relaxed);
        let pauses = ExponentialBuilder::default().with_min_delay(FIRST_PAUSE).with_jitter().with_max_times(12);
        let put = || self.puts.put(write.clone(), None);
        let kept = put.retry(pauses).sleep(tokio::time::sleep).await.is_ok();
        once_a_minute!(
            self.slots.tally.lines.disputed,
            error,
            record_id = hold.id.short(),
            fence = hold.fence.0,
            kept,
            "a run ended after its operation was taken over or settled: its outcome is disputed"
        );
    }
}

/// The id of the row that keeps the disputed outcome of the run with this fence.
fn disputed(id: RecordId, fence: Fence) -> RecordId {
    let digest = blake3::Hasher::new_derive_key("tower-idempotency 2026 disputed outcome v1")
        .update(id.as_bytes())
        .update(&fence.0.to_le_bytes())
        .finalize();
    RecordId::from_bytes(*digest.as_bytes())
}
