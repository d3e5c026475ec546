//! All faults at once, at random. Servers are killed, end in order, or stall, some for longer than their lease. A
//! database is killed or stalls, or its clock is set. Links to it are cut, or swallow the bytes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use testkit::dice::{below, number, time_below};
use testkit::history::{History, Policy};

use crate::client::Clients;
use crate::database::{Database, Fault, System, over_each_database};
use crate::fleet::{Fleet, SERVERS};
use crate::load::{Load, ask_for};
use crate::report::Report;
use crate::wire::Wire;

const LEASE: Duration = Duration::from_secs(12);
/// The longest time between two faults.
const OFTEN: Duration = Duration::from_millis(1_200);
/// The least number of keys that are settled.
const LEAST: usize = 60;
/// The time within which the servers' lists must agree with the answers: leases must be over, and be trusted again.
const AGREED_WITHIN: Duration = Duration::from_secs(90);

/// The kind of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strike {
    Kill,
    End,
    StandStill,
    Cut,
    Swallow,
    KillDatabase,
    PauseDatabase,
    SetClock,
}

/// The most by which the database's clock is wrong: days, because keys are kept for one.
const WRONG: Duration = Duration::from_secs(6 * 24 * 60 * 60);

const STRIKES: [Strike; 8] = [
    Strike::Kill,
    Strike::End,
    Strike::StandStill,
    Strike::Cut,
    Strike::Swallow,
    Strike::KillDatabase,
    Strike::PauseDatabase,
    Strike::SetClock,
];

struct Scene {
    database: Database,
    wires: Vec<Wire>,
    fleet: Fleet,
    /// The servers that stall, and the end of each stall.
    paused: Vec<(usize, Instant)>,
    /// The links that swallow, and the end of each.
    silent: Vec<(usize, Instant)>,
    struck: [usize; STRIKES.len()],
}

impl Scene {
    async fn start(database: Database) -> Self {
        let wires = join_all((0..SERVERS).map(|_| Wire::to(database.address()))).await;
        let arguments = |number: usize| {
            let url = database.url_at(wires[number].address());
            format!("--store {url} --lease {} --on-interrupted refuse", LEASE.as_secs())
        };
        let fleet = Fleet::start(arguments).await;
        Self { database, wires, fleet, paused: Vec::new(), silent: Vec::new(), struck: [0; STRIKES.len()] }
    }

    /// Causes one fault, or none: a server that stalls can't end.
    async fn strike(&mut self, history: &History) {
        let (kind, number) = (below(STRIKES.len()), below(SERVERS));
        let stands = self.paused.iter().any(|(paused, _)| *paused == number);
        match STRIKES[kind] {
            Strike::Kill | Strike::End | Strike::StandStill if stands => return,
            // A server ends in order only if its database allows it.
            Strike::End if !self.silent.is_empty() => return,
            Strike::Kill => {
                self.fleet.kill(number);
                history.crashed();
                self.start_again(number).await;
            }
            Strike::End => {
                self.fleet.stop(number).await;
                self.start_again(number).await;
            }
            Strike::StandStill => {
                self.fleet.server(number).pause().await;
                self.paused.push((number, Instant::now() + time_below(LEASE * 5 / 4)));
            }
            Strike::Cut => self.wires[number].cut_all(),
            Strike::Swallow => {
                self.wires[number].stall();
                self.silent.push((number, Instant::now() + time_below(LEASE)));
            }
            Strike::KillDatabase => {
                self.database.kill();
                tokio::time::sleep(time_below(OFTEN)).await;
                self.database.start_again();
            }
            Strike::PauseDatabase => {
                self.database.pause();
                tokio::time::sleep(time_below(OFTEN * 3)).await;
                self.database.resume();
            }
            Strike::SetClock => {
                let ahead = time_below(2 * WRONG).as_secs();
                self.database.set_clock(ahead.cast_signed() - WRONG.as_secs().cast_signed());
            }
        }
        self.struck[kind] += 1;
    }

    async fn start_again(&mut self, number: usize) {
        self.wires[number].open();
        self.silent.retain(|(silent, _)| *silent != number);
        self.fleet.start_again(number).await;
    }

