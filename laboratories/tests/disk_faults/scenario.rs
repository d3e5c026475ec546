//! The scenario, in a process of its own under the preloaded library. It does one thing after the other, so that the
//! n-th write is the same one each time. Its notes go to a file outside of the directory whose disk fails.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use laboratories::disk::counts;
use laboratories::engine::{Engine, Settings};
use laboratories::work::key;
use laboratories::work::key::{Kind, RETENTION};
use laboratories::work::notes::{Found, Note, Notes, STORE, Said};
use laboratories::work::operations::Operations;
use laboratories::work::truth::Truth;
use serde::{Deserialize, Serialize};
use testkit::history::Policy;
use tower_idempotency::clock::{ManualClock, Timestamp};
use tower_idempotency::store::{Health, Store as _};

use crate::cast::Cast;

/// The variable that holds the plan of a process of the scenario.
pub(crate) const PLAN: &str = "DISK_FAULTS_PLAN";
pub(crate) const START: u64 = 1_000_000_000;
/// The time in which a store must close: the store allows ten seconds, and the machine may be busy.
const CLOSES_WITHIN: Duration = Duration::from_secs(20);
/// The free space below which the store takes no new keys, in the acts that ask for it.
const MARK: u64 = 4 << 20;

/// The act of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Act {
    /// Leaves a directory for later processes.
    Prepare,
    /// Goes through the whole scenario.
    Everything,
    /// Fills the disk in the middle, except for this many bytes, and goes on.
    Fill(u64),
    /// Does the same; before the disk is full, less is left than [`MARK`], at which the store takes no new keys.
    FillBelowMark(u64),
    /// Waits for a sync that never returns.
    Hang,
}

/// The act of one process, and its directories.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) engine: Engine,
    /// The path of the store's directory.
    pub(crate) data: PathBuf,
    pub(crate) notes: PathBuf,
    /// The path at which the preloaded library counts.
    pub(crate) counts: PathBuf,
    pub(crate) act: Act,
    /// The time for which the process waits for an answer, in seconds.
    pub(crate) timeout: u64,
}

/// Returns the plan if this process is one of the scenario.
pub(crate) fn plan() -> Option<Plan> {
    let plan = std::env::var(PLAN).ok()?;
    Some(serde_json::from_str(&plan).expect("a plan"))
}

/// Carries out the plan, and ends the process, whatever its threads are stuck in.
pub(crate) fn run(plan: Plan) -> ! {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let (notes, clock) = (Notes::open(&plan.notes), ManualClock::new(Timestamp::from_millis(START)));
    let scenario = Scenario {
        plan,
        notes,
        clock,
        truth: Truth::default(),
        tickets: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        unsaved: Mutex::default(),
    };
    runtime.expect("a runtime").block_on(scenario.live());
    std::process::exit(0);
}

struct Scenario {
    plan: Plan,
    notes: Notes,
    clock: ManualClock,
    truth: Truth,
    tickets: AtomicU64,
    refused: AtomicU64,
    /// The keys whose answers this process gives from memory alone, until it opens the store again.
    unsaved: Mutex<HashSet<u64>>,
}

impl Scenario {
    async fn live(&self) {
        let mut cast = Cast(0);
        let before = cast.of_each_sort();
        match self.plan.act {
            Act::Prepare => self.prepare(&before, cast).await,
            Act::Everything => self.everything(&before, cast).await,
            Act::Fill(left) | Act::FillBelowMark(left) => self.fill(left, cast).await,
            Act::Hang => self.hang(cast).await,
        }
    }

    async fn prepare(&self, keys: &[u64], mut cast: Cast) {
        let Some(operations) = self.open() else { return };
        self.all(&operations, keys).await;
        operations.leave_running(cast.next(Policy::Refuse, Kind::Done, 0)).await;
        self.close(operations).await;
    }

    async fn everything(&self, before: &[u64], mut cast: Cast) {
        let (first, second, third) = (cast.of_each_sort(), cast.of_each_sort(), cast.of_each_sort());
        // A fault that comes once may leave the second try alone.
        let Some(operations) = self.open().or_else(|| self.open()) else { return };
        self.found(Found::Calls(counts(&self.plan.counts).calls));
        self.all(&operations, before).await;
        self.all(&operations, &first).await;
        self.again(&operations, &first).await;
        self.settle(&operations, &first).await;
        self.together(&operations, &second).await;
        // The records from before have expired, and are swept.
        self.notes.write(&Note::Clock(START + RETENTION));
        self.clock.advance(Duration::from_millis(RETENTION));
        let swept = operations.sweep().await;
        self.agree(&operations, swept.is_err(), "a sweep");
        self.close(operations).await;
        let Some(operations) = self.open() else { return };
        self.all(&operations, &third).await;
        self.close(operations).await;
    }

