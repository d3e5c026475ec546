//! One policy on one data directory: server follows server, and each is killed.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use laboratories::engine::Engine;
use testkit::dice::{below, time_below};
use testkit::history::{History, Policy};
use testkit::payment_server::{Server, Setup};

use crate::counts::Counts;
use crate::ledger::{Ledger, named};
use crate::load::{Ended, Intent, Load, Moment, until_killed};
use crate::policies::Treatment;
use crate::settle::{Settled, retry};

/// The number of random kills after which everything is settled and judged.
const WINDOW: usize = 25;
/// The most answers, and the most time, after which a server is killed. Each kill takes a random part of one of them.
const MOST_ANSWERS: usize = 60;
const MOST_TIME: Duration = Duration::from_millis(40);
/// The most time until a kill that is to hit retries, or the reconciliation that runs without them.
const EARLY: Duration = Duration::from_millis(10);
/// The number of older keys that are retried in a life under load.
const RETRIES: usize = 24;
/// The most tries of a moment that was never hit so far.
const MISSES: usize = 5;
/// The most openings of a store before it counts as broken.
const OPENS: usize = 3;

pub(crate) struct Lane {
    treatment: Treatment,
    setup: Setup,
    history: History,
    counts: Arc<Counts>,
    /// The keys that are still retried, and the window in which each began.
    live: HashMap<String, (Intent, usize)>,
    ledger: Ledger,
    /// The charges that a server's log named.
    named: HashSet<String>,
    window: usize,
    kills: usize,
    lives: usize,
    /// The time that the last opening took.
    opening: Duration,
    /// The numbers of keys and of acknowledged keys that are in the counts.
    counted: (usize, usize),
    reported: HashSet<String>,
}

/// The error of a store that can't be opened any more.
struct Broken;

impl Lane {
    pub(crate) fn new(engine: Engine, treatment: Treatment, directory: PathBuf, counts: Arc<Counts>) -> Self {
        let setup = engine.serves(Setup::new(directory)).with(treatment.arguments);
        counts.reconcilers.add(usize::from(treatment.policy == Policy::Reconcile));
        Self {
            history: History::new(treatment.policy),
            treatment,
            setup,
            counts,
            live: HashMap::new(),
            ledger: Ledger::default(),
            named: HashSet::new(),
            window: 0,
            kills: 0,
            lives: 0,
            opening: Duration::from_millis(50),
            counted: (0, 0),
            reported: HashSet::new(),
        }
    }

    /// Kills `kills` servers, and settles everything on one more.
    pub(crate) async fn run(mut self, kills: usize) {
        // A store that can't be opened is a violation by itself; the last effects are unknown then.
        let _ = self.kill(kills).await;
    }

