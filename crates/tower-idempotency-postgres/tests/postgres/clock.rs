//! A database whose clock is set, under processes whose clocks are right.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use testkit::{Gate, skipped};
use tokio::time::timeout;
use tower::ServiceExt as _;
use tower_idempotency::internals::Records as _;
use tower_idempotency::{IdempotencyLayer, OnInFlight, OnInterrupted};
use tower_idempotency_postgres::PostgresStore;
use tower_idempotency_shared::SharedStoreBuilder;

use crate::complete_in::process as in_one;
use crate::lab::{Lab, PostgresServer, builder, until};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const LEASE: Duration = Duration::from_secs(6);

/// A server with a clock of its own.
fn server(promise: &str) -> Option<PostgresServer> {
    PostgresServer::with_a_clock(&[]).map_err(|obstacle| skipped(promise, &obstacle)).ok()
}

/// A process whose handler counts its runs, and waits at a gate in each.
#[derive(Clone)]
struct Process {
    store: PostgresStore,
    runs: Arc<AtomicUsize>,
    gate: Gate,
}

impl Process {
    /// Its lease is short, and each call may take a second.
    async fn new(url: &str, namespace: &str, runs: &Arc<AtomicUsize>) -> Self {
        let backend = builder(url, namespace).open().await.unwrap();
        let store = SharedStoreBuilder::default().call_timeout(Duration::from_secs(1)).lease(LEASE).open(backend).await;
        Self { store: store.unwrap(), runs: Arc::clone(runs), gate: Gate::default() }
    }

    async fn at(lab: &Lab, runs: &Arc<AtomicUsize>) -> Self {
        Self::new(&lab.url, &lab.namespace, runs).await
    }

