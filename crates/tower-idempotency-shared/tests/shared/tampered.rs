//! A database whose calls go wrong in ways that the database in memory lacks.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use testkit::Gate;
use testkit::lab::operator::Operated as _;
use testkit::lab::steps::{Claimed, Steps as _, wish};
use testkit::lab::{Lab, done, hold, id, post, settle};
use tower_idempotency::clock::Timestamp;
use tower_idempotency::engine::{Reconciled, Reconciler};
use tower_idempotency::internals::{Completion, Records as _, Reply, RunResult, State};
use tower_idempotency::store::{Health, Store as _, StoreError};
use tower_idempotency::{IdempotencyLayer, OnInterrupted, RecordId};
use tower_idempotency_conformance::memory_backend::{Call, MemoryBackend};
use tower_idempotency_shared::{
    Answer, Backend, BackendError, BoxStream, Clocks, GRACE, Guarantee, Kind, Row, SharedStore, Write,
};

use crate::world::{DEATH, Effects, LEASE, builder, database, disputed, process};

/// A fault of every call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tamper {
    Nothing,
    /// The process has too many calls under way.
    Crowds,
    /// The backend has a bug.
    Panics,
    /// The next put is done, and panics then.
    PanicsAfterAPut,
    /// The database takes no large rows.
    TakesNoLargeRows,
    /// An application has the row of the key `locked` locked.
    HasOneLocked,
}

#[derive(Debug, Clone)]
struct Tampered {
    database: MemoryBackend,
    tamper: Arc<Mutex<Tamper>>,
    /// The number of rows that were asked for.
    asked: Arc<AtomicUsize>,
}

impl Tampered {
    fn new() -> Self {
        Self { database: database(), tamper: Arc::new(Mutex::new(Tamper::Nothing)), asked: Arc::default() }
    }

    /// A process over such a database, once it trusts the leases of others.
    async fn process() -> (Self, SharedStore<Self>) {
        let backend = Self::new();
        let store = builder(&backend.database).open(backend.clone()).await.unwrap();
        tokio::time::sleep(LEASE + Duration::from_secs(1)).await;
        (backend, store)
    }

    fn set(&self, tamper: Tamper) {
        *self.tamper.lock().unwrap() = tamper;
    }

    fn tamper(&self) -> Result<(), BackendError> {
        let tamper = *self.tamper.lock().unwrap();
        match tamper {
            Tamper::Nothing | Tamper::PanicsAfterAPut | Tamper::TakesNoLargeRows | Tamper::HasOneLocked => Ok(()),
            Tamper::Crowds => Err(BackendError::Crowded("the test said so".into())),
            Tamper::Panics => std::panic::resume_unwind(Box::new("on purpose")),
        }
    }
}

impl Backend for Tampered {
    // This one panics before it returns a future.
    fn get(
        &self,
        clocks: Clocks,
        ids: &[RecordId],
    ) -> impl Future<Output = Result<Answer<Vec<Option<Row>>>, BackendError>> + Send {
        let tampered = self.tamper();
        self.asked.fetch_add(ids.len(), Ordering::Relaxed);
        async move {
            tampered?;
            self.database.get(clocks, ids).await
        }
    }

    async fn put(&self, clocks: Clocks, writes: &[Write]) -> Result<Answer<Vec<Option<Row>>>, BackendError> {
        self.tamper()?;
        let is_large = |write: &Write| write.state.len() > 1_024;
        if *self.tamper.lock().unwrap() == Tamper::TakesNoLargeRows && writes.iter().any(is_large) {
            return Err(BackendError::Never("it is too large".into()));
        }
        if *self.tamper.lock().unwrap() == Tamper::HasOneLocked && writes.iter().any(|write| write.id == id("locked")) {
            return Err(BackendError::Busy("one of them is locked".into()));
        }
        let answer = self.database.put(clocks, writes).await;
        if *self.tamper.lock().unwrap() == Tamper::PanicsAfterAPut {
            self.set(Tamper::Nothing);
            std::panic::resume_unwind(Box::new("on purpose"));
        }
        answer
    }

