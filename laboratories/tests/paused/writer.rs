//! sled's writer thread, held up: an application's own transaction has the database's lock, for as long as the test
//! wants. Every read of the database waits for it too, so these tests send only keys whose slot is taken, or whose
//! outcome is in memory.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use axum::body::Body;
use axum::response::IntoResponse as _;
use futures_util::future::join_all;
use futures_util::{FutureExt as _, poll};
use http::{Request, Response, StatusCode};
use testkit::Gate;
use testkit::control::is_control;
use testkit::history::{History, Told};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, service_fn};
use tower_idempotency::store::Abort;
use tower_idempotency::{IdempotencyContext, IdempotencyLayer, OnInterrupted, Release, SledStore};

use crate::sent::{App, send};

const SECOND: Duration = Duration::from_secs(1);
/// Past the store's time-out and `max_run`, and before a write is taken for failed.
const HELD: Duration = Duration::from_secs(50);
const MAX_RUN: Duration = Duration::from_secs(20);
/// In the machine's time, as is how long the database's lock is held at most.
const BOUND: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(5);
const TRIES: usize = 2_000;
const EFFECTS: &str = "effects";

/// What the handler does once it may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// It has not been asked yet.
    NotYet,
    Answers,
    /// Its effect is in one transaction with its record.
    Commits,
    Releases,
    Panics,
    /// It was done before all this.
    Done,
}

const ACTS: [Act; 6] = [Act::NotYet, Act::Answers, Act::Commits, Act::Releases, Act::Panics, Act::Done];

#[derive(Clone)]
struct Key {
    act: Act,
    reruns: bool,
    name: String,
    history: History,
    calls: Arc<AtomicUsize>,
    gate: Gate,
}

impl Key {
    fn new(act: Act, reruns: bool, history: &History) -> Self {
        let (name, history) = (format!("writer-{act:?}-{reruns}"), history.clone());
        Self { act, reruns, name, history, calls: Arc::default(), gate: Gate::default() }
    }

    fn app(&self, store: &SledStore) -> App {
        let policy = if self.reruns { OnInterrupted::Rerun } else { OnInterrupted::Refuse };
        let layer = IdempotencyLayer::new(store.clone()).on_interrupted(policy).max_run(MAX_RUN);
        let (key, store) = (self.clone(), store.clone());
        let handler = service_fn(move |mut request: Request<Body>| {
            let context = request.extensions_mut().remove().expect("the layer has put it there");
            key.clone().handle(context, store.clone()).map(Ok)
        });
        BoxCloneSyncService::new(ServiceBuilder::new().layer(layer).service(handler))
    }

    async fn handle(self, context: IdempotencyContext, store: SledStore) -> Response<Body> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let effects = store.db().expect("it is open").open_tree(EFFECTS).expect("a tree");
        let is_first = number == 1;
        if is_first && !matches!(self.act, Act::NotYet | Act::Done) {
            self.gate.pass().await;
        }
        let text = format!("charged by call {number}");
        match self.act {
            Act::Commits => {
                let (row, name, answer) = (format!("{}-{number}", self.name), self.name.clone(), text.clone());
                let committed = context.complete_in_trees(&store, [&effects], move |[effects]| {
                    effects.insert(row.as_bytes(), name.as_bytes())?;
                    Ok::<_, Abort<Infallible>>(Response::new(answer.clone().into()))
                });
                return match committed.await {
                    Ok(committed) => committed.into_response(),
                    Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
                };
            }
            Act::Releases if is_first => return (Release, "x-released").into_response(),
            // Without a message in the log.
            Act::Panics if is_first => std::panic::resume_unwind(Box::new("on purpose")),
            Act::NotYet | Act::Answers | Act::Releases | Act::Panics | Act::Done => {}
        }
        self.history.effect(&self.name);
        text.into_response()
    }

    async fn send(&self, app: App, patience: Duration) -> Told {
        send(&self.history, &self.name, app, "amount=1000", patience).await
    }

    fn is_settled(&self, told: &Told) -> bool {
        let ends_unknown = self.act == Act::Panics && !self.reruns;
        let unknown = ends_unknown && *told == Told::refused("outcome-unknown");
        unknown || matches!(told, Told::Outcome { .. })
    }

    fn runs(&self) -> usize {
        match self.act {
            Act::Panics if !self.reruns => 1,
            Act::Panics | Act::Releases => 2,
            Act::NotYet | Act::Answers | Act::Commits | Act::Done => 1,
        }
    }
}

/// The database's lock.
struct Held {
    release: mpsc::Sender<()>,
    thread: std::thread::JoinHandle<bool>,
}