    async fn kill(&mut self, kills: usize) -> Result<(), Broken> {
        let window = WINDOW.min(kills);
        while self.kills < kills && !self.counts.control_has_seen() {
            let end = kills.min(self.kills + window);
            self.kill_retries().await?;
            self.kill_at_a_start().await;
            while self.kills < end {
                match below(3) {
                    0 => self.kill_at_a_start().await,
                    _ => self.kill_under_load(some_moment()).await?,
                }
            }
            let server = self.open().await?;
            self.settle(&server).await;
            self.kill_idle(server);
        }
        let server = self.open().await?;
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

    /// Kills several servers in a row, before or while they open, or right after.
    async fn kill_at_a_start(&mut self) {
        for _ in 0..=below(3) {
            let launched = self.setup.launch();
            let log = launched.log.clone();
            tokio::time::sleep(time_below(self.opening.mul_f64(1.2))).await;
            let had_ended = launched.kill();
            self.killed();
            self.counts.opening.add(1);
            let log = log.whole().await;
            self.counts.before_open.add(usize::from(!log.contains("the store is open")));
            self.counts.reconciling.add(usize::from(self.was_reconciling(&log)));
            if had_ended {
                self.failed_open(&log);
            }
        }
    }

    /// Interrupts a request, and then its retries. Repeats this if the moment was missed and was never hit so far.
    async fn kill_retries(&mut self) -> Result<(), Broken> {
        for _ in 0..MISSES {
            self.kill_under_load(Moment::Answers(1 + below(MOST_ANSWERS))).await?;
            self.kill_under_load(Moment::Time(time_below(EARLY))).await?;
            let reconciled = self.treatment.policy != Policy::Reconcile || self.counts.reconciling.get() > 0;
            if reconciled && self.counts.retrying.get() > 0 {
                break;
            }
        }
        Ok(())
    }

    async fn kill_under_load(&mut self, moment: Moment) -> Result<(), Broken> {
        let mut server = self.open().await?;
        let load = self.load();
        let ended = until_killed(&mut server, load, moment).await;
        self.ended(&server, &ended).await;
        let window = self.window;
        self.live.extend(ended.fresh.into_iter().map(|intent| (intent.key.clone(), (intent, window))));
        Ok(())
    }

    fn load(&mut self) -> Load {
        self.lives += 1;
        Load {
            history: self.history.clone(),
            treatment: self.treatment,
            retries: self.some_retries(),
            name: format!("{}-{}", self.treatment.name, self.lives),
            slow: below(40) == 0,
        }
    }

    /// Returns interrupted keys and answered keys to retry, about half of each.
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

    /// Retries everything, reads the ledger, and judges for the last time the keys that were settled in two windows.
    async fn settle(&mut self, server: &Server) {
        let intents = self.live.values().map(|(intent, _)| intent.clone()).collect();
        let settled = retry(server, &self.history, self.treatment, intents).await;
        self.ledger.expect(settled.len());
        for charge in self.ledger.new_charges(server).await {
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
        self.report();
        self.window += 1;
    }

    /// Brings the counts up to date. All effects must be known.
    fn report(&mut self) {
        for violation in self.history.violations() {
            if self.reported.insert(violation.clone()) {
                self.violation(&violation);
            }
        }
        let (keys, acknowledged) = (self.history.keys(), self.history.acknowledged());
        let (counted_keys, counted_acknowledged) = std::mem::replace(&mut self.counted, (keys, acknowledged));
        self.counts.keys.add(keys - counted_keys);
        self.counts.acknowledged.add(acknowledged - counted_acknowledged);
    }

    fn judge(&self, settled: &Settled) {
        let key = &settled.intent.key;
        if settled.is_stuck(self.treatment) {
            self.counts.stuck.add(1);
            self.violation(&format!("{key} stays at {:?}", settled.told));
        }
        if let Some(id) = &settled.charge
            && !self.ledger.has(id)
        {
            self.violation(&format!("{key}: the charge {id} is not in the ledger"));
        }
    }

    /// Opens the store, with several tries if necessary.
    async fn open(&mut self) -> Result<Server, Broken> {
        for _ in 0..OPENS {
            let began = Instant::now();
            match self.setup.launch().listening().await {
                Ok(server) => {
                    self.opening = began.elapsed();
                    return Ok(server);
                }
                Err(why) => self.failed_open(&why),
            }
        }
        Err(Broken)
    }

    /// Returns whether a server was killed after it saw interrupted operations, and before it had reconciled all of
    /// them.
    fn was_reconciling(&self, log: &str) -> bool {
        let (seen, done) = ("interrupted operations wait to be settled", "reconciled settled=");
        self.treatment.policy == Policy::Reconcile && log.contains(seen) && !log.contains(done)
    }

    fn failed_open(&self, why: &str) {
        self.counts.failed_opens.add(1);
        self.violation(&format!("a failed open: {why}"));
    }

    /// Counts a life under load.
    async fn ended(&mut self, server: &Server, ended: &Ended) {
        self.killed();
        self.counts.under_load.add(1);
        self.counts.unfinished.add(ended.cut);
        self.counts.retrying.add(usize::from(ended.cut_again > 0));
        self.ledger.expect(ended.answers + ended.cut);
        let log = server.log.whole().await;
        self.counts.reconciling.add(usize::from(self.was_reconciling(&log)));
        self.named.extend(named(&log));
    }

    fn kill_idle(&mut self, mut server: Server) {
        server.kill();
        self.killed();
        self.counts.idle.add(1);
    }

    fn killed(&mut self) {
        self.history.crashed();
        self.kills += 1;
    }

    fn violation(&self, line: &str) {
        self.counts.violation(format!("{}: {line}", self.treatment.name));
    }
}

fn some_moment() -> Moment {
    match below(4) {
        0 => Moment::Time(time_below(MOST_TIME)),
        _ => Moment::Answers(1 + below(MOST_ANSWERS)),
    }
}