    async fn sessions(&self, clocks: Clocks) -> Result<Answer<Vec<Row>>, BackendError> {
        self.tamper()?;
        self.database.sessions(clocks).await
    }

    async fn list(
        &self,
        clocks: Clocks,
        alive: &[RecordId],
        after: Option<(Timestamp, RecordId)>,
        limit: usize,
    ) -> Result<Answer<Vec<Row>>, BackendError> {
        self.tamper()?;
        self.database.list(clocks, alive, after, limit).await
    }

    async fn scan(
        &self,
        clocks: Clocks,
        after: Option<RecordId>,
        limit: usize,
    ) -> Result<Answer<Vec<Row>>, BackendError> {
        self.tamper()?;
        self.database.scan(clocks, after, limit).await
    }

    async fn delete_expired(&self, clocks: Clocks, limit: usize) -> Result<usize, BackendError> {
        self.tamper()?;
        self.database.delete_expired(clocks, limit).await
    }

    fn changes(&self) -> BoxStream<'static, RecordId> {
        let backend = self.clone();
        let tampered = move |id| {
            let _ = backend.tamper();
            id
        };
        self.database.changes().map(tampered).boxed()
    }

    async fn guarantee(&self) -> Result<Guarantee, BackendError> {
        self.tamper()?;
        self.database.guarantee().await
    }
}

// Seeded faults: such a call counts as a failure of the database; its write is given up.
#[tokio::test(start_paused = true)]
async fn a_call_that_finds_no_connection_free_is_no_failure_of_the_database() {
    let (backend, store) = Tampered::process().await;
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    backend.set(Tamper::Crowds);
    let first = join_all((0..9).map(|number| {
        let lab = lab.clone();
        async move { lab.post(&format!("k{number}"), "a").await }
    }));
    let (answers, ()) = tokio::join!(first, async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(store.health(), Health::Good);
        backend.set(Tamper::Nothing);
    });
    assert!(answers.iter().all(|answer| answer.text().starts_with("effect")), "{answers:?}");
    assert_eq!(store.health(), Health::Good);
}

// A seeded fault: the error states that the database does not answer.
#[tokio::test(start_paused = true)]
async fn a_reading_that_finds_no_connection_free_is_refused_as_overloaded() {
    let (backend, store) = Tampered::process().await;
    backend.set(Tamper::Crowds);
    let listed = IdempotencyLayer::new(store.clone()).interrupted(9).await;
    assert!(matches!(listed, Err(StoreError::Overloaded { .. })), "{listed:?}");
    let read = store.load(id("k")).await;
    assert!(matches!(read, Err(StoreError::Overloaded { .. })), "{read:?}");
}

// A seeded fault: a panic ends the task that asked.
#[tokio::test(start_paused = true)]
async fn a_backend_that_panics_is_away_until_it_does_no_more() {
    let (backend, store) = Tampered::process().await;
    let layer = IdempotencyLayer::new(store.clone());
    let (lab, gate) = Lab::gated(layer.clone());
    let run = lab.spawn(post("k", "a"));
    gate.arrival().await;
    backend.set(Tamper::Panics);
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 1", "the effect took place");
    tokio::time::sleep(LEASE).await;
    assert!(matches!(store.health(), Health::Away { .. }), "{:?}", store.health());
    assert!(layer.interrupted(9).await.is_err());
    assert_eq!(lab.post("new", "a").await.problem(), "store-unavailable");
    backend.set(Tamper::Nothing);
    tokio::time::sleep(LEASE).await;
    assert_eq!(store.health(), Health::Good);
    let kinds: Vec<_> = backend.database.database().rows("").iter().map(|row| row.kind).collect();
    assert!(kinds.contains(&Kind::Completed), "the outcome is recorded: {kinds:?}");
    assert!(layer.drain(LEASE).await.is_complete());
    // The session is kept, and rows that have been past their expiry for long enough are swept.
    tokio::time::sleep(Duration::from_secs(86_400) + GRACE + LEASE).await;
    let rows = backend.database.database().rows("");
    assert!(rows.iter().all(|row| row.kind == Kind::Session), "{rows:?}");
    assert_eq!(rows.len(), 1);
}

