//! What the handles of a shared store have in common, and the tasks that keep it alive.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ahash::RandomState;
use dashmap::DashMap;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::backend::{Answer, Backend, BackendError, Guarantee, Row};
use super::damaged::Damaged;
use super::ends::Ends;
use super::errors::{away, not_put};
use super::gets::Gets;
use super::news::News;
use super::puts::{Puts, Stands};
use super::reach::Reach;
use super::session::Renewed;
use super::watch::Reading;
use crate::clock::Timestamp;
use crate::key::RecordId;
use crate::panics::panic_message;
use crate::slots::Slots;
use crate::store::StoreError;
use crate::store::cache::Cache;

/// How many rows are deleted at a time that are past their expiry, and how often.
const SWEPT: usize = 1_000;
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// After how long a task begins again that has panicked, and those are heard again who have fallen silent.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How often the database is asked what it can lose.
const ASK_EVERY: Duration = Duration::from_secs(30);

/// What all handles of a store share.
#[derive(Debug)]
pub(super) struct Shelf<B> {
    /// For tasks that need all of it.
    pub(super) itself: Weak<Self>,
    pub(super) backend: Arc<B>,
    pub(super) slots: Arc<Slots>,
    pub(super) reach: Arc<Reach>,
    pub(super) gets: Gets,
    pub(super) puts: Puts<B>,
    /// A way of its own for what keeps this process alive, so that no queue is before it.
    pub(super) urgent: Puts<B>,
    /// The rows that name a session of this process: its runs, and what it asks about.
    pub(super) held: DashMap<RecordId, Row, RandomState>,
    /// Completed records, which do not change before they expire.
    pub(super) cache: Cache,
    /// Where the changes of rows are told to those who listen.
    pub(super) news: News,
    pub(super) ends: Arc<Ends>,
    pub(super) damaged: Damaged,
    pub(super) is_closed: AtomicBool,
    pub(super) guarantee: std::sync::Mutex<Option<Guarantee>>,
    /// Held while the session is renewed. Whether it has ended.
    renewing: Mutex<bool>,
    /// Held while something is written so that what was read may be told.
    pub(super) barriers: Mutex<()>,
}

impl<B: Backend> Shelf<B> {
    /// Its calls are sent in `runtime`, at most `calls` with writes at a time.
    pub(super) fn new(
        backend: Arc<B>,
        reach: Arc<Reach>,
        calls: usize,
        cache_bytes: u64,
        slots: Arc<Slots>,
        runtime: &Handle,
    ) -> Arc<Self> {
        let way = |calls| Puts::new(Arc::clone(&backend), Arc::clone(&reach), calls, runtime);
        let gets = Gets::start(Arc::clone(&backend), Arc::clone(&reach), runtime);
        let (puts, urgent) = (way(calls), way(1));
        Arc::new_cyclic(|itself| Self {
            itself: Weak::clone(itself),
            backend,
            slots,
            reach,
            gets,
            puts,
            urgent,
            held: DashMap::default(),
            cache: Cache::new(cache_bytes),
            news: News::default(),
            ends: Arc::default(),
            damaged: Damaged::default(),
            is_closed: AtomicBool::new(false),
            guarantee: std::sync::Mutex::default(),
            renewing: Mutex::new(false),
            barriers: Mutex::default(),
        })
    }

    /// Starts its tasks. Each begins again if it panics.
    pub(super) fn start(self: &Arc<Self>, runtime: &Handle) -> Vec<JoinHandle<()>> {
        type Task<B> = fn(Arc<Shelf<B>>) -> BoxFuture<'static, ()>;
        let tasks: [(&str, Task<B>); 6] = [
            ("renewing the session", |shelf| shelf.keep_session().boxed()),
            ("watching other sessions", |shelf| shelf.keep_watching().boxed()),
            ("sweeping", |shelf| shelf.keep_sweeping().boxed()),
            ("asking what the database can lose", |shelf| shelf.keep_asking().boxed()),
            ("listening", |shelf| shelf.keep_listening().boxed()),
            ("putting back", |shelf| shelf.keep_restoring().boxed()),
        ];
        let start = |(what, task): (&'static str, Task<B>)| {
            let shelf = Arc::clone(self);
            runtime.spawn(async move {
                while let Err(panic) = AssertUnwindSafe(task(Arc::clone(&shelf))).catch_unwind().await {
                    let panic = panic_message(&*panic);
                    tracing::error!(target: "tower_idempotency", what, panic, "a task of the store panicked");
                    sleep(AGAIN_AFTER).await;
                }
            })
        };
        tasks.map(start).into()
    }

    /// Asks the database for its time, and begins the session.
    pub(super) async fn begin(&self) -> Result<(), StoreError> {
        let (reach, sent) = (&self.reach, Instant::now());
        let clocks = reach.clocks.now();
        let answer = reach.call(|| self.backend.put(clocks, &[])).await;
        let Answer { now, server, .. } = answer.map_err(|error| away(Arc::new(error)))?;
        reach.answered(server, now, sent, false, None);
        reach.clocks.check()?;
        self.renew().await.map(drop)
    }

