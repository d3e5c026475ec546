//! The store that applications open over a [`Backend`]: a claim and an end both come in here, and a look does before
//! them. `engine/watch.rs` of tower-idempotency calls its `changed`.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};
use tower_idempotency::RecordId;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::internals;
use tower_idempotency::internals::{
    Completion, Cursor, Fence, List, ListedRecord, Page, Record, Records, Reply, Sealed, Slots, Stepped, Transition,
};
use tower_idempotency::store::{Gauges, Health, Store, StoreError};

use super::backend::{Backend, Guarantee};
use super::builder::SharedStoreBuilder;
use super::database::errors::away;
use super::inner::{StoreInner, Task};
use super::protocol::Protocol;
use super::protocol::step::taken_back;
use super::protocol::transaction::PendingTransaction;
use super::run_record::RunRecord;
use super::spawn_on_drop::SpawnOnDrop;

/// The longest lease, and so a limit of the wait for a process that has died.
const MAX_LEASE: Duration = Duration::from_secs(86_400);

/// Keeps records in a database that several processes share, through a [`Backend`].
///
/// This is a handle, and its clones share everything. Each opening counts as a process of its own: it has a session,
/// which it renews every third of its lease, and at least every 10 seconds. A process whose session has not changed for
/// 5/4 of its lease counts as dead, and its runs as interrupted. Their outcomes are still recorded, unless another
/// process has taken the operation over or settled it.
///
/// # Durability
/// Recorded outcomes are as durable as the database makes them: see [`guarantee`](Self::guarantee).
pub struct SharedStore<B: Backend> {
    inner: Arc<StoreInner<B>>,
    /// The store's tasks, which end with its last handle.
    tasks: Arc<Vec<Task>>,
}

impl SharedStoreBuilder {
    /// Opens the store, and begins this process's session. The store's tasks run in the runtime in which this is
    /// called.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the database can't be reached in time, or refuses, if the lease is too short or
    /// too long, or if the clocks are more than [`clocks_apart`](Self::clocks_apart) apart.
    ///
    /// # Cancel safety
    /// If the future is dropped, a session may have begun, which lapses.
    pub async fn open<B: Backend>(self, backend: B) -> Result<SharedStore<B>, StoreError> {
        let Self { lease, call_timeout, open_within, .. } = self;
        if lease < call_timeout.saturating_mul(6) || lease > MAX_LEASE {
            let reason = format!(
                "a lease of {lease:?} is too short or too long: give at least six times the call timeout, which is \
                 {call_timeout:?}, and at most a day"
            );
            return Err(internals::unavailable(reason));
        }
        let runtime = Handle::current();
        let inner = StoreInner::new(backend, self, &runtime);
        let end = Instant::now() + open_within;
        loop {
            match timeout_at(end, inner.begin()).await {
                Ok(Ok(())) => break,
                Ok(Err(_)) if Instant::now() < end && !inner.database.clocks().are_apart() => {
                    sleep(call_timeout / 10).await;
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(internals::unavailable("the database did not answer in time")),
            }
        }
        inner.database.ask_guarantee().await;
        let tasks = inner.start(&runtime);
        Ok(SharedStore { inner, tasks: Arc::new(tasks) })
    }
}

impl<B: Backend> SharedStore<B> {
    /// Opens a store over `backend` with the default settings: see [`SharedStoreBuilder::open`].
    ///
    /// # Errors
    /// As [`SharedStoreBuilder::open`].
    ///
    /// # Cancel safety
    /// As [`SharedStoreBuilder::open`].
    pub async fn open(backend: B) -> Result<Self, StoreError> {
        Self::builder().open(backend).await
    }

    /// Returns a builder with the default settings.
    pub fn builder() -> SharedStoreBuilder {
        SharedStoreBuilder::default()
    }

    /// Returns the backend.
    #[must_use]
    pub fn backend(&self) -> &B {
        &self.inner.database.backend
    }

    /// Returns the number of ids whose changes are awaited, and the number of runs of this process.
    #[doc(hidden)]
    #[must_use]
    pub fn kept(&self) -> (usize, usize) {
        (self.inner.changes.len(), self.inner.protocol.sessions.held.len())
    }

