//! What the handles of a shared store have in common, and the tasks that keep it alive.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ahash::RandomState;
use dashmap::DashMap;
use futures_util::StreamExt as _;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use super::backend::{Backend, BackendError, Guarantee, Row};
use super::endings::Endings;
use super::errors::not_put;
use super::news::News;
use super::puts::{Puts, Stands};
use super::reach::Reach;
use super::session::Renewed;
use crate::key::RecordId;
use crate::slots::Slots;
use crate::store::StoreError;
use crate::store::cache::Cache;

/// How many rows are deleted at a time that are past their expiry, and how often.
const SWEPT: usize = 1_000;
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// How often the database is asked what it can lose.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// What all handles of a store share.
#[derive(Debug)]
pub(super) struct Shelf<B> {
    pub(super) backend: Arc<B>,
    pub(super) slots: Arc<Slots>,
    pub(super) reach: Arc<Reach>,
    pub(super) puts: Puts<B>,
    /// A way of its own for what keeps this process alive, so that no queue is before it.
    pub(super) urgent: Puts<B>,
    /// The rows that name a session of this process: its runs, and what it asks about.
    pub(super) held: DashMap<RecordId, Row, RandomState>,
    /// Completed records, which do not change before they expire.
    pub(super) cache: Cache,
    /// Where the changes of rows are told to those who listen.
    pub(super) news: News,
    pub(super) endings: Endings,
    pub(super) is_closed: AtomicBool,
    pub(super) guarantee: std::sync::Mutex<Option<Guarantee>>,
    /// Held while the session is renewed. Whether it has ended.
    renewing: Mutex<bool>,
}

impl<B: Backend> Shelf<B> {
    pub(super) fn new(backend: Arc<B>, reach: Arc<Reach>, puts: Puts<B>, urgent: Puts<B>, cache_bytes: u64) -> Self {
        Self {
            backend,
            slots: Arc::default(),
            reach,
            puts,
            urgent,
            held: DashMap::default(),
            cache: Cache::new(cache_bytes),
            news: News::default(),
            endings: Endings::default(),
            is_closed: AtomicBool::new(false),
            guarantee: std::sync::Mutex::default(),
            renewing: Mutex::new(false),
        }
    }

    /// Begins the session, or renews it.
    pub(super) async fn renew(&self) -> Result<(), StoreError> {
        let has_ended = self.renewing.lock().await;
        if *has_ended {
            return Err(StoreError::unavailable("the store was closed"));
        }
        loop {
            let session = &self.reach.session;
            let renewal = session.renewal();
            let Stands { row, sent, .. } = self.urgent.put(renewal.clone(), None).await.map_err(not_put)?;
            match session.renewed(&renewal, row.as_ref(), sent) {
                Renewed::Yes => {
                    let lease = session.lease();
                    self.slots.lease.hold(renewal.id, sent + lease, lease / 6);
                    return Ok(());
                }
                Renewed::Again => sleep(self.reach.timeout() / 100).await,
                Renewed::Dead => tracing::error!(
                    target: "tower_idempotency",
                    "another process took this one for dead, as its lease was not renewed in time; runs of this process \
                     that nobody has taken over may still end"
                ),
            }
        }
    }

    /// Whether no run is under way, and no end of one.
    pub(super) fn is_idle(&self) -> bool {
        self.slots.live() == 0 && self.endings.is_empty()
    }

    /// Ends the session, so that nobody waits for its lease. If the database does not answer, the lease runs out.
    pub(super) async fn end(&self) {
        let mut has_ended = self.renewing.lock().await;
        if !std::mem::replace(&mut *has_ended, true)
            && let Some(end) = self.reach.session.end()
        {
            let _ = timeout(self.reach.timeout() * 2, self.urgent.put(end, None)).await;
        }
    }

    /// Keeps the session until the store is closed and nothing is under way.
    pub(super) async fn keep_session(self: Arc<Self>) {
        loop {
            let period = self.reach.session.period();
            let pause = match self.renew().await {
                Ok(()) => period,
                Err(_) => period / 30,
            };
            sleep(pause).await;
            if self.is_closed.load(Ordering::SeqCst) && self.is_idle() {
                return self.end().await;
            }
        }
    }

    /// Deletes rows that are past their expiry.
    pub(super) async fn keep_sweeping(self: Arc<Self>) {
        loop {
            sleep(SWEEP_EVERY).await;
            self.news.forget_unheard();
            let now = self.reach.session.now();
            // What was asked about and not answered.
            self.held.retain(|_, row| row.until.is_some_and(|until| until > now));
            while let Ok(SWEPT) = self.delete_expired(SWEPT).await {}
        }
    }

    pub(super) async fn delete_expired(&self, limit: usize) -> Result<usize, BackendError> {
        self.reach.call(self.backend.delete_expired(limit)).await
    }

    /// Says what the database can lose, at the start and when that changes.
    pub(super) async fn keep_asking(self: Arc<Self>) {
        loop {
            sleep(ASK_EVERY).await;
            self.ask().await;
        }
    }

    pub(super) async fn ask(&self) {
        if let Ok(guarantee) = self.reach.call(self.backend.guarantee()).await {
            self.note(guarantee);
        }
    }

    fn note(&self, guarantee: Guarantee) {
        let mut known = self.guarantee.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if known.as_ref() == Some(&guarantee) {
            return;
        }
        let Guarantee { setup, loses } = &guarantee;
        if loses.is_empty() {
            tracing::info!(target: "tower_idempotency", setup, "the database loses nothing that it has answered");
        } else {
            let loses = loses.join("; ");
            tracing::warn!(target: "tower_idempotency", setup, loses, "the database can lose what it has answered");
        }
        *known = Some(guarantee);
    }

    /// Tells those who listen which rows have changed.
    pub(super) async fn keep_listening(self: Arc<Self>) {
        let mut changes = self.backend.changes();
        while let Some(id) = changes.next().await {
            self.news.tell(&id);
        }
    }
}
