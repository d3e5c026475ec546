//! A store whose clock the test sets, its keys, and the answer to each request, compared with the model.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::IntoResponse as _;
use futures_util::FutureExt as _;
use http::{Request, Response};
use laboratories::engine::{Embedded, Engine, Settings};
use tempfile::TempDir;
use testkit::history::{ClientAnswer, History};
use testkit::lab::post;
use testkit::{Answer, Gate, history};
use tokio::task::JoinHandle;
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt as _, service_fn};
use tower_idempotency::clock::{Clock, Timestamp};
use tower_idempotency::internals::Records as _;
use tower_idempotency::test_util::ManualClock;
use tower_idempotency::{AnyStore, IdempotencyLayer, MemoryStore, OnInFlight, OnInterrupted};

use crate::model::{Life, State, Time, millis};

/// The time at the start.
const START: u64 = 1_800_000_000_000;
/// The variable that makes the control give stores a clock whose monotonic time follows the wall clock.
pub(crate) const CLOCK: &str = "JUMPS_CLOCK";
pub(crate) const FOLLOWS: &str = "follows";

/// The clock of the stores, which the test sets.
#[derive(Debug, Clone)]
struct Hands {
    clock: ManualClock,
    /// `true` for a monotonic time that is not steady: the control must notice this.
    follows_wall: bool,
}

impl Hands {
    fn new() -> Self {
        let follows_wall = std::env::var(CLOCK).is_ok_and(|clock| clock == FOLLOWS);
        Self { clock: ManualClock::new(Timestamp::from_millis(START)), follows_wall }
    }
}

impl Clock for Hands {
    fn wall(&self) -> Timestamp {
        self.clock.wall()
    }

    fn monotonic(&self) -> Duration {
        if self.follows_wall { Duration::from_millis(self.wall().as_millis()) } else { self.clock.monotonic() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Memory,
    Embedded(Engine),
}

/// The treatment of a retry after an interrupted run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    Refuse,
    Rerun,
}

/// An act of the handler. Every act charges first.
#[derive(Clone)]
enum Act {
    Answers,
    Waits(Gate),
    Panics,
}

/// One key, and the state that the store should have of it.
struct Key {
    name: String,
    life: Life,
    state: State,
    /// The number of times that its record expired. The history takes it for another key after each of them.
    generation: usize,
    running: Option<(Gate, JoinHandle<ClientAnswer>)>,
}

impl Key {
    /// Returns the key's name in the history.
    fn alias(&self) -> String {
        format!("{}@{}", self.name, self.generation)
    }
}

/// The figures of all worlds.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) jumps: usize,
    pub(crate) restarts: usize,
    pub(crate) requests: usize,
    pub(crate) keys: usize,
    /// The number of records that expired early, by a jump forward across a restart.
    pub(crate) early: usize,
    pub(crate) violations: Vec<String>,
}

pub(crate) struct World<'a> {
    policy: Policy,
    clock: Hands,
    pub(crate) time: Time,
    any: AnyStore,
    embedded: Option<(TempDir, Engine, Embedded)>,
    keys: Vec<Key>,
    runs: Arc<AtomicUsize>,
    history: History,
    figures: &'a mut Figures,
    /// The most records that the store can have swept so far.
    expired: usize,
    swept: usize,
}

impl<'a> World<'a> {
    pub(crate) fn new(kind: Kind, policy: Policy, figures: &'a mut Figures) -> Self {
        let clock = Hands::new();
        let (any, embedded) = match kind {
            Kind::Memory => (AnyStore::new(MemoryStore::builder().clock(clock.clone()).build()), None),
            Kind::Embedded(engine) => {
                let directory = tempfile::tempdir().expect("a temporary directory");
                let store = open(engine, &directory, &clock);
                (store.any(), Some((directory, engine, store)))
            }
        };
        let history = History::new(match policy {
            Policy::Refuse => history::Policy::Refuse,
            Policy::Rerun => history::Policy::Rerun,
        });
        let (time, keys, runs) = (Time::new(START), Vec::new(), Arc::default());
        Self { policy, clock, time, any, embedded, keys, runs, history, figures, expired: 0, swept: 0 }
    }

