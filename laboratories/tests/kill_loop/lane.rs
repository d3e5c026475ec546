//! One policy on one data directory: server follows server, and each is killed.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use testkit::dice::below;
use testkit::history::{History, Policy};
use testkit::payment_server::{Server, Setup};
use testkit::process::{Output, eventually};

use crate::ledger::{Ledger, named};
use crate::load::{Ended, Intent, Load, Moment, random_time, until_killed};
use crate::policies::Treatment;
use crate::settle::{Settled, retry};
use crate::tally::Tally;

/// After so many kills at random, everything is settled and judged.
const WINDOW: usize = 25;
/// A server is killed after a random number of answers, at most this one, or after a random time.
const MOST_ANSWERS: usize = 60;
const MOST_TIME: Duration = Duration::from_millis(40);
/// When retries are under way, and what is reconciled without them.
const EARLY: Duration = Duration::from_millis(10);
/// How many older keys are retried in a life under load.
const RETRIES: usize = 24;
/// How many records are made that expire soon.
const SHORT_LIVED: usize = 200;
/// The period of sweeps; how long before the first one the load begins; after how many answers the kill comes.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
const BEFORE_SWEEP: Duration = Duration::from_millis(50);
const MOST_SWEEPING: usize = 60;
/// How often what is to be hit may be missed, until it was hit once.
const MISSES: usize = 5;
/// How often a store may fail to open before that is believed.
const OPENS: usize = 3;

pub(crate) struct Lane {
    treatment: Treatment,
    setup: Setup,
    history: History,
    tally: Arc<Tally>,
    /// The keys that are still retried, and since which window they are known.
    live: HashMap<String, (Intent, usize)>,
    /// The keys whose records expire at once, so that they are never retried.
    short_lived: Vec<String>,
    ledger: Ledger,
    /// The charges that a server's log named.
    named: HashSet<String>,
    window: usize,
    kills: usize,
    lives: usize,
    /// How long the last opening took.
    opening: Duration,
    /// How many records the store had when it was opened last.
    records: usize,
    /// Records that have expired, and were not swept yet.
    expired: usize,
    sweeping: Option<Sweeping>,
    /// The keys, and those acknowledged, that are in the tally.
    counted: (usize, usize),
    reported: HashSet<String>,
}

/// A life that was killed while records were swept: what the next one's number of records shows.
struct Sweeping {
    records: usize,
    ended: Ended,
}

/// The store can't be opened any more.
struct Broken;

impl Lane {
    pub(crate) fn new(treatment: Treatment, directory: PathBuf, tally: Arc<Tally>) -> Self {
        let setup = Setup::new(directory).with(treatment.arguments);
        tally.sweepers.add(usize::from(treatment.sweeps));
        tally.reconcilers.add(usize::from(treatment.policy == Policy::Reconcile));
        Self {
            history: History::new(treatment.policy),
            treatment,
            setup,
            tally,
            live: HashMap::new(),
            short_lived: Vec::new(),
            ledger: Ledger::default(),
            named: HashSet::new(),
            window: 0,
            kills: 0,
            lives: 0,
            opening: Duration::from_millis(50),
            records: 0,
            expired: 0,
            sweeping: None,
            counted: (0, 0),
            reported: HashSet::new(),
        }
    }

    /// Kills so many servers, and settles everything on one more.
    pub(crate) async fn run(mut self, kills: usize) {
        // A store that can't be opened is a violation by itself; nothing can be said then of the last effects.
        let _ = self.kill(kills).await;
    }

    async fn kill(&mut self, kills: usize) -> Result<(), Broken> {
        let window = WINDOW.min(kills);
        while self.kills < kills && !self.tally.control_has_seen() {
            let end = kills.min(self.kills + window);
            if self.treatment.sweeps {
                self.make_what_expires().await?;
            }
            self.kill_retries().await?;
            self.kill_at_a_start().await;
            while self.kills < end {
                match below(3) {
                    0 => self.kill_at_a_start().await,
                    _ => self.kill_under_load(some_moment()).await?,
                }
            }
            let server = self.open_after_sweep().await?;
            self.settle(&server).await;
            self.kill_idle(server);
        }
        let server = self.open("").await?;
        self.settle(&server).await;
        let (missed, gone) = self.ledger.whole(&server).await;
        for charge in missed {
            self.history.effect(&charge.description);
        }
        self.report();
        for id in gone {
            self.violation(&format!("the charge {id} has gone from the ledger"));
        }
        server.stop().await;
        Ok(())
    }

