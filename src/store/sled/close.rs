//! Closing: the writer ends, sled's handles go, the lock is given up, each within bounds.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, atomic::Ordering};
use std::thread;
use std::time::Duration;

use backon::{ConstantBuilder, Retryable as _};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::pins::pinned;
use super::queue::Sender;
use super::state::{Database, Shared};
use super::verb::Verb;
use crate::store::StoreError;

/// How long closing may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How far apart closing looks whether sled has given its file up.
const PAUSE: Duration = Duration::from_millis(10);

pub(super) async fn close(shared: &Arc<Shared>, writer: &Sender<Verb>) -> Result<(), StoreError> {
    let deadline = Instant::now() + DEADLINE;
    shared.closed.store(true, Ordering::SeqCst);
    let (reply, finished) = oneshot::channel();
    if writer.send(Verb::Close(reply)).is_ok() {
        // An error within: the thread has ended already.
        let _ = timeout_at(deadline, finished).await.map_err(|_| stuck())?;
    }
    let database = shared.database.write().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(database) = database {
        drop_apart(Arc::clone(shared), database, deadline).await?;
    }
    wait_for_file(shared, deadline).await?;
    drop(shared.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    if shared.is_poisoned() {
        return Err(StoreError::uncertain("closed, though the database had failed"));
    }
    Ok(())
}

/// On a thread of its own, which may wait for the disk as long as it likes.
async fn drop_apart(shared: Arc<Shared>, database: Database, deadline: Instant) -> Result<(), StoreError> {
    let (done, dropped) = oneshot::channel();
    let drop = move || {
        let_go(&shared, database);
        let _ = done.send(());
    };
    let spawned = thread::Builder::new().name("idempotency-close".to_owned()).spawn(drop);
    spawned.map_err(|error| StoreError::Unavailable {
        reason: "no thread can be started".to_owned(),
        source: Some(error.into()),
    })?;
    // An error within: the thread has ended without a word, and holds nothing any more.
    let _ = timeout_at(deadline, dropped).await.map_err(|_| stuck())?;
    Ok(())
}

/// Drops sled's handles. The last one to go writes once more, and panics where that fails.
pub(super) fn let_go(shared: &Shared, database: Database) {
    if catch_unwind(AssertUnwindSafe(|| pinned(|| drop(database)))).is_err() {
        shared.poison("the database panicked while it was closed".to_owned());
    }
}

/// sled's threads may hold its file a little longer; a handle that was lent holds it as long as it lives.
async fn wait_for_file(shared: &Shared, deadline: Instant) -> Result<(), StoreError> {
    let file = shared.path.join("db");
    let free = || async { File::open(&file).is_ok_and(|file| file.try_lock().is_ok()).then_some(()).ok_or(()) };
    let pauses = ConstantBuilder::default().with_delay(PAUSE).without_max_times();
    match timeout_at(deadline, free.retry(pauses).sleep(tokio::time::sleep)).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(StoreError::unavailable("closed, but a sled::Db or sled::Tree that was lent is still held; drop it")),
    }
}

fn stuck() -> StoreError {
    StoreError::unavailable("a write has not returned; is the disk all right?")
}
