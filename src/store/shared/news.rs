//! Who is told that a row has changed.

use ahash::RandomState;
use dashmap::DashMap;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::key::RecordId;

/// The ids that somebody listens for.
#[derive(Debug, Default)]
pub(super) struct News(DashMap<RecordId, watch::Sender<()>, RandomState>);

impl News {
    /// Returns a future that is ready when the row of `id` has changed since this call.
    pub(super) fn of(&self, id: RecordId) -> BoxFuture<'static, ()> {
        let mut told = self.0.entry(id).or_insert_with(|| watch::channel(()).0).subscribe();
        async move {
            if told.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        .boxed()
    }

    /// Tells those who listen for `id`.
    pub(super) fn tell(&self, id: &RecordId) {
        if let Some((_, listeners)) = self.0.remove(id) {
            let _ = listeners.send(());
        }
    }

    /// Forgets the ids for which nobody listens any more.
    pub(super) fn forget_unheard(&self) {
        self.0.retain(|_, listeners| listeners.receiver_count() > 0);
    }

    /// How many ids are kept.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