    /// Begins the session, or renews it. Returns when the renewal was sent first.
    pub(super) async fn renew(&self) -> Result<Instant, StoreError> {
        let has_ended = self.renewing.lock().await;
        if *has_ended {
            return Err(StoreError::unavailable("the store was closed"));
        }
        loop {
            let session = &self.reach.session;
            if !session.holds_half() {
                // The database was away, for others too.
                self.reach.others.start_over();
            }
            let renewal = session.renewal(self.over_before());
            let Stands { row, sent, .. } = self.urgent.put(renewal.clone(), None).await.map_err(not_put)?;
            match session.renewed(&renewal, row.as_ref(), sent) {
                Renewed::Yes => {
                    let lease = session.lease();
                    self.slots.lease.hold(renewal.id, sent + lease, lease / 6);
                    return Ok(sent);
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

    /// The time before which the bounds of all runs of this process are over, and none of them is under way, nor its
    /// end. A claim that is being made now has a later bound.
    fn over_before(&self) -> Timestamp {
        // The row may have an earlier bound than its answer said, if a failover has lost the copy of the claim that was
        // answered, and not the one before. No copy's bound ends before the operation began, which no copy stamps anew.
        let bounds = self.held.iter().filter_map(|row| row.until.map(|until| until.min(row.began)));
        bounds.fold(self.reach.clocks.earliest(), Timestamp::min)
    }

    /// Whether no run is under way, and no end of one.
    pub(super) fn is_idle(&self) -> bool {
        self.slots.live() == 0 && self.ends.is_empty()
    }

    /// Ends the session, so that nobody waits for its lease. If the database does not answer, the lease runs out.
    pub(super) async fn end(&self) {
        let end = async {
            // A renewal may be under way, and the database silent.
            let mut has_ended = self.renewing.lock().await;
            if !std::mem::replace(&mut *has_ended, true)
                && let Some(end) = self.reach.session.end()
            {
                let _ = self.urgent.put(end, None).await;
            }
        };
        let _ = timeout(self.reach.timeout() * 2, end).await;
    }

    /// Keeps the session until the store is closed and nothing is under way.
    pub(super) async fn keep_session(self: Arc<Self>) {
        loop {
            let (lease, period) = (self.reach.session.lease(), self.reach.session.period());
            let pause = match self.renew().await {
                // Others count from the first copy that was carried out, and this process from the first that it sent.
                Ok(sent) if sent.elapsed() > lease / 6 => Duration::ZERO,
                Ok(_) => period,
                Err(_) => period / 30,
            };
            sleep(pause).await;
            if self.is_closed.load(Ordering::SeqCst) && self.is_idle() {
                return self.end().await;
            }
        }
    }

    /// Watches the sessions of other processes.
    pub(super) async fn keep_watching(self: Arc<Self>) {
        let others = &self.reach.others;
        loop {
            match self.look_at_others().await {
                Ok(()) => others.due().await,
                Err(_) => sleep(self.reach.session.period() / 30).await,
            }
            for session in others.long_over() {
                if self.reach.session.holds_half() {
                    // What fails is tried at the next look.
                    let _ = self.declare_dead(session).await;
                }
            }
        }
    }

    /// Reads the sessions of other processes.
    async fn look_at_others(&self) -> Result<(), BackendError> {
        let reach = &self.reach;
        let (clocks, sent) = (reach.clocks.now(), Instant::now());
        let answer = reach.call(|| self.backend.sessions(clocks)).await;
        let Answer { now, server, rows } = answer.inspect_err(|error| reach.failed(error))?;
        reach.answered(server, now, sent, false, &rows);
        reach.others.read(sent);
        let unlisted = reach.others.unlisted(&rows);
        let own = reach.session.own();
        let rows = rows.into_iter().filter(|row| !own.contains(&row.id)).map(|row| (row.id, Some(row))).collect();
        reach.others.note(Reading { server, sent, rows });
        if unlisted.is_empty() {
            return Ok(());
        }
        let (clocks, sent) = (reach.clocks.now(), Instant::now());
        let answer = reach.call(|| self.backend.get(clocks, &unlisted)).await;
        let Answer { now, server, rows } = answer.inspect_err(|error| reach.failed(error))?;
        reach.answered(server, now, sent, false, rows.iter().flatten());
        reach.others.note(Reading { server, sent, rows: unlisted.into_iter().zip(rows).collect() });
        Ok(())
    }

    /// Deletes rows that are past their expiry.
    pub(super) async fn keep_sweeping(self: Arc<Self>) {
        loop {
            sleep(SWEEP_EVERY).await;
            self.news.forget_unheard();
            let earliest = self.reach.clocks.earliest();
            // What was asked about and not answered, or ended without a word to the store. A run that was dropped has
            // no slot, and its end may still be on its way.
            self.held.retain(|id, row| {
                let is_within_bound = row.until.is_some_and(|until| until > earliest);
                is_within_bound || self.slots.look(id).is_some() || self.ends.has(*id)
            });
            while let Ok(SWEPT) = self.delete_expired(SWEPT).await {}
        }
    }

    /// Deletes at most so many, and none while the clocks are not to be trusted with that.
    pub(super) async fn delete_expired(&self, limit: usize) -> Result<usize, BackendError> {
        if !self.reach.clocks.may_delete() {
            return Ok(0);
        }
        let clocks = self.reach.clocks.now();
        self.reach.call(|| self.backend.delete_expired(clocks, limit)).await
    }

    /// Says what the database can lose, at the start and when that changes.
    pub(super) async fn keep_asking(self: Arc<Self>) {
        loop {
            sleep(ASK_EVERY).await;
            self.ask().await;
        }
    }

    pub(super) async fn ask(&self) {
        if let Ok(guarantee) = self.reach.call(|| self.backend.guarantee()).await {
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
        loop {
            let mut changes = self.backend.changes();
            while let Some(id) = changes.next().await {
                self.news.tell(&id);
            }
            // It should not have ended. Those who wait find out by reading.
            sleep(AGAIN_AFTER).await;
        }
    }
}