    /// Adds a key that was never used.
    pub(crate) fn key(&mut self, life: Life) -> usize {
        let name = format!("key-{}-{life:?}", self.keys.len());
        self.keys.push(Key { name, life, state: State::Absent, generation: 0, running: None });
        self.keys.len() - 1
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        self.clock.clock.advance(by);
        self.time.advance(by);
    }

    /// Sets the wall clock.
    pub(crate) fn jump(&mut self, wall: u64) {
        self.figures.jumps += 1;
        self.set(wall);
    }

    fn set(&mut self, wall: u64) {
        self.clock.clock.jump(Timestamp::from_millis(wall));
        self.time.wall = wall;
    }

    /// Ends the process, sets the wall clock, and opens the store in the next process.
    pub(crate) async fn restart(&mut self, wall: u64) {
        // The store's last write has the last time that it has seen, so the test writes something now.
        let last = self.key(Life::Long);
        self.request(last).await;
        let before = self.time.now();
        self.figures.jumps += usize::from(wall != self.time.wall);
        let (directory, engine, store) = self.embedded.take().expect("the other one forgets");
        store.close().await.expect("the store can be closed");
        self.set(wall);
        self.time.reopen();
        let now = self.time.now();
        for key in &mut self.keys {
            if let Some((_, run)) = key.running.take() {
                run.abort();
            }
            self.figures.early += usize::from(!key.state.has_expired(before) && key.state.has_expired(now));
            if key.state == State::Running {
                key.state = match self.policy {
                    Policy::Refuse => State::Interrupted { expires: now + millis(key.life.interrupted()) },
                    // The claim left no trace.
                    Policy::Rerun => State::Absent,
                };
            }
        }
        let store = open(engine, &directory, &self.clock);
        self.any = store.any();
        self.embedded = Some((directory, engine, store));
        self.history.crashed();
        self.figures.restarts += 1;
    }

    /// Sends the request, and compares its answer with the model.
    pub(crate) async fn request(&mut self, key: usize) {
        self.forget_expired(key);
        let Key { state, life, .. } = self.keys[key];
        let told = self.send(key, Act::Answers).await.await.expect("the task does not panic");
        let is_outcome = matches!(told, ClientAnswer::Outcome { .. });
        let is_run = self.runs.swap(0, Ordering::SeqCst) > 0;
        let expected = match (state, self.policy) {
            (State::Absent, _) | (State::Interrupted { .. }, Policy::Rerun) => is_outcome && is_run,
            (State::Completed { .. }, _) => is_outcome && !is_run,
            (State::Interrupted { .. }, Policy::Refuse) => told == ClientAnswer::refused("outcome-unknown") && !is_run,
            (State::Running, _) => told == ClientAnswer::refused("in-flight") && !is_run,
        };
        if !expected {
            self.wrong(key, &format!("was {state:?}; ran {is_run}, told {told:?}"));
        }
        if is_run {
            self.keys[key].state = State::Completed { expires: self.time.now() + millis(life.outcome()) };
        }
    }

    /// Begins a run that waits in its handler.
    pub(crate) async fn begin(&mut self, key: usize) {
        self.forget_expired(key);
        if self.keys[key].state != State::Absent {
            return;
        }
        let gate = Gate::default();
        let mut run = self.send(key, Act::Waits(gate.clone())).await;
        tokio::select! {
            () = gate.arrival() => {}
            told = &mut run => return self.wrong(key, &format!("was absent; did not run, told {told:?}")),
        }
        self.runs.store(0, Ordering::SeqCst);
        self.keys[key].state = State::Running;
        self.keys[key].running = Some((gate, run));
    }

    /// Ends the run that waits in the key's handler.
    pub(crate) async fn finish(&mut self, key: usize) {
        let Some((gate, run)) = self.keys[key].running.take() else { return };
        gate.open();
        let told = run.await.expect("the task does not panic");
        if !matches!(told, ClientAnswer::Outcome { .. }) {
            self.wrong(key, &format!("was running; told {told:?}"));
        }
        let expires = self.time.now() + millis(self.keys[key].life.outcome());
        self.keys[key].state = State::Completed { expires };
    }

