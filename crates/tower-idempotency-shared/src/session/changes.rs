//! Notifications that a row has changed. `changed` in `store.rs` waits for them.

use ahash::RandomState;
use dashmap::DashMap;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tower_idempotency::RecordId;

/// The ids for whose changes there are waiters.
#[derive(Debug, Default)]
pub(crate) struct ChangeWaiters(DashMap<RecordId, watch::Sender<()>, RandomState>);

impl ChangeWaiters {
    /// Returns a future that is ready when the row of `id` has changed since this call.
    pub(crate) fn of(&self, id: RecordId) -> BoxFuture<'static, ()> {
        let mut changed = self.0.entry(id).or_insert_with(|| watch::channel(()).0).subscribe();
        async move {
            if changed.changed().await.is_err() {
                // The sender is gone without a notification, so no change is known.
                std::future::pending::<()>().await;
            }
        }
        .boxed()
    }

    /// Wakes the waiters of `id`.
    pub(crate) fn notify(&self, id: &RecordId) {
        if let Some((_, listeners)) = self.0.remove(id) {
            let _ = listeners.send(());
        }
    }

    /// Forgets the ids that have no waiters any more.
    pub(crate) fn forget_unheard(&self) {
        self.0.retain(|_, listeners| listeners.receiver_count() > 0);
    }

    /// Returns the number of ids that are kept.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
