//! How long counts are kept, and how long a caller waits for the store: the page is there, without some of its parts,
//! while a disk or a database hangs.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tower_idempotency::store::StoreError;

/// The longest time for which counts are shown before the store or the outbox is asked again, however many look at
/// them.
const SHOWN_FOR: Duration = Duration::from_secs(5);
/// The longest time for what is only read.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// What was counted last, and when.
pub(crate) struct Kept<T>(Mutex<Option<(Instant, T)>>);

impl<T: Clone> Kept<T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Returns what is kept, or counts. One request counts, and those that come meanwhile wait for it.
    pub(crate) async fn or<E>(&self, count: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let mut kept = self.0.lock().await;
        if let Some((at, counted)) = &*kept
            && at.elapsed() < SHOWN_FOR
        {
            return Ok(counted.clone());
        }
        let counted = count.await?;
        *kept = Some((Instant::now(), counted.clone()));
        Ok(counted)
    }

    /// Forgets it, after a change.
    pub(crate) async fn forget(&self) {
        *self.0.lock().await = None;
    }
}

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unread {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the store has not answered within {} seconds", TIMEOUT.as_secs())]
    Late,
}

/// Returns what was read, if it comes in time.
pub(crate) async fn in_time<T>(read: impl Future<Output = Result<T, StoreError>>) -> Result<T, Unread> {
    timeout(TIMEOUT, read).await.map_err(|_| Unread::Late)?.map_err(Unread::Store)
}
