//! A database, and processes over it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use testkit::Gate;
use testkit::lab::Lab;
use tokio::time::Instant;
use tower_idempotency::clock::{Clock, Timestamp};
use tower_idempotency::operations::{OperationRecord, Operations};
use tower_idempotency::{IdempotencyLayer, OnInterrupted, RecordId};
use tower_idempotency_conformance::memory_backend::MemoryBackend;
use tower_idempotency_shared::{Backend, Row, SharedStore, SharedStoreBuilder};

/// The store of most of these tests.
pub(crate) type Store = SharedStore<MemoryBackend>;

pub(crate) const LEASE: Duration = Duration::from_secs(30);
/// The time after which a process that can't reach the database any more counts as dead for the others: 17/12 of its
/// lease, and a moment.
pub(crate) const DEATH: Duration = Duration::from_millis(42_500 + 100);

/// Tokio's paused clock: time advances when all tasks are idle.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokioClock(Instant);

impl Default for TokioClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for TokioClock {
    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(1_790_000_000_000).plus(self.0.elapsed())
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Waits until a process whose session is not renewed any more counts as over for the others.
pub(crate) async fn until_over() {
    tokio::time::sleep(LEASE * 3 / 2).await;
}

/// Cuts the way of a process, which goes on, until the others count it as dead.
pub(crate) async fn lapse(way: &MemoryBackend) {
    way.cut();
    tokio::time::sleep(DEATH).await;
}

/// A database whose time is tokio's.
pub(crate) fn database() -> MemoryBackend {
    MemoryBackend::with_clock(TokioClock::default())
}

/// A process whose wall clock is the database's.
pub(crate) fn builder(backend: &MemoryBackend) -> SharedStoreBuilder {
    SharedStoreBuilder::default().clock(backend.database().clock())
}

/// A process over the database, once it has watched the sessions of others for long enough to know which are over.
pub(crate) async fn process(backend: &MemoryBackend) -> SharedStore<MemoryBackend> {
    let store = builder(backend).open(backend.clone()).await.unwrap();
    // The process starts a moment later, so that no session is renewed while a test counts calls.
    tokio::time::sleep(LEASE * 5 / 4 + Duration::from_secs(3)).await;
    store
}

/// The row of an operation.
pub(crate) fn row(backend: &MemoryBackend, id: RecordId) -> Option<Row> {
    backend.database().rows("").into_iter().find(|row| row.id == id)
}

/// The disputed outcomes, as operators see them.
pub(crate) async fn disputed<B: Backend>(store: &SharedStore<B>) -> Vec<OperationRecord> {
    Operations::over(store.clone(), LEASE).disputed(None, 9).await.unwrap().operations
}

/// Two processes over one database, each with its own connection.
pub(crate) async fn two() -> [(MemoryBackend, SharedStore<MemoryBackend>); 2] {
    let first = database();
    let second = first.another_process();
    let (one, other) = (process(&first).await, process(&second).await);
    [(first, one), (second, other)]
}

/// A server over `store`, whose handlers count their effects together with those of other servers.
#[derive(Clone, Default)]
pub(crate) struct Effects(Arc<AtomicUsize>);

impl Effects {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn server(&self, store: &SharedStore<MemoryBackend>, policy: OnInterrupted) -> Lab {
        let gate = Gate::default();
        gate.open();
        self.behind(IdempotencyLayer::new(store.clone()).on_interrupted(policy), &gate)
    }

    /// A server whose handlers take effect, and then wait at `gate`.
    pub(crate) fn behind(&self, layer: IdempotencyLayer<SharedStore<MemoryBackend>>, gate: &Gate) -> Lab {
        let (effects, gate) = (Arc::clone(&self.0), gate.clone());
        Lab::new(layer, move |_| {
            let number = effects.fetch_add(1, Ordering::SeqCst) + 1;
            let gate = gate.clone();
            async move {
                gate.pass().await;
                format!("effect {number}")
            }
        })
    }
}

/// Tokio's clock, whose wall can be set.
#[derive(Debug, Clone, Default)]
pub(crate) struct SetClock(TokioClock, Arc<std::sync::atomic::AtomicI64>);

impl SetClock {
    /// Another machine's clock, which shows the right time.
    pub(crate) fn another_process(&self) -> Self {
        Self(self.0, Arc::default())
    }

    /// Sets the wall clock this number of milliseconds ahead, or back.
    pub(crate) fn step(&self, by: i64) {
        self.1.fetch_add(by, Ordering::SeqCst);
    }
}

impl Clock for SetClock {
    fn wall(&self) -> Timestamp {
        let (wall, set) = (self.0.wall().as_millis(), self.1.load(Ordering::SeqCst));
        Timestamp::from_millis(wall.saturating_add_signed(set))
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
}
