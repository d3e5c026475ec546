//! The store after a power cut or a fault. The real code opens it, all requests are sent again, and the answers are
//! compared with the earlier ones.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use crate::disk::quick_directory;
use crate::disk::rebuild::{Image, write_image};
use futures_util::StreamExt as _;
use testkit::history::Policy;
use tower_idempotency::RecordId;
use tower_idempotency::clock::{ManualClock, Timestamp};
use tower_idempotency::internals::Records as _;
use tower_idempotency::store::{Health, Store as _};

use crate::engine::{Embedded, Engine, Settings};

use super::key;
use super::notes::{Note, STORE, Said};
use super::operations::Operations;
use super::standing::{Histories, OfKey, Standing, Standings, may_be_consumed};
use super::truth::Truth;

/// A key that was not sent before.
const NEW: u64 = u64::MAX;
/// The time that opening may take, on a machine that is busy otherwise.
const OPENS_WITHIN: Duration = Duration::from_secs(60);
/// The number of retries under way at a time.
const CLIENTS: usize = 64;

/// The knowledge at the end of the last process.
pub struct Known {
    pub standings: Standings,
    pub histories: Histories,
}

/// The violations in a directory after a power cut.
pub fn judge_image(engine: Engine, image: &Image, known: &Known) -> Vec<String> {
    let directory = quick_directory();
    write_image(image, directory.path());
    judge(engine, directory.path(), known)
}

/// The violations in the store in `directory`.
pub fn judge(engine: Engine, directory: &Path, known: &Known) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let judged = catch_unwind(AssertUnwindSafe(|| match open(engine, directory, known.standings.now) {
        Ok(store) => runtime.block_on(Retry::over(store, known).everything()),
        Err(violation) => vec![violation],
    }));
    judged.unwrap_or_else(|_| vec!["the check itself panicked, as said above".to_owned()])
}

/// Opens the store on a thread of its own, because opening might never return.
fn open(engine: Engine, directory: &Path, now: u64) -> Result<Embedded, String> {
    let settings =
        Settings { clock: Some(Arc::new(ManualClock::new(Timestamp::from_millis(now)))), ..Settings::default() };
    let (path, (sender, opened)) = (directory.join(STORE), mpsc::channel());
    std::thread::spawn(move || sender.send(engine.open(path, settings)));
    match opened.recv_timeout(OPENS_WITHIN) {
        Ok(Ok(store)) => Ok(store),
        Ok(Err(error)) => Err(format!("it can't be opened: {error}")),
        Err(_) => Err("opening it does not return, or panics".to_owned()),
    }
}

struct Retry<'a> {
    known: &'a Known,
    operations: Operations,
    /// The keys whose handlers began.
    ran: Arc<Mutex<HashSet<u64>>>,
    wrong: Mutex<Vec<String>>,
}

impl<'a> Retry<'a> {
    fn over(store: Embedded, known: &'a Known) -> Self {
        let ran = Arc::<Mutex<HashSet<u64>>>::default();
        let (running, histories) = (Arc::clone(&ran), known.histories.clone());
        let witness = move |note| match note {
            Note::Began(key) => drop(running.lock().unwrap().insert(key)),
            Note::Effect(key) if key != NEW => histories.effect(key),
            _ => {}
        };
        let truth = Truth::default();
        known.standings.keys.iter().for_each(|(key, of_key)| truth.learns(*key, of_key.took_place));
        let operations = Operations::over(store, false, truth, Arc::new(witness));
        Self { known, operations, ran, wrong: Mutex::default() }
    }

    async fn everything(self) -> Vec<String> {
        let listed: HashSet<RecordId> = match self.operations.interrupted().await {
            Ok(records) => records.iter().map(|record| record.id).collect(),
            Err(error) => return vec![format!("what was interrupted can't be listed: {error}")],
        };
        let keys = &self.known.standings.keys;
        let committed = || keys.keys().filter(|key| key::policy(**key) == Policy::Atomic);
        for key in committed() {
            self.both_or_neither(*key).await;
        }
        let asked = futures_util::stream::iter(keys).map(|(key, of_key)| self.retry(*key, of_key, &listed));
        asked.buffer_unordered(CLIENTS).collect::<Vec<()>>().await;
        // Once more: the answers given now have to stay, and a key that another request owns stays that request's.
        let again = futures_util::stream::iter(keys.keys()).map(|key| self.again(*key));
        again.buffer_unordered(CLIENTS).collect::<Vec<()>>().await;
        self.new_key().await;
        for key in committed() {
            (0..self.operations.committed(*key)).for_each(|_| self.known.histories.effect(*key));
        }
        let health = self.operations.store.health();
        if health != Health::Good {
            self.say(format!("the store's health is {health:?}"));
        }
        let Self { operations, wrong, .. } = self;
        let mut wrong = wrong.into_inner().unwrap();
        wrong.extend(operations.close().await.err().map(|error| format!("it can't be closed: {error}")));
        wrong.extend(self.known.histories.violations());
        wrong
    }

    fn say(&self, violation: String) {
        self.wrong.lock().unwrap().push(violation);
    }

    async fn ask(&self, key: u64, other: bool) -> Said {
        let sent = self.known.histories.sent(key, other);
        let said = self.operations.ask(key, other).await;
        self.known.histories.answered(key, sent, &said, true);
        said
    }

    /// Checks that the effect in the application's table and the record of the outcome are both there, or neither.
    async fn both_or_neither(&self, key: u64) {
        let record = self.operations.store.load(key::id(key)).await;
        let (count, recorded) = (self.operations.committed(key), matches!(record, Ok(Some(_))));
        if record.is_err() || count != u64::from(recorded) {
            self.say(format!("{key}: {count} effects are committed, and the record is {record:?}"));
        }
    }

    async fn retry(&self, key: u64, of_key: &OfKey, listed: &HashSet<RecordId>) {
        let said = self.ask(key, false).await;
        let standing = of_key.standing;
        if self.ran.lock().unwrap().contains(&key) && !of_key.may_run(key) {
            self.say(format!("{key}: it ran again, though {standing:?}"));
        }
        match &said {
            Said::Outcome(_) => {}
            Said::Refused(name) if name == "outcome-unknown" && of_key.may_be_interrupted(key) => {
                if !listed.contains(&key::id(key)) {
                    self.say(format!("{key}: interrupted, but not in the list"));
                }
            }
            Said::Refused(name) if name == "not-replayable" && may_be_consumed(key) => {}
            said => self.say(format!("{key}: {said:?}, though {standing:?}")),
        }
        if let Some(value) = of_key.entry {
            let found = self.operations.entry(key);
            if found.is_none_or(|found| found < value) {
                self.say(format!(
                    "{key}: the application's own table has {found:?}; it was told that {value} is synced"
                ));
            }
        }
    }

    async fn again(&self, key: u64) {
        if self.ran.lock().unwrap().contains(&key) {
            self.ask(key, false).await;
        } else if key.is_multiple_of(16) && self.known.standings.keys[&key].standing == Standing::Answered {
            self.ask(key, true).await;
        }
    }

    async fn new_key(&self) {
        let first = self.operations.ask(NEW, false).await;
        let second = self.operations.ask(NEW, false).await;
        if !matches!(first, Said::Outcome(_)) || first != second {
            self.say(format!("a new key: {first:?}, then {second:?}"));
        }
    }
}
