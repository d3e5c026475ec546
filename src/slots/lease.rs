//! Until when this process counts as alive for the others that share its store.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The lease of this process. A store that this process has alone has none.
#[derive(Debug, Default)]
pub(crate) struct Lease(Mutex<Option<Held>>);

#[derive(Debug, Clone, Copy)]
struct Held {
    until: Instant,
    /// How long before its end a run that others may take over has to stop.
    margin: Duration,
}

impl Lease {
    /// Takes note that the lease is held until this moment, at least.
    #[cfg(feature = "shared")]
    pub(crate) fn hold(&self, until: Instant, margin: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Held { until, margin });
    }

    /// Returns how much of the lease is left, if there is one.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.held().map(|held| held.until.saturating_duration_since(Instant::now()))
    }

    /// Waits until the lease is nearly over and was not renewed. Without a lease, this never ends.
    pub(crate) async fn nearly_over(&self) {
        let Some(mut held) = self.held() else { return std::future::pending().await };
        loop {
            let end = held.until.checked_sub(held.margin).unwrap_or(held.until);
            sleep_until(end).await;
            match self.held() {
                Some(renewed) if renewed.until > held.until => held = renewed,
                _ => return,
            }
        }
    }

    fn held(&self) -> Option<Held> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
