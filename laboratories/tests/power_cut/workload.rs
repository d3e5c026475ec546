//! The workload, in a process of its own under the preloaded library. Its rounds of operations, some at a time, move a
//! window of retention, so that the engine has much to collect. The store is closed and opened again, and the process
//! may end in the middle.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use laboratories::engine::{Engine, Settings};
use laboratories::work::key;
use laboratories::work::key::{Kind, RETENTION, ROUND};
use laboratories::work::notes::{Note, Notes, STORE, Said};
use laboratories::work::operations::Operations;
use laboratories::work::truth::Truth;
use serde::{Deserialize, Serialize};
use testkit::Dice;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower_idempotency::RecordId;
use tower_idempotency::clock::{ManualClock, Timestamp};

/// The variable that holds the plan of a process of the workload.
pub(crate) const PLAN: &str = "POWER_CUT_PLAN";
/// The number of requests under way at a time.
const CLIENTS: usize = 24;

/// The plan of one process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) engine: Engine,
    pub(crate) directory: PathBuf,
    pub(crate) seed: u64,
    /// The time at the start.
    pub(crate) clock: u64,
    /// The first new key.
    pub(crate) first: u64,
    /// The keys that clients may ask for again.
    pub(crate) known: Vec<u64>,
    /// The interrupted keys, and whether the effect of each took place.
    pub(crate) cut: Vec<(u64, bool)>,
    /// The number of openings, of rounds in each of them, and of new keys in each round.
    pub(crate) openings: usize,
    pub(crate) rounds: usize,
    pub(crate) keys: usize,
    /// `true` if the process ends in the middle.
    pub(crate) abort: bool,
}

/// Returns the plan if this process is one of the workload.
pub(crate) fn plan() -> Option<Plan> {
    let plan = std::env::var(PLAN).ok()?;
    Some(serde_json::from_str(&plan).expect("a plan"))
}

#[derive(Clone)]
struct Workload {
    plan: Arc<Plan>,
    notes: Notes,
    clock: ManualClock,
    dice: Arc<Mutex<Dice>>,
    tickets: Arc<AtomicU64>,
    /// The truth that an operator, or the application, would find out.
    truth: Truth,
    /// The number of answers after which the process ends.
    answers_left: Arc<AtomicUsize>,
}

/// Carries out the plan.
pub(crate) fn run(plan: Plan) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build();
    let workload = Workload {
        notes: Notes::open(&plan.directory),
        clock: ManualClock::new(Timestamp::from_millis(plan.clock)),
        dice: Arc::new(Mutex::new(Dice::new(plan.seed))),
        tickets: Arc::default(),
        truth: Truth::default(),
        answers_left: Arc::new(AtomicUsize::new(usize::MAX)),
        plan: Arc::new(plan),
    };
    workload.plan.cut.iter().for_each(|(key, took_place)| workload.truth.learns(*key, *took_place));
    runtime.expect("a runtime").block_on(workload.live());
}

impl Workload {
    async fn live(self) {
        let mut next = self.plan.first;
        let (mut now, mut known) = (self.plan.clock, self.plan.known.clone());
        let mut ids: HashMap<RecordId, u64> = (0..next).map(|key| (key::id(key), key)).collect();
        for opening in 0..self.plan.openings {
            let operations = self.open();
            if self.dice.lock().unwrap().percent(50) {
                operations.reconcile_all().await;
            }
            self.all(&operations, known.iter().copied()).await;
            for round in 0..self.plan.rounds {
                let is_last = opening + 1 == self.plan.openings && round + 1 == self.plan.rounds;
                if self.plan.abort && is_last {
                    let answers = self.dice.lock().unwrap().below(self.plan.keys);
                    self.answers_left.store(answers, Ordering::SeqCst);
                }
                let keys = next..next + self.plan.keys as u64;
                next = keys.end;
                self.all(&operations, keys.clone()).await;
                ids.extend(keys.clone().map(|key| (key::id(key), key)));
                self.settle(&operations, &ids).await;
                // Now and then enough time passes for every record to expire, and the data shrinks.
                let (leaps, sweeps) = self.whims();
                known = if leaps { Vec::new() } else { keys.collect() };
                let passes = if leaps { 2 * RETENTION } else { ROUND };
                now += passes;
                // The note comes first, so that no time in the store is later than the noted one.
                self.notes.write(&Note::Clock(now));
                self.clock.advance(Duration::from_millis(passes));
                if leaps || sweeps {
                    self.notes.write(&Note::Sweeping);
                    operations.sweep().await.expect("the store works");
                    self.notes.write(&Note::Swept);
                }
            }
            assert_eq!(operations.unsaved(), 0, "the disk works");
            operations.close().await.expect("it can be closed");
        }
        assert!(!self.plan.abort, "it ends before this");
    }