    /// Several in a row, before or while they open, or right after.
    async fn kill_at_a_start(&mut self) {
        for _ in 0..=below(3) {
            let launched = self.setup.launch();
            let log = launched.log.clone();
            tokio::time::sleep(random_time(self.opening.mul_f64(1.2))).await;
            let had_ended = launched.kill();
            self.killed();
            self.tally.opening.add(1);
            let log = log.whole().await;
            self.tally.before_open.add(usize::from(!log.contains("the store is open")));
            self.tally.reconciling.add(usize::from(self.was_reconciling(&log)));
            if had_ended {
                self.failed_open(&log);
            }
        }
    }

    /// Interrupts a request, and then its retries. Repeats it if the moment was missed and was never met so far.
    async fn kill_retries(&mut self) -> Result<(), Broken> {
        for _ in 0..MISSES {
            self.kill_under_load(Moment::Answers(1 + below(MOST_ANSWERS))).await?;
            self.kill_under_load(Moment::Time(random_time(EARLY))).await?;
            let reconciled = self.treatment.policy != Policy::Reconcile || self.tally.reconciling.get() > 0;
            if reconciled && self.tally.retrying.get() > 0 {
                break;
            }
        }
        Ok(())
    }

    async fn kill_under_load(&mut self, moment: Moment) -> Result<(), Broken> {
        let mut server = self.open("").await?;
        let retries = self.some_retries();
        let load = Load { retries, duplicates: true, slow: below(40) == 0, ..self.load() };
        let ended = until_killed(&mut server, load, moment).await;
        self.keep(&ended);
        self.ended(&server, &ended).await;
        Ok(())
    }

    /// What was interrupted, and what was answered, about half of each.
    fn some_retries(&self) -> Vec<(Intent, bool)> {
        let unsettled: HashSet<_> = self.history.unsettled().into_iter().collect();
        let live = self.live.values().map(|(intent, _)| intent);
        let (mut cut, mut done): (Vec<_>, Vec<_>) = live.partition(|intent| unsettled.contains(&intent.key));
        let mut retries = Vec::new();
        while retries.len() < RETRIES && !(cut.is_empty() && done.is_empty()) {
            for (intents, was_interrupted) in [(&mut cut, true), (&mut done, false)] {
                if !intents.is_empty() {
                    retries.push((intents.swap_remove(below(intents.len())).clone(), was_interrupted));
                }
            }
        }
        retries
    }

    /// Charges whose records are past their retention a second later. Nothing else may be under way in such a life: it
    /// would expire too.
    async fn make_what_expires(&mut self) -> Result<(), Broken> {
        let mut server = self.open("--retention 1").await?;
        let ended = until_killed(&mut server, self.load(), Moment::Answers(SHORT_LIVED)).await;
        self.expired += ended.answers;
        self.short_lived.extend(ended.fresh.iter().map(|intent| intent.key.clone()));
        self.ended(&server, &ended).await;
        Ok(())
    }

    /// Kills a server that sweeps, and opens the next. Repeats it if the moment was missed and was never met so far.
    async fn open_after_sweep(&mut self) -> Result<Server, Broken> {
        for _ in 0..MISSES {
            if !self.treatment.sweeps {
                break;
            }
            self.kill_while_sweeping().await?;
            let server = self.open("").await?;
            if self.tally.sweeping.get() > 0 {
                return Ok(server);
            }
            self.kill_idle(server);
            // They may all have been swept before.
            self.make_what_expires().await?;
        }
        self.open("").await
    }

    /// New keys alone, so that the records can be counted.
    async fn kill_while_sweeping(&mut self) -> Result<(), Broken> {
        let mut server = self.open("").await?;
        let records = self.records;
        // Until shortly before it begins.
        tokio::time::sleep(SWEEP_EVERY - BEFORE_SWEEP).await;
        let moment = Moment::Later(BEFORE_SWEEP, 1 + below(MOST_SWEEPING));
        let ended = until_killed(&mut server, self.load(), moment).await;
        self.keep(&ended);
        self.ended(&server, &ended).await;
        self.sweeping = Some(Sweeping { records, ended });
        Ok(())
    }

    /// Everything is retried, the ledger is read, and what was settled twice is judged for the last time.
    async fn settle(&mut self, server: &Server) {
        let began = Instant::now();
        let intents = self.live.values().map(|(intent, _)| intent.clone()).collect();
        let settled = retry(server, &self.history, self.treatment, intents).await;
        self.ledger.expect(settled.len());
        for charge in self.ledger.news(server).await {
            self.history.effect(&charge.description);
        }
        self.named.extend(named(&server.log.text()));
        for id in std::mem::take(&mut self.named) {
            if !self.ledger.has(&id) {
                self.violation(&format!("the charge {id} is in the server's log, and not in the ledger"));
            }
        }
        for settled in &settled {
            self.judge(settled);
            let (_, since) = self.live[&settled.intent.key];
            if since < self.window {
                self.live.remove(&settled.intent.key);
                self.history.forget(&settled.intent.key);
            }
        }
        for key in std::mem::take(&mut self.short_lived) {
            self.history.forget(&key);
        }
        self.report();
        self.window += 1;
        if began.elapsed() > SWEEP_EVERY / 2 {
            // It may have swept meanwhile.
            self.expired = 0;
        }
    }