// A seeded fault: a write whose call panicked is taken for not done.
#[tokio::test(start_paused = true)]
async fn a_write_whose_call_panicked_is_sent_again() {
    let (backend, store) = Tampered::process().await;
    let lab = Lab::counting(IdempotencyLayer::new(store));
    backend.set(Tamper::PanicsAfterAPut);
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    let written = backend.database.database().written();
    let kinds: Vec<_> = written.iter().filter(|write| write.id == id("k")).map(|write| write.kind).collect();
    assert_eq!(kinds, [Kind::Running, Kind::Running, Kind::Completed]);
}

// A seeded fault: a task of the store that has panicked is over.
#[tokio::test(start_paused = true)]
async fn a_store_listens_again_after_a_panic() {
    let (backend, store) = Tampered::process().await;
    let other = process(&backend.database.another_process()).await;
    let (effects, gate) = (Effects::default(), Gate::default());
    backend.set(Tamper::Panics);
    assert_eq!(effects.server(&other, OnInterrupted::Refuse).post("k", "a").await.text(), "effect 1");
    settle().await;
    backend.set(Tamper::Nothing);
    tokio::time::sleep(LEASE).await;
    let run = effects.behind(IdempotencyLayer::new(other), &gate).spawn(post("new", "a"));
    gate.arrival().await;
    let duplicate = Lab::counting(IdempotencyLayer::new(store)).spawn(post("new", "a"));
    settle().await;
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 2");
    settle().await;
    assert!(duplicate.is_finished(), "it was told at once");
    assert_eq!(duplicate.await.unwrap().text(), "effect 2");
}

// A seeded fault: rows are read one by one.
#[tokio::test(start_paused = true)]
async fn a_row_that_many_ask_for_is_read_once() {
    let (backend, store) = Tampered::process().await;
    let held = backend.database.hold(Call::Get);
    let look_ups = (0..100).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.load(id("k")).await })
    });
    let look_ups: Vec<_> = look_ups.collect();
    settle().await;
    held.release();
    for look_up in look_ups {
        assert_eq!(look_up.await.unwrap().unwrap(), None);
    }
    // Requests that come while it is read must not get a row that was read before they came.
    let asked = backend.asked.load(Ordering::Relaxed);
    assert!(asked <= 3, "{asked}");
}

// A seeded fault: a row without a waiter is read all the same.
#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_any_more_is_not_read() {
    let (backend, store) = Tampered::process().await;
    let held = backend.database.hold(Call::Get);
    let look_up = |key: &str| {
        let (store, id) = (store.clone(), id(key));
        tokio::spawn(async move { store.load(id).await })
    };
    let mut look_ups = Vec::new();
    for key in ["k", "l"] {
        look_ups.push(look_up(key));
        settle().await;
    }
    let gone = look_up("m");
    settle().await;
    gone.abort();
    settle().await;
    held.release();
    for look_up in look_ups {
        look_up.await.unwrap().unwrap();
    }
    settle().await;
    assert_eq!(backend.asked.load(Ordering::Relaxed), 2);
}

/// A server whose handlers answer with more than the database takes, once the gate lets them.
fn large(store: &SharedStore<Tampered>, gate: &Gate) -> (IdempotencyLayer<SharedStore<Tampered>>, Lab) {
    let (layer, gate) = (IdempotencyLayer::new(store.clone()), gate.clone());
    let lab = Lab::new(layer.clone(), move |_| {
        let gate = gate.clone();
        async move {
            gate.pass().await;
            "x".repeat(2_000)
        }
    });
    (layer, lab)
}

