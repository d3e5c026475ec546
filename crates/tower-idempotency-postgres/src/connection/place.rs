//! The permits that a call holds while it has a connection, and their end if the call is dropped.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The time for which the connection of a call that was dropped is kept.
const KEPT: Duration = Duration::from_secs(3_600);

/// The right of a call to have a connection.
pub(crate) struct Place {
    pub(crate) permits: Vec<OwnedSemaphorePermit>,
    /// For calls that were dropped.
    pub(crate) dropped: Arc<Semaphore>,
    pub(crate) runtime: Handle,
    /// `true` if the connection is kept when the call is dropped.
    pub(crate) is_kept: bool,
}

impl Place {
    /// Keeps the connection of a call that was dropped: `task` ends it as soon as the server has answered.
    pub(crate) fn keep_until_over(self, mut task: JoinHandle<()>) {
        let Self { permits, dropped, runtime, .. } = self;
        let permits = dropped.try_acquire_owned().map_or(permits, |instead| vec![instead]);
        runtime.spawn(async move {
            if timeout(KEPT, &mut task).await.is_err() {
                task.abort();
            }
            drop(permits);
        });
    }
}