    /// Returns what the database promises and what it can lose, by its last answer. Returns `None` if it has not
    /// answered yet.
    #[must_use]
    pub fn guarantee(&self) -> Option<Guarantee> {
        self.inner.database.guarantee()
    }

    /// Returns the record of a run, for a transaction of the application, and a value that finds out afterwards whether
    /// it was written: see [`Protocol::complete_apart`].
    #[doc(hidden)]
    #[must_use]
    pub fn complete_apart(&self, completion: Completion, is_free: bool) -> Option<(RunRecord, PendingTransaction<B>)> {
        self.inner.protocol.complete_apart(completion, is_free)
    }

    /// Returns this process's session.
    #[doc(hidden)]
    #[must_use]
    pub fn session(&self) -> RecordId {
        self.inner.protocol.sessions.own.id()
    }

    /// Lets all processes give fences above this one, from their openings on. For a tool that moves records from
    /// another store while no other process has this one open.
    ///
    /// # Errors
    /// [`StoreError`] if the database is away.
    #[doc(hidden)]
    pub async fn raise_fences(&self, above: Fence) -> Result<(), StoreError> {
        self.operate(async move |protocol| protocol.raise_fences(above).await).await
    }

    /// Returns the runtime of the store's tasks.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.inner.database.runtime
    }

    /// Looks something up in the store's runtime, so that a caller that is not polled can't hold a permit. If the
    /// caller drops this, the lookup ends.
    async fn within<T: Send + 'static>(
        &self,
        look_up: BoxFuture<'static, Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let (reply, found) = oneshot::channel();
        let look_up = self.runtime().spawn(async move { drop(reply.send(look_up.await)) });
        let _looking = Task(look_up);
        found.await.unwrap_or_else(|_| Err(internals::unavailable("the store's runtime is gone")))
    }

    /// Does something for an operator or a tool, which no request waits for.
    async fn operate<T: Send + 'static, F>(&self, up: impl FnOnce(Arc<Protocol<B>>) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        if self.is_closed() {
            return Err(closed());
        }
        self.within(Box::pin(up(Arc::clone(&self.inner.protocol)))).await
    }

    /// Refuses transitions that do not end a run while the store is closed, behind, or without its database.
    fn admit(&self, transition: &Transition) -> Result<(), StoreError> {
        let is_claim = transition.claim().is_some();
        if self.is_closed() {
            Err(closed())
        } else if is_claim && self.inner.database.writes.is_behind() {
            Err(StoreError::Overloaded { reason: "the database is behind" })
        } else if is_claim && !self.inner.database.state.admits() {
            Err(internals::unavailable("the database does not answer"))
        } else {
            Ok(())
        }
    }

    fn is_closed(&self) -> bool {
        self.inner.is_closed.load(Ordering::SeqCst)
    }
}

impl<B: Backend> Clone for SharedStore<B> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), tasks: Arc::clone(&self.tasks) }
    }
}

impl<B: Backend> std::fmt::Debug for SharedStore<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedStore")
            .field("backend", &self.inner.database.backend)
            .field("health", &self.health())
            .finish()
    }
}

#[doc(hidden)]
impl<B: Backend> Sealed for SharedStore<B> {}

#[doc(hidden)]
impl<B: Backend> Records for SharedStore<B> {
    fn slots(&self) -> &Arc<Slots> {
        &self.inner.protocol.slots
    }

    fn is_exclusive(&self) -> bool {
        false
    }

    fn recall(&self, id: RecordId) -> Option<Record> {
        self.inner.protocol.recall(id)
    }

    async fn load(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        if self.is_closed() {
            return Err(closed());
        }
        if let Some(record) = self.recall(id) {
            return Ok(Some(record));
        }
        let protocol = Arc::clone(&self.inner.protocol);
        self.within(Box::pin(async move { protocol.load(id).await })).await
    }

    async fn adopt(&self, records: Vec<(RecordId, Record)>) -> Result<Vec<Stepped>, StoreError> {
        self.operate(async move |protocol| protocol.adopt(records).await).await
    }