    /// Brings the tally up to date. All effects must be known.
    fn report(&mut self) {
        for violation in self.history.violations() {
            if self.reported.insert(violation.clone()) {
                self.violation(&violation);
            }
        }
        let (keys, acknowledged) = (self.history.keys(), self.history.acknowledged());
        let (counted_keys, counted_acknowledged) = std::mem::replace(&mut self.counted, (keys, acknowledged));
        self.tally.keys.add(keys - counted_keys);
        self.tally.acknowledged.add(acknowledged - counted_acknowledged);
    }

    fn judge(&self, settled: &Settled) {
        let key = &settled.intent.key;
        if settled.is_stuck(self.treatment) {
            self.tally.stuck.add(1);
            self.violation(&format!("{key} stays at {:?}", settled.told));
        }
        if let Some(id) = &settled.charge
            && !self.ledger.has(id)
        {
            self.violation(&format!("{key}: the charge {id} is not in the ledger"));
        }
    }

    /// Opens the store, however often it has to be tried.
    async fn open(&mut self, more: &str) -> Result<Server, Broken> {
        let setup = if more.is_empty() { self.setup.clone() } else { self.setup.clone().with(more) };
        for _ in 0..OPENS {
            let began = Instant::now();
            match setup.launch().listening().await {
                Ok(server) => {
                    self.opening = began.elapsed();
                    self.records = records(&server.log).await;
                    self.judge_sweep();
                    return Ok(server);
                }
                Err(why) => self.failed_open(&why),
            }
        }
        Err(Broken)
    }

    /// How many records the last life has swept.
    fn judge_sweep(&mut self) {
        let Some(Sweeping { records: before, ended }) = self.sweeping.take() else { return };
        let least = (before + ended.answers).saturating_sub(self.records);
        let most = (before + ended.answers + ended.cut).saturating_sub(self.records);
        self.tally.sweeping.add(usize::from(least > 0));
        self.tally.amid_sweep.add(usize::from(least > 0 && most < self.expired));
        self.expired = self.expired.saturating_sub(most);
    }

    /// Returns whether a server was killed after it saw what was interrupted, and before all of that was reconciled.
    fn was_reconciling(&self, log: &str) -> bool {
        let (seen, done) = ("interrupted operations wait to be settled", "reconciled settled=");
        self.treatment.policy == Policy::Reconcile && log.contains(seen) && !log.contains(done)
    }

    fn failed_open(&self, why: &str) {
        self.tally.failed_opens.add(1);
        self.violation(&format!("a failed open: {why}"));
    }

    /// New keys, and nothing else.
    fn load(&mut self) -> Load {
        self.lives += 1;
        Load {
            history: self.history.clone(),
            treatment: self.treatment,
            retries: Vec::new(),
            name: format!("{}-{}", self.treatment.name, self.lives),
            duplicates: false,
            slow: false,
        }
    }

    fn keep(&mut self, ended: &Ended) {
        let window = self.window;
        self.live.extend(ended.fresh.iter().map(|intent| (intent.key.clone(), (intent.clone(), window))));
    }

    /// Counts a life under load.
    async fn ended(&mut self, server: &Server, ended: &Ended) {
        self.killed();
        self.tally.under_load.add(1);
        self.tally.unfinished.add(ended.cut);
        self.tally.retrying.add(usize::from(ended.cut_again > 0));
        self.ledger.expect(ended.answers + ended.cut);
        let log = server.log.whole().await;
        self.tally.reconciling.add(usize::from(self.was_reconciling(&log)));
        self.named.extend(named(&log));
    }

    fn kill_idle(&mut self, mut server: Server) {
        server.kill();
        self.killed();
        self.tally.idle.add(1);
    }

    fn killed(&mut self) {
        self.history.crashed();
        self.kills += 1;
    }

    fn violation(&self, line: &str) {
        self.tally.violation(format!("{}: {line}", self.treatment.name));
    }
}

fn some_moment() -> Moment {
    match below(4) {
        0 => Moment::Time(random_time(MOST_TIME)),
        _ => Moment::Answers(1 + below(MOST_ANSWERS)),
    }
}

/// Returns how many records the store had when it was opened, as it says itself.
async fn records(log: &Output) -> usize {
    let said = || {
        let text = log.text();
        let (_, rest) = text.lines().find(|line| line.contains("the store is open"))?.split_once("records=")?;
        rest.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
    };
    eventually("the number of records", said).await
}