    /// Sends a request with this key. Returns the status, the body, and whether it was replayed.
    async fn send(&self, key: &str) -> (StatusCode, String, bool) {
        let Self { store, runs, gate } = self.clone();
        let run = move || async move {
            let run = runs.fetch_add(1, Ordering::SeqCst);
            gate.pass().await;
            format!("run {run}")
        };
        let layer = IdempotencyLayer::new(store).on_interrupted(OnInterrupted::Rerun).on_in_flight(OnInFlight::Reject);
        let request = Request::post("/").header("idempotency-key", key).body(Body::empty()).unwrap();
        let answer = Router::new().route("/", post(run)).layer(layer).oneshot(request).await.unwrap();
        let (status, replayed) = (answer.status(), answer.headers().contains_key("idempotent-replayed"));
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap(), replayed)
    }

    /// Does the same until the database has answered: a database whose clock was set may have ended a statement.
    async fn told(&self, key: &str) -> (StatusCode, String, bool) {
        let begin = Instant::now();
        loop {
            // A second run would wait at the gate.
            let answer = timeout(Duration::from_secs(60), self.send(key)).await.expect("it is not run again");
            if answer.0 != StatusCode::SERVICE_UNAVAILABLE {
                return answer;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "{answer:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Returns the number of seconds by which the database's clock is ahead.
async fn ahead(lab: &Lab) -> i64 {
    let now = lab.client.query_one("SELECT extract(epoch FROM clock_timestamp())::int8", &[]).await.unwrap();
    let machine = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    now.get::<_, i64>(0) - i64::try_from(machine).unwrap()
}

async fn set(server: &PostgresServer, lab: &Lab, seconds: i64) {
    server.set_clock(seconds);
    let ahead = ahead(lab).await;
    assert!((ahead - seconds).abs() < 5 * MINUTE, "the database's clock is not set: {ahead} s ahead");
}

/// The records are made by a clock that is right, and read by one that is 25 hours ahead and by one that is right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_runs_again_while_or_after_the_database_is_a_day_ahead() {
    let Some(server) = server("a database that is a day ahead") else { return };
    let (lab, runs) = (Lab::new(&server.url()).await, Arc::default());
    let one = Process::at(&lab, &runs).await;
    let keys: Vec<String> = (0..20).map(|number| format!("order-{number}")).collect();
    one.gate.admit(keys.len());
    let mut answers = Vec::new();
    for key in &keys {
        answers.push((StatusCode::OK, one.told(key).await.1, true));
    }
    for seconds in [25 * HOUR, 0] {
        set(&server, &lab, seconds).await;
        // One process has all of them in memory, and one has just been started.
        for process in [one.clone(), Process::at(&lab, &runs).await] {
            for (key, answer) in keys.iter().zip(&answers) {
                assert_eq!(&process.told(key).await, answer, "{seconds} s ahead");
            }
            assert_eq!(process.store.sweep(1_000).await.unwrap(), 0, "{seconds} s ahead");
        }
    }
    assert_eq!(runs.load(Ordering::SeqCst), keys.len());
}

/// The database's clock alone would end its retention at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_recorded_while_the_database_is_a_day_behind_is_kept() {
    let Some(server) = server("a database that is a day behind") else { return };
    let (lab, runs) = (Lab::new(&server.url()).await, Arc::default());
    lab.client.batch_execute(in_one::TABLE).await.unwrap();
    let one = Process::at(&lab, &runs).await;
    let in_transaction = in_one::Process::new(&lab).await;
    set(&server, &lab, -25 * HOUR).await;
    one.gate.admit(1);
    let (status, body, _) = one.told("order").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    // With its record in a transaction of the application.
    let charge = in_one::handler(in_one::charge);
    until("a charge", async || in_transaction.send("charge", &charge).await.0 == StatusCode::OK).await;
    set(&server, &lab, 0).await;
    for process in [one.clone(), Process::at(&lab, &runs).await] {
        assert_eq!(process.told("order").await, (StatusCode::OK, body.clone(), true));
    }
    let other = in_one::Process::new(&lab).await;
    until("the charge", async || other.send("charge", &charge).await == (StatusCode::OK, "charged".to_owned(), true))
        .await;
    assert_eq!((runs.load(Ordering::SeqCst), in_one::charges(&lab, "charge").await), (1, 1));
}

/// The bound of a run is eleven minutes: set back before the claim, or ahead after it, a clock of the database alone
/// would end it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_living_run_is_not_run_again_though_the_database_s_clock_is_set() {
    let Some(server) = server("a living run while the database's clock is set") else { return };
    let (lab, runs) = (Lab::new(&server.url()).await, Arc::default());
    let (one, other) = (Process::at(&lab, &runs).await, Process::at(&lab, &runs).await);
    let jumps = [(0, 15 * MINUTE), (15 * MINUTE, 0), (0, -15 * MINUTE), (-15 * MINUTE, 0)];
    for (number, (before, after)) in jumps.into_iter().enumerate() {
        let key = format!("{before}-{after}");
        set(&server, &lab, before).await;
        let sent = tokio::spawn({
            let (one, key) = (one.clone(), key.clone());
            async move { one.told(&key).await }
        });
        until("the run", async || runs.load(Ordering::SeqCst) == number + 1).await;
        set(&server, &lab, after).await;
        // Its session is renewed every two seconds: six times is more than the wait of 17/12 of a lease.
        let session = "SELECT s.token::text FROM idempotency.record s JOIN idempotency.record r \
            ON r.namespace = s.namespace AND r.session = s.id WHERE r.namespace = $1 AND r.kind = 1";
        let mut renewals = HashSet::new();
        until("six renewals", async || {
            let (status, body, _) = other.told(&key).await;
            assert_eq!(status, StatusCode::CONFLICT, "{key}: {body}");
            assert!(body.contains("in-flight"), "{key}: {body}");
            renewals.insert(lab.client.query_one(session, &[&lab.namespace]).await.unwrap().get::<_, String>(0));
            renewals.len() > 6
        })
        .await;
        one.gate.admit(1);
        let (status, body, _) = sent.await.unwrap();
        assert_eq!(status, StatusCode::OK, "{key}: {body}");
        assert_eq!(other.told(&key).await, (StatusCode::OK, body, true), "{key}");
        assert_eq!(runs.load(Ordering::SeqCst), number + 1, "{key}");
    }
}

/// Set back by ten minutes, a clock of the database alone would keep its keys for as long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keys_of_a_server_that_died_are_free_soon_though_the_database_s_clock_is_set_back() {
    let Some(server) = server("a server's death while the database's clock is set") else { return };
    let (lab, runs) = (Lab::new(&server.url()).await, Arc::default());
    let other = Process::at(&lab, &runs).await;
    // A process in a runtime of its own, which ends all at once.
    let (url, namespace, of_one) = (lab.url.clone(), lab.namespace.clone(), Arc::clone(&runs));
    let (end, ended) = mpsc::channel::<()>();
    let dies = thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let one = runtime.block_on(Process::new(&url, &namespace, &of_one));
        runtime.spawn(async move { one.send("order").await });
        ended.recv().unwrap();
        runtime.shutdown_background();
    });
    until("the run", async || runs.load(Ordering::SeqCst) == 1).await;
    let (status, body, _) = other.told("order").await;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");
    end.send(()).unwrap();
    dies.join().unwrap();
    set(&server, &lab, -10 * MINUTE).await;
    other.gate.admit(1);
    until("the second run", async || other.told("order").await.0 == StatusCode::OK).await;
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}