impl Held {
    fn hold(store: &SledStore) -> Self {
        let tree = store.db().expect("it is open").open_tree("held").expect("a tree");
        let (release, released) = mpsc::channel::<()>();
        let (inside, is_inside) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let hold = |_: &sled::transaction::TransactionalTree| {
                let _ = inside.send(());
                Ok::<_, sled::transaction::ConflictableTransactionError<()>>(released.recv_timeout(BOUND).is_ok())
            };
            tree.transaction(hold).expect("the transaction succeeds")
        });
        is_inside.recv().expect("the transaction begins");
        Self { release, thread }
    }

    /// Releases the lock. Returns false if it was released before, because this thread waited for it.
    fn release(self) -> bool {
        let _ = self.release.send(());
        self.thread.join().expect("the transaction does not panic")
    }
}

/// Holds the writer up while runs are under way in every phase; says how often clients were put off, and what went
/// wrong. To be run with time standing still.
pub(crate) async fn hold_up(history: &History) -> (usize, Vec<String>) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = SledStore::open(directory.path()).expect("a new store");
    tokio::time::resume();
    let keys: Vec<_> =
        ACTS.iter().flat_map(|act| [false, true].map(|reruns| Key::new(*act, reruns, history))).collect();
    // A claim that leaves no trace is not sent to the writer, and what becomes of it without an outcome isn't either.
    let needs_trace = |act| matches!(act, Act::NotYet | Act::Releases | Act::Panics);
    let keys: Vec<_> = keys.into_iter().filter(|key| !key.reruns || !needs_trace(key.act)).collect();
    let mut requests: Vec<JoinHandle<Told>> = Vec::new();
    for key in &keys {
        let (one, app) = (key.clone(), key.app(&store));
        match key.act {
            Act::Done => drop(key.send(app, 30 * SECOND).await),
            Act::NotYet => {}
            Act::Answers | Act::Commits | Act::Releases | Act::Panics => {
                requests.push(tokio::spawn(async move { one.send(app, 2 * HELD).await }));
                key.gate.arrival().await;
            }
        }
    }
    tokio::time::pause();
    // Looked up, and its claim not sent yet.
    let not_yet = &keys[0];
    let mut asking = Box::pin(not_yet.send(not_yet.app(&store), 2 * HELD));
    assert!(poll!(&mut asking).is_pending(), "its run has not begun");

    let held = Held::hold(&store);
    keys.iter().for_each(|key| key.gate.open());
    let deadline = tokio::time::Instant::now() + HELD;
    // A control keeps nothing in memory either.
    let asked = keys.iter().filter(|key| key.act != Act::Done || !is_control());
    let put_off = join_all(asked.map(|key| come_and_go(key, &store, deadline))).await;
    let mut wrong = Vec::new();
    if requests.iter().any(JoinHandle::is_finished) {
        wrong.push("a request was answered while nothing could be durable".to_owned());
    }
    tokio::time::resume();
    if !held.release() {
        wrong.push("a slot was given up too early: its key was looked up in the database".to_owned());
    }
    asking.await;
    wrong.extend(join_all(keys.iter().map(|key| insist(key, &store))).await.into_iter().flatten());
    join_all(requests).await;

    store.close().await.expect("the store can be closed");
    let store = SledStore::open(directory.path()).expect("it opens again");
    wrong.extend(join_all(keys.iter().map(|key| insist(key, &store))).await.into_iter().flatten());
    let effects = store.db().expect("it is open").open_tree(EFFECTS).expect("a tree");
    for key in effects.iter().values() {
        history.effect(&String::from_utf8_lossy(&key.expect("the tree can be read")));
    }
    (put_off.into_iter().sum(), wrong)
}

/// Sends and gives up, again and again, until the deadline; says how often there was no outcome.
async fn come_and_go(key: &Key, store: &SledStore, deadline: tokio::time::Instant) -> usize {
    let mut put_off = 0;
    while tokio::time::Instant::now() < deadline {
        let told = key.send(key.app(store), 3 * SECOND).await;
        put_off += usize::from(!matches!(told, Told::Outcome { .. }));
        sleep(SECOND).await;
    }
    put_off
}

/// Sends until the key is settled; says what is wrong, if it never is.
async fn insist(key: &Key, store: &SledStore) -> Option<String> {
    let mut told = Told::Nothing;
    for _ in 0..TRIES {
        told = key.send(key.app(store), 30 * SECOND).await;
        if key.is_settled(&told) {
            let calls = key.calls.load(Ordering::SeqCst);
            return (calls != key.runs()).then(|| format!("{}: {calls} runs instead of {}", key.name, key.runs()));
        }
        sleep(PAUSE).await;
    }
    Some(format!("{}: stuck: {told:?}", key.name))
}
