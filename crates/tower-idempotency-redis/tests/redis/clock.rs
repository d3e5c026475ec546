//! A server whose clock is set, under processes whose clocks are right.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use testkit::process::until;
use testkit::{Gate, skipped};
use tokio::time::timeout;
use tower_idempotency::engine::{EffectError, OnceError};
use tower_idempotency::internals::Records as _;
use tower_idempotency::{Fingerprint, Key, OnInFlight, OnInterrupted, Once, RecordId};
use tower_idempotency_redis::RedisStore;
use tower_idempotency_shared::{Backend as _, Clocks, Write};

use crate::lab::{RedisServer, builder, claim, complete, id, is_done};

/// 25 hours, in seconds: more than any row here is kept.
const DAY: i64 = 25 * 3_600;
/// After how long a run is given up that waits at a gate.
const GIVE_UP: Duration = Duration::from_secs(120);

/// A server with a clock of its own.
fn server(promise: &str) -> Option<RedisServer> {
    RedisServer::with_a_clock(&[]).map_err(|obstacle| skipped(promise, &obstacle)).ok()
}

/// The clocks of a process.
fn clocks() -> Clocks {
    let now = SystemTime::now().into();
    Clocks { earliest: now, latest: now }
}

#[tokio::test]
async fn no_row_is_deleted_or_taken_over_while_or_after_the_server_s_clock_is_a_day_off() {
    let Some(server) = server("rows of a server that is a day off") else { return };
    let backend = builder(&server.url(), "n").open().await.unwrap();
    let mut kept: Vec<Write> = Vec::new();
    for (number, ahead) in (0..).step_by(2).zip([0, DAY, 0, -DAY, DAY, -DAY, 0]) {
        server.set_clock(ahead);
        // A run and an outcome of each time.
        let (run, claimed) = (claim(id(number)), claim(id(number + 1)));
        let outcome = complete(claimed.id, claimed.token);
        backend.put(clocks(), &[run.clone(), claimed]).await.unwrap();
        backend.put(clocks(), std::slice::from_ref(&outcome)).await.unwrap();
        kept.extend([run, outcome]);
        assert_eq!(backend.delete_expired(clocks(), 1_000).await.unwrap(), 0, "{ahead} s ahead");
        let ids: Vec<RecordId> = kept.iter().map(|write| write.id).collect();
        let rivals: Vec<Write> = ids.iter().map(|id| claim(*id)).collect();
        let met = backend.put(clocks(), &rivals).await.unwrap().rows;
        let shown = backend.get(clocks(), &ids).await.unwrap().rows;
        for (row, write) in met.iter().chain(&shown).zip(kept.iter().chain(&kept)) {
            assert!(is_done(row.as_ref(), write), "{ahead} s ahead: {row:?}");
        }
    }
}

/// A process, whose effects count their runs and wait at a gate.
struct Process {
    store: RedisStore,
    once: Once<RedisStore, usize>,
    runs: Arc<AtomicUsize>,
    gate: Gate,
}

impl Process {
    /// Its lease is short, and each call may take a second.
    async fn new(server: &RedisServer, runs: &Arc<AtomicUsize>) -> Self {
        let backend = builder(&server.url(), "n").open().await.unwrap();
        let store = RedisStore::builder().call_timeout(Duration::from_secs(1)).lease(Duration::from_secs(6));
        let store = store.open(backend).await.unwrap();
        let once = Once::new(store.clone()).on_interrupted(OnInterrupted::Rerun).on_in_flight(OnInFlight::Reject);
        Self { store, once, runs: Arc::clone(runs), gate: Gate::default() }
    }

    /// Returns the number of the run, and whether it was an earlier one. A run waits at the gate, until it is given up.
    async fn run(&self, key: &str) -> Result<(usize, bool), OnceError<std::io::Error>> {
        let (runs, gate) = (Arc::clone(&self.runs), self.gate.clone());
        let effect = move |_context| async move {
            let run = runs.fetch_add(1, Ordering::SeqCst);
            gate.pass().await;
            Ok::<_, EffectError<std::io::Error>>(run)
        };
        let id = RecordId::new(None, &Key::new(key).unwrap());
        let outcome = timeout(GIVE_UP, self.once.run(id, Fingerprint::of(b"a message"), effect)).await;
        outcome.expect("it waits at the gate").map(|outcome| (outcome.value, outcome.replayed))
    }

    /// The same, until there is an outcome: a call may fail at the moment at which the clock is set.
    async fn outcome(&self, key: &str) -> (usize, bool) {
        let found = Mutex::new(None);
        until("an outcome", async || match self.run(key).await {
            Err(OnceError::Unavailable) => false,
            outcome => {
                *found.lock().unwrap() = Some(outcome.unwrap());
                true
            }
        })
        .await;
        found.into_inner().unwrap().expect("there is one")
    }

    /// Adds the tokens that the sessions have now. Returns their number so far: each renewal has one of its own.
    async fn note_tokens(&self, tokens: &mut Vec<[u8; 16]>) -> usize {
        let sessions = self.store.backend().sessions(clocks()).await.map_or(Vec::new(), |answer| answer.rows);
        tokens.extend(sessions.iter().map(|session| session.token.0));
        tokens.sort_unstable();
        tokens.dedup();
        tokens.len()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_runs_again_while_or_after_the_server_is_a_day_off() {
    let Some(server) = server("keys of a server that is a day off") else { return };
    let runs = Arc::default();
    let one = Process::new(&server, &runs).await;
    let mut known: Vec<(String, usize)> = Vec::new();
    for ahead in [0, DAY, 0, -DAY, 0] {
        server.set_clock(ahead);
        let key = format!("order-{}", known.len());
        one.gate.admit(1);
        let (run, replayed) = one.outcome(&key).await;
        assert!(!replayed, "{key}");
        known.push((key, run));
        // One process has all of them in memory, and one has just been started.
        for process in [&one, &Process::new(&server, &runs).await] {
            for (key, run) in &known {
                assert_eq!(process.outcome(key).await, (*run, true), "{key}, {ahead} s ahead");
            }
            assert_eq!(process.store.sweep(1_000).await.unwrap(), 0, "{ahead} s ahead");
        }
    }
    assert_eq!(runs.load(Ordering::SeqCst), known.len());
}

/// Its bound is eleven minutes, and its lease six seconds: by the server's clock alone, both would be over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_living_run_is_not_run_again_though_the_server_s_clock_is_set() {
    let Some(server) = server("a living run while the server's clock is set") else { return };
    let runs = Arc::default();
    let (one, other) = (Process::new(&server, &runs).await, Process::new(&server, &runs).await);
    let sets = async {
        until("the run", async || runs.load(Ordering::SeqCst) == 1).await;
        for ahead in [DAY, -DAY] {
            server.set_clock(ahead);
            let mut tokens = Vec::new();
            // Each of the two is renewed every two seconds: that is more than the wait of 17/12 of a lease.
            until("six renewals of each", async || {
                match other.run("order").await {
                    Err(OnceError::InFlight | OnceError::Unavailable) => {}
                    answer => panic!("{ahead} s ahead: {answer:?}"),
                }
                other.note_tokens(&mut tokens).await > 14
            })
            .await;
        }
        one.gate.admit(1);
    };
    let (outcome, ()) = tokio::join!(one.run("order"), sets);
    assert_eq!(outcome.unwrap(), (0, false));
    assert_eq!(other.outcome("order").await, (0, true));
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}