    async fn fill(&self, left: u64, mut cast: Cast) {
        let Some(operations) = self.open() else { return };
        let (first, second) = (cast.of_each_sort(), cast.of_each_sort());
        self.all(&operations, &first).await;
        self.settle(&operations, &first).await;
        if let Act::FillBelowMark(_) = self.plan.act {
            fill(&self.plan.data, MARK / 2);
            self.all(&operations, &second).await;
        }
        fill(&self.plan.data, left);
        self.all(&operations, &second).await;
        // The answer to an acknowledged key comes from memory, or is a refusal.
        self.all(&operations, &first).await;
        self.close(operations).await;
        if let Some(operations) = self.open() {
            self.all(&operations, &second).await;
            self.close(operations).await;
        }
    }

    async fn hang(&self, mut cast: Cast) {
        let Some(operations) = self.open() else { return };
        match self.see_it_hang(&operations, &cast.of_each_sort()).await {
            // The sync was one of the engine's own, in the background, without a waiter.
            None => {}
            Some((Some(_), Some(Health::Poisoned { reason }))) if !reason.is_empty() => {
                self.found(Found::Poisoned(reason));
            }
            Some((slow, poisoned)) => self.wrong(format!("the health was {slow:?}, then {poisoned:?}")),
        }
        self.ask(&operations, cast.next(Policy::Refuse, Kind::Done, 0)).await;
        self.close(operations).await;
    }

    /// Asks until a request is refused or all are answered. If one was refused, returns the store's health once it is
    /// slow and once it is poisoned.
    async fn see_it_hang(&self, operations: &Operations, keys: &[u64]) -> Option<(Option<Health>, Option<Health>)> {
        let watching = async {
            let slow = self.health_becomes(operations, |health| matches!(health, Health::Slow { .. })).await;
            (slow, self.health_becomes(operations, |health| matches!(health, Health::Poisoned { .. })).await)
        };
        tokio::pin!(watching);
        tokio::select! {
            () = self.all(operations, keys) => {}
            seen = &mut watching => return Some(seen),
        };
        let failed = operations.unsaved() > 0 || self.refused.load(Ordering::Relaxed) > 0;
        if failed { Some(watching.await) } else { None }
    }