    fn whims(&self) -> (bool, bool) {
        let mut dice = self.dice.lock().unwrap();
        (dice.percent(10), dice.percent(50))
    }

    fn open(&self) -> Operations {
        self.notes.write(&Note::Opening);
        let settings = Settings { clock: Some(Arc::new(self.clock.clone())), is_small: true, min_free: None };
        let store = self.plan.engine.open(self.plan.directory.join(STORE), settings).expect("it can be opened");
        self.notes.write(&Note::Opened);
        let notes = self.notes.clone();
        let witness = move |note: Note| notes.write(&note);
        Operations::over(store, true, self.truth.clone(), Arc::new(witness))
    }

    /// Asks for all of these keys, some at a time, a few of them twice or with another request.
    async fn all(&self, operations: &Operations, keys: impl Iterator<Item = u64>) {
        let places = Arc::new(Semaphore::new(CLIENTS));
        let mut clients = JoinSet::new();
        for key in keys {
            let (workload, operations) = (self.clone(), operations.clone());
            let place = Arc::clone(&places).acquire_owned().await.expect("it is never closed");
            clients.spawn(async move {
                workload.client(&operations, key).await;
                drop(place);
            });
        }
        clients.join_all().await;
    }

    async fn client(&self, operations: &Operations, key: u64) {
        let whim = self.dice.lock().unwrap().below(100);
        // This needs a run that never frees its key: otherwise its end and the beginning of the next one would be noted
        // in any order.
        let is_plain = matches!(key::kind(key), Kind::Done | Kind::Ledger);
        match whim {
            0..=9 if is_plain => drop(tokio::join!(self.ask(operations, key, false), self.ask(operations, key, false))),
            10..=19 => {
                self.ask(operations, key, false).await;
                self.ask(operations, key, false).await;
            }
            20..=22 if is_plain => {
                self.ask(operations, key, false).await;
                self.ask(operations, key, true).await;
            }
            _ => drop(self.ask(operations, key, false).await),
        }
    }

    async fn ask(&self, operations: &Operations, key: u64, other: bool) -> Said {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        self.notes.write(&Note::Sent { ticket, key, other });
        let said = operations.ask(key, other).await;
        assert!(!is_away(&said), "{key}: {said:?}, though the disk works");
        self.notes.write(&Note::Told { ticket, key, said: said.clone(), recorded: true });
        if self.answers_left.fetch_sub(1, Ordering::SeqCst) == 0 {
            std::process::abort();
        }
        said
    }

    /// Settles most of the interrupted keys, as an operator does.
    async fn settle(&self, operations: &Operations, ids: &HashMap<RecordId, u64>) {
        let interrupted = operations.interrupted().await.expect("the store works");
        let mut settling = JoinSet::new();
        for record in interrupted {
            let key = ids[&record.id];
            let took_place = self.truth.of(record.id).map(|(_, took_place)| took_place);
            if let Some(took_place) = took_place.filter(|_| self.dice.lock().unwrap().percent(60)) {
                let operations = operations.clone();
                settling.spawn(async move { operations.settle(key, record.fence, took_place).await });
            }
        }
        settling.join_all().await;
    }
}

fn is_away(said: &Said) -> bool {
    let Said::Refused(name) = said else { return false };
    !["outcome-unknown", "not-replayable", "key-reused", "in-flight"].contains(&name.as_str())
}