// A seeded fault: the run counts as interrupted.
#[tokio::test(start_paused = true)]
async fn an_outcome_that_is_too_large_for_the_database_is_consumed() {
    let (backend, store) = Tampered::process().await;
    backend.set(Tamper::TakesNoLargeRows);
    let gate = Gate::default();
    gate.open();
    let (layer, lab) = large(&store, &gate);
    assert_eq!(lab.post("k", "a").await.text().len(), 2_000, "the client gets it all the same");
    let retry = lab.post("k", "a").await;
    assert_eq!(retry.problem(), "not-replayable");
    assert!(retry.text().contains("was answered, and that answer is not stored"), "{}", retry.text());
    let counts = layer.stats();
    assert_eq!((counts.consumed, counts.unsaved, counts.runs), (1, 0, 1));
}

// A seeded fault: each outcome of such a call is consumed.
#[tokio::test(start_paused = true)]
async fn an_outcome_that_goes_together_with_one_that_is_too_large_for_the_database_is_recorded() {
    let backend = Tampered::new();
    let store = builder(&backend.database).calls(1).open(backend.clone()).await.unwrap();
    let (large, small) = (hold(&store, "large").await, hold(&store, "small").await);
    backend.set(Tamper::TakesNoLargeRows);
    // While a claim is on its way, the outcomes gather.
    let held = backend.database.hold(Call::Put);
    let claiming = store.claim(wish("k"));
    let too_large = RunResult::Outcome(vec![b'x'; 2_000].into());
    let too_large = store.complete(Completion { result: too_large, ..done(large, "", LEASE) });
    let let_go = async {
        settle().await;
        held.release();
    };
    let (_, too_large, fits, ()) =
        tokio::join!(claiming, too_large, store.complete(done(small, "small", LEASE)), let_go);
    assert_eq!((too_large.unwrap(), fits.unwrap()), (Reply::Taken, Reply::Taken));
    let state = async |key| store.load(id(key)).await.unwrap().expect("it is there").state;
    assert!(matches!(state("large").await, State::Consumed { .. }));
    assert_eq!(state("small").await, State::Completed { outcome: "small".into() });
}

// A seeded fault: all writes of such a call are sent again later.
#[tokio::test(start_paused = true)]
async fn a_claim_that_goes_together_with_one_whose_row_is_locked_does_not_wait_for_it() {
    let backend = Tampered::new();
    let store = builder(&backend.database).calls(1).open(backend.clone()).await.unwrap();
    let claiming = |key: &'static str| {
        let store = store.clone();
        tokio::spawn(async move { store.claim(wish(key)).await })
    };
    backend.set(Tamper::HasOneLocked);
    // While a claim is on its way, the others gather.
    let held = backend.database.hold(Call::Put);
    let first = claiming("first");
    settle().await;
    let (locked, free) = (claiming("locked"), claiming("free"));
    settle().await;
    held.release();
    settle().await;
    assert_eq!([first.is_finished(), free.is_finished(), locked.is_finished()], [true, true, false]);
    backend.set(Tamper::Nothing);
    for claimed in [first, free, locked] {
        assert!(matches!(claimed.await.unwrap().unwrap(), Claimed::Fresh(_)));
    }
}

// A seeded fault: the operation counts as consumed, though its record is another run's.
#[tokio::test(start_paused = true)]
async fn a_disputed_outcome_that_is_too_large_for_the_database_is_listed() {
    let (backend, store) = Tampered::process().await;
    let other = process(&backend.database.another_process()).await;
    let gate = Gate::default();
    let (layer, lab) = large(&store, &gate);
    let run = lab.spawn(post("k", "a"));
    gate.arrival().await;
    backend.database.cut();
    tokio::time::sleep(DEATH).await;
    let says = Reconciler::<http::Response<String>>::new(|_| async { Reconciled::RunAgain });
    let again = Lab::counting(IdempotencyLayer::new(other.clone()).reconcile_with(says));
    assert_eq!(again.post("k", "a").await.text(), "effect 1");
    backend.database.mend();
    backend.set(Tamper::TakesNoLargeRows);
    gate.open();
    assert_eq!(run.await.unwrap().problem(), "outcome-unknown");
    let disputed = disputed(&other).await;
    assert_eq!(disputed.iter().map(|outcome| outcome.id).collect::<Vec<_>>(), [id("k")]);
    assert_eq!((layer.stats().disputed, layer.stats().consumed), (1, 0));
}
