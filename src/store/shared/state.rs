//! What the handles of a shared store have in common, and the tasks that keep it alive.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ahash::RandomState;
use dashmap::DashMap;
use futures_util::StreamExt as _;
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::backend::{Backend, Guarantee, Row};
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
    pub(super) puts: Puts,
    /// The rows that name a session of this process: its runs, and what it asks about.
    pub(super) held: DashMap<RecordId, Row, RandomState>,
    /// Completed records, which do not change before they expire.
    pub(super) cache: Cache,
    /// Where the changes of rows are told to those who listen.
    pub(super) news: News,
    pub(super) endings: Endings,
    pub(super) is_closed: AtomicBool,
    pub(super) guarantee: std::sync::Mutex<Option<Guarantee>>,
    /// Held while the session is renewed.
    renewing: Mutex<()>,
}

impl<B: Backend> Shelf<B> {
    pub(super) fn new(backend: Arc<B>, reach: Arc<Reach>, puts: Puts, cache_bytes: u64) -> Self {
        Self {
            backend,
            slots: Arc::default(),
            reach,
            puts,
            held: DashMap::default(),
            cache: Cache::new(cache_bytes),
            news: News::default(),
            endings: Endings::default(),
            is_closed: AtomicBool::new(false),
            guarantee: std::sync::Mutex::default(),
            renewing: Mutex::new(()),
        }
    }

    /// Begins the session, or renews it.
    pub(super) async fn renew(&self) -> Result<(), StoreError> {
        let _alone = self.renewing.lock().await;
        loop {
            let renewal = self.reach.session.renewal();
            let Stands { row, sent, .. } = self.puts.put(renewal.clone(), None).await.map_err(not_put)?;
            match self.reach.session.renewed(&renewal, row.as_ref(), sent) {
                Renewed::Yes => {
                    let lease = self.reach.session.lease();
                    self.slots.lease.hold(sent + lease, lease / 6);
                    return Ok(());
                }
                Renewed::Dead => tracing::error!(
                    target: "tower_idempotency",
                    "another process took this one for dead, as its lease was not renewed in time; runs of this process \
                     that nobody has taken over may still end"
                ),
            }
        }
    }

    /// Ends the session, so that nobody waits for its lease.
    pub(super) async fn end(&self) {
        let _alone = self.renewing.lock().await;
        if let Some(end) = self.reach.session.end() {
            let _ = self.puts.put(end, None).await;
        }
    }

    /// Keeps the session until the store is closed.
    pub(super) async fn keep_session(self: Arc<Self>) {
        loop {
            let period = self.reach.session.period();
            let pause = match self.renew().await {
                Ok(()) => period,
                Err(_) => period / 30,
            };
            sleep(pause).await;
            if self.is_closed.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    /// Deletes rows that are past their expiry.
    pub(super) async fn keep_sweeping(self: Arc<Self>) {
        loop {
            sleep(SWEEP_EVERY).await;
            self.news.forget_unheard();
            while let Ok(SWEPT) = self.backend.delete_expired(SWEPT).await {}
        }
    }

    /// Says what the database can lose, at the start and when that changes.
    pub(super) async fn keep_asking(self: Arc<Self>) {
        loop {
            if let Ok(guarantee) = self.backend.guarantee().await {
                self.note(guarantee);
            }
            sleep(ASK_EVERY).await;
        }
    }

    pub(super) fn note(&self, guarantee: Guarantee) {
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
