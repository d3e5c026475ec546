//! The permits that a call holds while it has a connection, and their end if the call is dropped.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The longest time for which the connection of a dropped call is kept.
const CONNECTION_KEPT: Duration = Duration::from_secs(3_600);

/// The right of a call to have a connection.
pub(crate) struct Place {
    /// The permits of the pool that the call has, given back when this is dropped.
    pub(crate) permits: Vec<OwnedSemaphorePermit>,
    /// The permits for the connections of dropped calls, which are kept in addition.
    pub(crate) dropped: Arc<Semaphore>,
    pub(crate) runtime: Handle,
    /// `true` if the connection is kept when the call is dropped.
    pub(crate) is_kept: bool,
}

impl Place {
    /// Keeps the connection of a call that was dropped: `task` ends it as soon as the server has answered.
    pub(crate) fn keep_until_over(self, mut task: JoinHandle<()>) {
        let Self { permits, dropped, runtime, .. } = self;
        // With a permit for dropped calls, those of the call are free at once. Without one, they stay taken.
        let permits = dropped.try_acquire_owned().map_or(permits, |instead| vec![instead]);
        runtime.spawn(async move {
            if timeout(CONNECTION_KEPT, &mut task).await.is_err() {
                task.abort();
            }
            drop(permits);
        });
    }
}