    /// Ends the faults that are over at `now`.
    fn heal(&mut self, now: Instant) {
        let Self { wires, fleet, paused, silent, .. } = self;
        for (number, _) in paused.extract_if(.., |(_, until)| *until <= now) {
            fleet.server(number).resume();
        }
        for (number, _) in silent.extract_if(.., |(_, until)| *until <= now) {
            wires[number].open();
        }
    }

    /// Waits until every server lists exactly the operations that clients are refused, and returns their number.
    /// Outcomes may come late.
    async fn agree(&self, clients: &Clients, report: &mut Report) -> usize {
        let began = Instant::now();
        loop {
            ask_for(clients, &clients.history.unsettled()).await;
            let refused = clients.history.unsettled().len();
            let lists = (0..SERVERS).map(|number| self.fleet.server(number).interrupted());
            let listed: Vec<usize> = join_all(lists).await.iter().map(Vec::len).collect();
            // After a violation, they may never agree.
            if listed == [refused; SERVERS] || !clients.history.violations().is_empty() {
                return refused;
            }
            if began.elapsed() > AGREED_WITHIN {
                report.wrong(format!("{refused} keys are refused, and {listed:?} are listed"));
                return refused;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn run(database: Database, faults: usize) -> Report {
    let mut scene = Scene::start(database).await;
    let clients = Clients::new(&scene.fleet.balancer, &History::new(Policy::Refuse));
    let load = Load::in_haste(&clients);
    for _ in 0..faults {
        tokio::time::sleep(time_below(OFTEN)).await;
        scene.heal(Instant::now());
        scene.strike(&clients.history).await;
    }
    scene.heal(Instant::now() + LEASE * 2);
    scene.database.set_clock(0);
    load.more(LEAST).await;
    load.end().await;
    let mut report = Report::default();
    let refused = scene.agree(&clients, &mut report).await;
    scene.fleet.count_effects(&clients.history).await;
    report.figure(clients.figures());
    // A server may answer without a record and then die. A retry may then get `outcome-unknown`.
    let unsaved = scene.fleet.logged("answered without a record");
    let (forgotten, wrong): (Vec<_>, Vec<_>) =
        clients.history.violations().into_iter().partition(|line| line.contains("rule 4: outcome-unknown"));
    wrong.into_iter().chain(clients.stuck()).for_each(|line| report.wrong(line));
    let forgotten: BTreeSet<&str> = forgotten.iter().filter_map(|line| line.split(':').next()).collect();
    let is_explained = forgotten.len() <= unsaved;
    report.expect(is_explained, || format!("{forgotten:?} are forgotten, and {unsaved} were not recorded"));
    let disputed = scene.fleet.logged("its outcome is disputed");
    report.expect(disputed == 0, || format!("{disputed} outcomes are disputed, and no operation was taken over"));
    let struck: Vec<String> =
        STRIKES.iter().zip(scene.struck).map(|(strike, times)| format!("{strike:?} {times}")).collect();
    report.figure(format!(
        "{}; interrupted {refused}, answered without a record {unsaved}, of them forgotten {}",
        struck.join(", "),
        forgotten.len()
    ));
    report
}

async fn whatever_fails_at_once_each_key_is_charged_at_most_once_and_answered_the_same(system: System) {
    let name = &format!("all at once, {system}");
    let Some(database) = Database::with_a_clock(system, name, None).await else { return };
    run(database, number("FAULTS").unwrap_or(8)).await.assert_kept(name);
}

async fn control_where_the_database_compares_nothing_whatever_fails_charges_twice(system: System) {
    let name = &format!("all at once, in a database that compares nothing, {system}");
    let Some(database) = Database::with_a_clock(system, name, Some(Fault::NoCompare)).await else { return };
    run(database, 1).await.assert_seen(name, "effects under");
}

over_each_database! {
    whatever_fails_at_once_each_key_is_charged_at_most_once_and_answered_the_same
    control_where_the_database_compares_nothing_whatever_fails_charges_twice
}