    fn apply(&self, id: RecordId, transition: Transition) -> impl Future<Output = Result<Stepped, StoreError>> + Send {
        let protocol = Arc::clone(&self.inner.protocol);
        let step = match &transition {
            // Runs that are still under way may record their end even after the store was closed.
            Transition::Complete(_) | Transition::Release(_) | Transition::Interrupt { .. } => {
                let under_way = protocol.ends.begin(id);
                let ending = async move {
                    let _under_way = under_way;
                    step(&protocol, id, &transition).await
                };
                Ok(SpawnOnDrop::new(self.runtime(), ending, |_| ready(()).boxed()))
            }
            // Claims, questions and settlements.
            _ => self.admit(&transition).map(|()| {
                let taken_back = taken_back(&transition);
                let full = transition.claim().and_then(|_| protocol.database.backend.full());
                let claiming = {
                    let protocol = Arc::clone(&protocol);
                    async move {
                        // A key with a record needs no room.
                        if let Some(limit) = full
                            && Box::pin(protocol.load(id)).await?.is_none()
                        {
                            return Err(StoreError::Full { limit });
                        }
                        step(&protocol, id, &transition).await
                    }
                };
                // The caller has gone, so a claim that was granted is given back. Other results leave nothing.
                let on_abandoned = move |applied| match (applied, taken_back) {
                    (Ok(Stepped { reply: Reply::Taken, record: Some(record) }), Some(taken_back)) => {
                        async move { protocol.give_back(id, taken_back(record.fence)).await }.boxed()
                    }
                    _ => ready(()).boxed(),
                };
                SpawnOnDrop::new(self.runtime(), claiming, on_abandoned)
            }),
        };
        async move { step?.await? }
    }

    async fn list(&self, list: List, after: Option<Cursor>, limit: usize) -> Result<Page, StoreError> {
        self.operate(async move |protocol| protocol.list(list, after, limit).await).await
    }

    fn now(&self) -> Timestamp {
        self.inner.database.clocks().earliest()
    }

    async fn inspect(&self, id: RecordId) -> Result<Option<ListedRecord>, StoreError> {
        self.operate(async move |protocol| protocol.inspect(id).await).await
    }

    async fn disputed_outcome(&self, id: RecordId, fence: Fence) -> Result<Option<Bytes>, StoreError> {
        self.operate(async move |protocol| protocol.disputed_outcome(id, fence).await).await
    }

    async fn sweep(&self, limit: usize) -> Result<usize, StoreError> {
        let database = Arc::clone(&self.inner.database);
        let sweep = async move { database.delete_expired(limit).await.map_err(away) };
        self.within(Box::pin(sweep)).await
    }

    fn changed(&self, id: RecordId) -> BoxFuture<'static, ()> {
        self.inner.changes.of(id)
    }
}

impl<B: Backend> Store for SharedStore<B> {
    fn name(&self) -> &'static str {
        B::NAME
    }

    fn health(&self) -> Health {
        if self.is_closed() {
            return Health::Closed;
        }
        match (self.inner.database.state.health(), self.backend().full()) {
            (Health::Good, Some(limit)) => Health::Full { limit },
            (health, _) => health,
        }
    }

    fn gauges(&self) -> Gauges {
        let lease = &self.slots().lease;
        let mut gauges = self.backend().gauges();
        gauges.queue = Some(self.inner.database.writes.waiting() as u64);
        gauges.lease = lease.session().map(|session| lease.left(session));
        gauges
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await;
        Ok(())
    }
}

/// Takes a step. If it panics, it may have been taken.
async fn step<B: Backend>(
    protocol: &Protocol<B>,
    id: RecordId,
    transition: &Transition,
) -> Result<Stepped, StoreError> {
    if let Transition::Adopt(record) = transition {
        let adopted = Box::pin(protocol.adopt(vec![(id, Record::clone(record))])).await?.pop();
        return adopted.ok_or_else(|| internals::unavailable("the database has not answered for the record"));
    }
    let step = AssertUnwindSafe(protocol.step(id, transition)).catch_unwind().await;
    step.unwrap_or_else(|_| Err(internals::uncertain("the store panicked")))
}

fn closed() -> StoreError {
    internals::unavailable("the store was closed")
}
