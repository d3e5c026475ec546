//! Closes a store: the writer ends, the engine's handles are released, and the lock is given up, each within a time
//! limit.

use std::sync::{Arc, atomic::Ordering};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

use super::command::Command;
use super::layout::storage_engine::StorageEngine;
use super::store::EmbeddedStore;
use crate::store::StoreError;

/// The time that closing may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause before closing checks again whether all handles are gone.
const CLOSED_CHECK_DELAY: Duration = Duration::from_millis(10);

impl<E: StorageEngine> EmbeddedStore<E> {
    /// Finishes the work that was sent and closes the store, for all its handles. Returns when the directory can be
    /// opened again, or after ten seconds.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the application still holds a handle of the database that `db` lent, or the disk
    /// does not return. [`StoreError::Uncertain`] if the store is closed, but was poisoned, before or just now. What
    /// was answered is durable even then.
    ///
    /// # Cancel safety
    /// If the future is dropped, the store may be closed or still closing; call it again.
    // In this order: refuses commands, ends the writer, releases the engine, waits for other handles, gives up the
    // lock. After an error, another call goes on where this one was.
    pub async fn close(&self) -> Result<(), StoreError> {
        let shared = &self.0.shared;
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        shared.closed.store(true, Ordering::SeqCst);
        let (reply, finished) = oneshot::channel();
        if self.0.writer.send(Command::Close(reply)).is_ok() {
            // The inner result is an error if the thread has ended already.
            let _ = timeout_at(deadline, finished).await.map_err(|_| stuck())?;
        }
        let engine = shared.engine.write().take();
        if let Some(engine) = engine {
            // It may wait for the disk as long as it takes, so it is released on a thread of its own.
            let (done, dropped) = oneshot::channel();
            let releasing = Arc::clone(shared);
            let release = move || {
                releasing.release_engine(engine);
                let _ = done.send(());
            };
            let spawned = thread::Builder::new().name("idempotency-close".to_owned()).spawn(release);
            spawned.map_err(|error| StoreError::unavailable_by("no thread can be started", error))?;
            // The inner result is an error if the thread has panicked; then it holds nothing any more.
            let _ = timeout_at(deadline, dropped).await.map_err(|_| stuck())?;
        }
        // The engine's own threads may hold a handle a little longer, and the application holds a lent one for as long
        // as it likes. Another call may have given the directory up, and another opening may have it.
        while !shared.lock.is_given_up() && !E::is_closed(&shared.path) {
            if Instant::now() >= deadline {
                let held = "closed, but a handle of the database that was lent is still held; drop it";
                return Err(StoreError::unavailable(held));
            }
            sleep(CLOSED_CHECK_DELAY).await;
        }
        shared.lock.give_up();
        if shared.is_poisoned() {
            return Err(StoreError::uncertain("closed, though the database had failed"));
        }
        Ok(())
    }
}

/// The error if the writer, or the release of the engine, does not end in time.
fn stuck() -> StoreError {
    StoreError::unavailable("a write has not returned; is the disk all right?")
}