    async fn health_becomes(&self, operations: &Operations, wanted: fn(&Health) -> bool) -> Option<Health> {
        let (began, timeout) = (Instant::now(), Duration::from_secs(self.plan.timeout));
        while began.elapsed() < timeout {
            let health = operations.store.health();
            if wanted(&health) {
                return Some(health);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        None
    }

    fn found(&self, found: Found) {
        self.notes.write(&Note::Found(found));
    }

    fn wrong(&self, what: String) {
        self.found(Found::Wrong(what));
    }

    fn open(&self) -> Option<Operations> {
        self.notes.write(&Note::Opening);
        let mark = if let Act::FillBelowMark(_) = self.plan.act { MARK } else { 0 };
        let settings = Settings { clock: Some(Arc::new(self.clock.clone())), is_small: true, min_free: Some(mark) };
        let store = match self.plan.engine.open(self.plan.data.join(STORE), settings) {
            Ok(store) => store,
            Err(error) => {
                let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
                self.found(Found::NotOpened(format!("{error}{}", source.unwrap_or_default())));
                return None;
            }
        };
        self.notes.write(&Note::Opened);
        self.unsaved.lock().unwrap().clear();
        let notes = self.notes.clone();
        Some(Operations::over(store, true, self.truth.clone(), Arc::new(move |note| notes.write(&note))))
    }

    async fn all(&self, operations: &Operations, keys: &[u64]) {
        for key in keys {
            self.ask(operations, *key).await;
        }
    }

    /// Retries the keys whose policy asks the application.
    async fn again(&self, operations: &Operations, keys: &[u64]) {
        for key in keys.iter().filter(|key| key::policy(**key) == Policy::Reconcile) {
            self.ask(operations, *key).await;
        }
    }

    /// Asks for all keys at once, so that they share a sync.
    async fn together(&self, operations: &Operations, keys: &[u64]) {
        futures_util::future::join_all(keys.iter().map(|key| self.ask(operations, *key))).await;
    }

    async fn ask(&self, operations: &Operations, key: u64) {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let before = operations.unsaved();
        self.notes.write(&Note::Sent { ticket, key, other: false });
        let timeout = Duration::from_secs(self.plan.timeout);
        let Ok(said) = tokio::time::timeout(timeout, operations.ask(key, false)).await else {
            self.stuck(operations);
        };
        // Any of the keys that are asked for together may be the unsaved one, so all of them count as such.
        if operations.unsaved() > before {
            self.unsaved.lock().unwrap().insert(key);
        }
        let recorded = !self.unsaved.lock().unwrap().contains(&key);
        self.notes.write(&Note::Told { ticket, key, said: said.clone(), recorded });
        let refused = matches!(&said, Said::Refused(name) if name == "store-unavailable");
        self.refused.fetch_add(refused.into(), Ordering::Relaxed);
        self.agree(operations, refused || !recorded, &format!("{key}, told {said:?}, recorded: {recorded}"));
    }

    /// Checks that the store is poisoned, with a reason, after it failed.
    fn agree(&self, operations: &Operations, failed: bool, what: &str) {
        match operations.store.health() {
            Health::Poisoned { reason } if !reason.is_empty() => self.found(Found::Poisoned(reason)),
            Health::Slow { .. } => {}
            // A request may time out a moment before the store is called slow.
            Health::Good if self.plan.act == Act::Hang => {}
            health if failed => self.wrong(format!("{what}: the store failed, and its health is {health:?}")),
            Health::Good | Health::Full { .. } => {}
            health => self.wrong(format!("{what}: the health is {health:?}")),
        }
    }

    /// Checks that the store's health says so when no answer comes, and ends the process: nothing more can be seen.
    fn stuck(&self, operations: &Operations) -> ! {
        match operations.store.health() {
            Health::Slow { .. } | Health::Poisoned { .. } => self.found(Found::Stuck),
            health => self.wrong(format!("a request is not answered, and the health is {health:?}")),
        }
        std::process::exit(0);
    }

    async fn settle(&self, operations: &Operations, keys: &[u64]) {
        let Ok(records) = operations.interrupted().await else {
            return self.agree(operations, true, "the list of what was interrupted");
        };
        for record in records {
            let Some(key) = keys.iter().find(|key| key::id(**key) == record.id) else { continue };
            operations.settle(*key, record.fence, key::kind(*key) == Kind::Cut).await;
        }
        self.agree(operations, false, "settling");
    }

    async fn close(&self, operations: Operations) {
        let store = operations.store.clone();
        let began = Instant::now();
        let closed = tokio::time::timeout(CLOSES_WITHIN, operations.close()).await;
        let may_fail = self.plan.act == Act::Hang || matches!(store.health(), Health::Poisoned { .. });
        match closed {
            Err(_) => self.wrong(format!("closing has not returned in {:?}", began.elapsed())),
            Ok(Err(error)) if !may_fail => self.wrong(format!("closing fails, and the store is not poisoned: {error}")),
            Ok(_) => {}
        }
    }
}

/// The file that fills the disk.
pub(crate) const FILLER: &str = "filler";

/// Takes all space except for `left` bytes. What was taken before is never free meanwhile.
pub(crate) fn fill(directory: &Path, left: u64) {
    use std::io::Write as _;
    let path = directory.join(FILLER);
    let filler = std::fs::OpenOptions::new().create(true).append(true).open(path);
    let mut filler = filler.expect("there is still room");
    // The last chunk may fit in part.
    while filler.write(&[1; 4096]).is_ok() {}
    let length = filler.metadata().expect("it is there").len();
    filler.set_len(length.saturating_sub(left)).expect("less needs no room");
}

/// Returns a plan for a process whose files are in `directory`.
pub(crate) fn plan_in(engine: Engine, directory: &Path, act: Act, timeout: u64) -> Plan {
    let (data, notes) = (directory.join("data"), directory.join("said"));
    for directory in [&data, &notes] {
        std::fs::create_dir_all(directory).expect("it can be made");
    }
    let data = data.canonicalize().expect("it is there");
    Plan { engine, data, notes, counts: directory.join("counts"), act, timeout }
}
