//! Whether an operation may be taken over.

use tower_idempotency::store::StoreError;

use super::Protocol;
use crate::backend::{Backend, Kind, Row};

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
}
