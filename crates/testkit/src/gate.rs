//! A gate: where something waits until the test lets it go on.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

/// After how long a thread goes on all the same.
const GIVE_UP: Duration = Duration::from_secs(30);

/// A place in a handler where it waits until the test lets it go on; the test can wait until it is there. Clones are
/// the same gate.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    arrived: Arc<Notify>,
    permits: Arc<Permits>,
}

/// Closed, the semaphore lets everything through.
#[derive(Debug)]
struct Permits(Arc<Semaphore>);

impl Default for Permits {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }
}

impl Drop for Permits {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Gate {
    /// For the handler: says that it is here, and waits.
    pub async fn pass(&self) {
        self.arrived.notify_one();
        through(&self.permits.0).await;
    }

    /// For a thread, such as a store's writer: what it calls to do the same. It waits for a while only, and no longer
    /// than the test has the gate, so that a test that fails comes to its end.
    pub fn on_a_thread(&self) -> impl Fn() + Send + Sync + Clone + use<> {
        let (arrived, permits) = (Arc::clone(&self.arrived), Arc::clone(&self.permits.0));
        move || {
            arrived.notify_one();
            let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
            let _ = runtime.block_on(async { timeout(GIVE_UP, through(&permits)).await });
        }
    }

    /// For the test: waits until a handler is at the gate.
    pub async fn arrival(&self) {
        self.arrived.notified().await;
    }

    /// For the test: lets everything through from now on.
    pub fn open(&self) {
        self.permits.0.close();
    }

    /// For the test: lets so many through, now or when they come.
    pub fn admit(&self, count: usize) {
        self.permits.0.add_permits(count);
    }
}

async fn through(permits: &Semaphore) {
    // An error: it is open.
    if let Ok(permit) = permits.acquire().await {
        permit.forget();
    }
}
