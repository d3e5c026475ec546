//! What the databases of this repository have in common. It belongs to no release: it changes without notice.

use std::error::Error;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep, timeout_at};
use tower_idempotency::store::ConnectError;
use tower_idempotency::{Fence, RecordId};

use super::backend::{Backend, BackendError, Expect, NewExpiry, NewFence, Row, Write};
use super::builder::SharedStoreBuilder;
pub use super::inner::Task;
use super::store::SharedStore;

/// The pause between two tries.
const OPEN_RETRY_DELAY: Duration = Duration::from_millis(200);
/// The number of ids that a listener may be behind.
const FEED_CAPACITY: usize = 16_384;

/// The largest state: an outcome of 16 MiB, and what a record has in addition to it. A database would take more, and
/// several times as much memory; others wait meanwhile.
pub const LARGEST: usize = (16 << 20) + (1 << 20);
/// The longest duration: so many years are written as whole milliseconds without loss.
const MAX_DURATION: Duration = Duration::from_secs(100 * 366 * 86_400);

/// Refuses a write that no database may get.
///
/// # Errors
/// [`BackendError::Never`], with the reason.
pub fn check_write(write: &Write) -> Result<(), BackendError> {
    if write.expires == NewExpiry::Keep && write.expect == Expect::Absent {
        return Err(BackendError::Never("an absent row has no expiry to keep".into()));
    }
    let fence = if let NewFence::Exactly(fence) | NewFence::Above(fence) = write.fence { fence } else { Fence(0) };
    check(&write.id, fence, &write.state)
}

/// The same, for a row that is written as it is.
///
/// # Errors
/// [`BackendError::Never`], with the reason.
pub fn check_row(row: &Row) -> Result<(), BackendError> {
    check(&row.id, row.fence, &row.state)
}

fn check(id: &RecordId, fence: Fence, state: &[u8]) -> Result<(), BackendError> {
    if state.len() > LARGEST {
        let reason = format!("the state of {id} has {} bytes, more than {LARGEST}", state.len());
        return Err(BackendError::Never(reason.into()));
    }
    signed(fence).map(drop)
}

/// Returns a fence as the number that databases have.
///
/// # Errors
/// [`BackendError::Never`], with the reason.
pub fn signed(fence: Fence) -> Result<i64, BackendError> {
    i64::try_from(fence.0).map_err(|_| BackendError::Never(format!("the fence {fence} is beyond 63 bits").into()))
}

/// Returns whole milliseconds; none is lost. More than a hundred years count as a hundred.
#[must_use]
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.min(MAX_DURATION).as_millis()).unwrap_or(i64::MAX)
}

/// The ids of the rows that were written, for all listeners: see [`Backend::changes`].
#[derive(Debug)]
pub struct ChangeFeed(broadcast::Sender<RecordId>);

impl Default for ChangeFeed {
    fn default() -> Self {
        Self(broadcast::channel(FEED_CAPACITY).0)
    }
}

impl ChangeFeed {
    /// Passes on the id of a row.
    pub fn send(&self, id: RecordId) {
        // Without a listener, no request waits.
        let _ = self.0.send(id);
    }

    /// Returns the ids that come from now on.
    #[must_use]
    pub fn stream(&self) -> BoxStream<'static, RecordId> {
        let next = async |mut heard: broadcast::Receiver<RecordId>| loop {
            match heard.recv().await {
                Ok(id) => return Some((id, heard)),
                // This listener has missed some ids. Their waiters poll.
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                // The backend is gone.
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        };
        stream::unfold(self.0.subscribe(), next).boxed()
    }
}

/// The reason why a database is not open.
#[derive(Debug, thiserror::Error)]
pub enum NotOpen<E> {
    /// Another try may help.
    #[error("{0}")]
    Away(String),
    /// Another try would end like this one.
    #[error("{0}")]
    ForGood(E),
}

/// Tries to open a database until `deadline`, or until it fails for good. `reason` is that of a database that hangs.
///
/// # Errors
/// The error that is for good, or the last reason.
pub async fn tried<T, E, F: Future<Output = Result<T, NotOpen<E>>>>(
    deadline: Instant,
    mut reason: String,
    mut attempt: impl FnMut() -> F,
) -> Result<T, NotOpen<E>> {
    loop {
        match timeout_at(deadline, attempt()).await {
            Ok(Err(NotOpen::Away(why))) => reason = why,
            Ok(done) => return done,
            Err(_) => return Err(NotOpen::Away(reason)),
        }
        if Instant::now() + OPEN_RETRY_DELAY >= deadline {
            return Err(NotOpen::Away(reason));
        }
        sleep(OPEN_RETRY_DELAY).await;
    }
}

/// Opens a store over a database that is being opened.
///
/// # Errors
/// [`ConnectError::Open`] with the error of the database or of the store.
pub async fn connected<B: Backend, E: Error + Send + Sync + 'static>(
    database: impl Future<Output = Result<B, E>> + Send,
    store: SharedStoreBuilder,
) -> Result<SharedStore<B>, ConnectError> {
    let database = database.await.map_err(|error| ConnectError::Open(error.into()))?;
    store.open(database).await.map_err(|error| ConnectError::Open(error.into()))
}
