//! Until when this process counts as alive for the others that share its store.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::key::RecordId;

/// The lease of this process. A store that this process has alone has none.
#[derive(Debug, Default)]
pub(crate) struct Lease(Mutex<Option<Held>>);

#[derive(Debug, Clone, Copy)]
struct Held {
    session: RecordId,
    until: Instant,
    /// How long before its end a run that others may take over has to stop.
    margin: Duration,
}

impl Lease {
    /// Takes note that the lease of `session` is held until this moment, at least.
    #[cfg(feature = "shared")]
    pub(crate) fn hold(&self, session: RecordId, until: Instant, margin: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Held { session, until, margin });
    }

    /// Returns the session that has the lease. A run that is claimed from now on has this one, or a later one.
    pub(crate) fn session(&self) -> Option<RecordId> {
        self.held().map(|held| held.session)
    }

    /// Returns how much of the lease of `session` is left: nothing if this process has another session now.
    pub(crate) fn left(&self, session: RecordId) -> Duration {
        let held = self.held().filter(|held| held.session == session);
        held.map_or(Duration::ZERO, |held| held.until.saturating_duration_since(Instant::now()))
    }

    /// Waits until the lease of `session` is nearly over and was not renewed, or this process has another session.
    pub(crate) async fn nearly_over(&self, session: RecordId) {
        while let Some(held) = self.held().filter(|held| held.session == session) {
            let end = held.until.checked_sub(held.margin).unwrap_or(held.until);
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }

    fn held(&self) -> Option<Held> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
