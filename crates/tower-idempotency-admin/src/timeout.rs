//! How long counts are kept, and how long a caller waits for the store: the page is there, without some of its parts,
//! while a disk or a database hangs.

use std::time::Duration;

use tokio::time::timeout;
use tower_idempotency::store::StoreError;

/// The longest time for which counts are shown before the store or the outbox is asked again, however many look at
/// them.
pub(crate) const SHOWN_FOR: Duration = Duration::from_secs(5);
/// The longest time for what is only read.
const TIMEOUT: Duration = Duration::from_secs(10);

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