    /// Leaves an interrupted run.
    pub(crate) async fn leave_interrupted(&mut self, key: usize) {
        self.forget_expired(key);
        if self.keys[key].state != State::Absent {
            return;
        }
        self.send(key, Act::Panics).await.await.expect("the task does not panic");
        self.runs.store(0, Ordering::SeqCst);
        let expires = self.time.now() + millis(self.keys[key].life.interrupted());
        self.keys[key].state = match self.policy {
            Policy::Refuse => State::Interrupted { expires },
            Policy::Rerun => State::Absent,
        };
    }

    /// Sweeps, and checks that the store swept no record that had not expired.
    pub(crate) async fn sweep(&mut self) {
        self.swept += self.any.sweep(1_000).await.expect("the store works");
        let now = self.time.now();
        let due = self.keys.iter().filter(|key| key.state.has_expired(now)).count();
        if self.swept > self.expired + due {
            let line = format!("{} records were swept, of {} that had expired", self.swept, self.expired + due);
            self.figures.violations.push(line);
            self.swept = self.expired + due;
        }
    }

    /// Makes the key a new one if its record has expired.
    fn forget_expired(&mut self, key: usize) {
        let (now, key) = (self.time.now(), &mut self.keys[key]);
        if key.state.has_expired(now) {
            self.expired += 1;
            key.state = State::Absent;
            key.generation += 1;
        }
    }

    async fn send(&mut self, key: usize, act: Act) -> JoinHandle<ClientAnswer> {
        self.figures.requests += 1;
        let Key { life, .. } = self.keys[key];
        let (name, alias) = (self.keys[key].name.clone(), self.keys[key].alias());
        let policy = match self.policy {
            Policy::Refuse => OnInterrupted::Refuse,
            Policy::Rerun => OnInterrupted::Rerun,
        };
        let layer = IdempotencyLayer::new(self.any.clone()).on_interrupted(policy).on_in_flight(OnInFlight::Reject);
        let layer = layer.retention(life.outcome()).interrupted_retention(life.interrupted());
        let (history, runs, effect) = (self.history.clone(), Arc::clone(&self.runs), alias.clone());
        // Each answer differs from all others.
        let number = self.figures.requests;
        let handler = service_fn(move |_: Request<Body>| {
            history.effect(&effect);
            runs.fetch_add(1, Ordering::SeqCst);
            handle(act.clone(), number).map(Ok::<_, Infallible>)
        });
        let app = BoxCloneSyncService::new(ServiceBuilder::new().layer(layer).service(handler));
        let (history, ticket) = (self.history.clone(), self.history.sent(&alias, "charge"));
        tokio::spawn(async move {
            let Ok(response) = app.oneshot(post(&name, "amount=1000")).await;
            let told = ClientAnswer::of(&Answer::of(response).await);
            history.answered(ticket, told.clone());
            told
        })
    }

    fn wrong(&mut self, key: usize, what: &str) {
        let line = format!("{}, {:?}, at {}: {what}", self.keys[key].alias(), self.policy, self.time.now());
        self.figures.violations.push(line);
    }

    /// Returns the keys of this life.
    pub(crate) fn of(&self, life: Life) -> Vec<usize> {
        (0..self.keys.len()).filter(|key| self.keys[*key].life == life).collect()
    }

    pub(crate) fn next_expiry(&self, keys: &[usize]) -> Option<Duration> {
        let expiries = keys.iter().filter_map(|key| self.keys[*key].state.expires());
        let next = expiries.filter(|expires| *expires > self.time.now()).min()?;
        Some(Duration::from_millis(next - self.time.now()))
    }

    pub(crate) fn end(self) {
        let Self { history, figures, .. } = self;
        figures.keys += history.keys();
        figures.violations.extend(history.violations());
    }
}

async fn handle(act: Act, number: usize) -> Response<Body> {
    match act {
        Act::Answers => {}
        Act::Waits(gate) => gate.pass().await,
        // This leaves out the panic's message, which would be in the log.
        Act::Panics => std::panic::resume_unwind(Box::new("on purpose")),
    }
    format!("run {number}").into_response()
}

fn open(engine: Engine, directory: &TempDir, clock: &Hands) -> Embedded {
    let settings = Settings { clock: Some(Arc::new(clock.clone())), ..Settings::default() };
    engine.open(directory.path(), settings).expect("the store can be opened")
}
