//! The state that the handles of a shared store have in common, and the store's tasks. `keep_listening` wakes the
//! waiters of `session/changes.rs`.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tower_idempotency::internals::panic_message;
use tower_idempotency::store::StoreError;

use super::backend::Backend;
use super::builder::SharedStoreBuilder;
use super::database::Database;
use super::database::clocks::ThreeClocks;
use super::database::errors::away;
use super::database::state::DatabaseState;
use super::protocol::Protocol;
use super::session::Sessions;
use super::session::changes::ChangeWaiters;
use super::session::own::Session;

/// The number of expired rows that are deleted at a time, and the time between two deletions.
const SWEPT: usize = 1_000;
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// The delay before a panicked task, or an ended stream of changes, is started again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// The time between two questions about what the database can lose.
const ASK_EVERY: Duration = Duration::from_secs(30);

/// A task that ends when this is dropped.
#[derive(Debug)]
pub struct Task(pub JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The state that all handles of a store share.
#[derive(Debug)]
pub(super) struct StoreInner<B> {
    pub(super) database: Arc<Database<B>>,
    /// The session of this process, which the tasks below renew, and those that it watches.
    sessions: Arc<Sessions<B>>,
    pub(super) protocol: Arc<Protocol<B>>,
    /// The waiters for rows that another process changes. `keep_listening` wakes them.
    pub(super) changes: ChangeWaiters,
    /// Set by `close`. New operations are refused then, and the session ends once nothing is under way.
    pub(super) is_closed: AtomicBool,
}

impl<B: Backend> StoreInner<B> {
    /// Creates the state. Calls are sent in `runtime`.
    pub(super) fn new(backend: B, settings: SharedStoreBuilder, runtime: &Handle) -> Arc<Self> {
        let SharedStoreBuilder { lease, call_timeout, calls, outcome_cache_bytes, clock, clocks_apart, .. } = settings;
        let state = DatabaseState::new(ThreeClocks::new(clock, clocks_apart), call_timeout, Arc::default());
        let database = Arc::new(Database::new(Arc::new(backend), Arc::new(state), calls.max(1), runtime));
        let sessions = Arc::new(Sessions::new(Session::new(lease), Arc::clone(&database)));
        let protocol = Protocol::new(Arc::clone(&database), Arc::clone(&sessions), outcome_cache_bytes);
        let (changes, is_closed) = (ChangeWaiters::default(), AtomicBool::new(false));
        Arc::new(Self { database, sessions, protocol, changes, is_closed })
    }

    /// Starts the store's tasks. A task that panics is started again.
    pub(super) fn start(self: &Arc<Self>, runtime: &Handle) -> Vec<Task> {
        type Keep<B> = fn(Arc<StoreInner<B>>) -> BoxFuture<'static, ()>;
        let tasks: [(&str, Keep<B>); 6] = [
            ("renewing the session", |inner| inner.keep_session().boxed()),
            ("watching other sessions", |inner| inner.keep_watching().boxed()),
            ("sweeping", |inner| inner.keep_sweeping().boxed()),
            ("asking what the database can lose", |inner| inner.keep_asking().boxed()),
            ("listening", |inner| inner.keep_listening().boxed()),
            ("putting back", |inner| Arc::clone(&inner.protocol).keep_restoring().boxed()),
        ];
        let start = |(what, task): (&'static str, Keep<B>)| {
            let inner = Arc::clone(self);
            Task(runtime.spawn(async move {
                while let Err(panic) = AssertUnwindSafe(task(Arc::clone(&inner))).catch_unwind().await {
                    let panic = panic_message(&*panic);
                    tracing::error!(target: "tower_idempotency", what, panic, "a task of the store panicked");
                    sleep(AGAIN_AFTER).await;
                }
            }))
        };
        tasks.map(start).into()
    }

    /// Asks the database for its time, and begins the session.
    pub(super) async fn begin(&self) -> Result<(), StoreError> {
        self.database.ask_time().await?;
        self.database.clocks().check()?;
        // The fences of these rows are a floor for those that this process gives.
        self.database.sessions().await.map_err(away)?;
        self.sessions.renew().await.map(drop)
    }

    /// Returns whether no run is under way, and no end of one.
    fn is_idle(&self) -> bool {
        self.protocol.slots.live() == 0 && self.protocol.ends.is_empty()
    }

    /// Refuses new operations, and ends the session if nothing is under way.
    pub(super) async fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        if self.is_idle() {
            self.sessions.end().await;
        }
    }

    /// Keeps the session until the store is closed and nothing is under way.
    async fn keep_session(self: Arc<Self>) {
        loop {
            let (lease, period) = (self.sessions.own.lease, self.sessions.own.period());
            let pause = match self.sessions.renew().await {
                // Other processes count from the first copy that was carried out, and this process from the first that
                // it sent.
                Ok(sent) if sent.elapsed() > lease / 6 => Duration::ZERO,
                Ok(_) => period,
                // The lease goes on running out, so the next try comes soon.
                Err(_) => period / 30,
            };
            sleep(pause).await;
            if self.is_closed.load(Ordering::SeqCst) && self.is_idle() {
                return self.sessions.end().await;
            }
        }
    }

    /// Watches the sessions of other processes.
    async fn keep_watching(self: Arc<Self>) {
        let sessions = &self.sessions;
        loop {
            match sessions.look_at_others().await {
                Ok(()) => sessions.others().due().await,
                Err(_) => sleep(sessions.own.period() / 30).await,
            }
            sessions.mark_long_over().await;
        }
    }

    /// Deletes rows that are past their expiry.
    async fn keep_sweeping(self: Arc<Self>) {
        let Protocol { slots, ends, .. } = &*self.protocol;
        loop {
            sleep(SWEEP_EVERY).await;
            self.changes.forget_unheard();
            let earliest = self.database.clocks().earliest();
            // This forgets questions without an answer and runs that ended without a transition. A run that was dropped
            // has no slot, and its end may still be on its way.
            self.sessions.held.retain(|id, row| {
                let is_within_bound = row.until.is_some_and(|until| until > earliest);
                is_within_bound || slots.has(id) || ends.has(*id)
            });
            // A full batch means that there may be more. An error ends this until the next round.
            while let Ok(SWEPT) = self.database.delete_expired(SWEPT).await {}
        }
    }

    /// Logs what the database can lose, when that changes.
    async fn keep_asking(self: Arc<Self>) {
        loop {
            sleep(ASK_EVERY).await;
            self.database.ask_guarantee().await;
        }
    }

    /// Passes on the notifications that rows have changed.
    async fn keep_listening(self: Arc<Self>) {
        loop {
            let mut changes = self.database.backend.changes();
            while let Some(id) = changes.next().await {
                self.changes.notify(&id);
            }
            // The stream should not have ended. Waiters find changes by reading.
            sleep(AGAIN_AFTER).await;
        }
    }
}
