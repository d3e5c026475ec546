//! A database that is away for twice the lease, while charges are under way on a server that comes back later than the
//! others: no run of a living process is taken over.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use testkit::dice::number;
use testkit::history::{ClientAnswer, History, Policy};
use tokio::task::JoinHandle;

use super::outages::{judge, memory_is_bounded, probe, recover};
use crate::client::{Clients, SLOW};
use crate::database::{Database, System, over_each_database};
use crate::fleet::{Fleet, SERVERS};
use crate::load::Load;
use crate::report::Report;
use crate::wire::Wire;

/// The number of charges under way on each server when the database goes.
const UNDER_WAY: usize = 4;
const LEAST_LEASE: Duration = Duration::from_secs(12);

/// Servers of one policy, with charges under way.
struct Scene {
    policy: &'static str,
    wires: Vec<Wire>,
    fleet: Fleet,
    clients: Clients,
    load: Load,
    keys: Vec<String>,
    sent: Vec<JoinHandle<ClientAnswer>>,
    before: [usize; SERVERS],
}

impl Scene {
    async fn start(database: &Database, policy: &'static str, lease: Duration) -> Self {
        let lease = lease.as_secs();
        let wires = join_all((0..SERVERS).map(|_| Wire::to(database.address()))).await;
        let arguments = |number: usize| {
            let url = database.url_at(wires[number].address());
            format!("--store {url} --namespace {policy} --lease {lease} --on-interrupted {policy}")
        };
        let fleet = Fleet::start(arguments).await;
        // No policy allows a second effect, because no server dies.
        let clients = Clients::new(&fleet.balancer, &History::new(Policy::Refuse));
        let load = Load::start(&clients);
        load.more(20).await;
        let before = fleet.memory();
        let (keys, sent) = (Vec::new(), Vec::new());
        Self { policy, wires, fleet, clients, load, keys, sent, before }
    }

    /// Begins charges at all servers at once, because charges are short.
    async fn begin(&mut self) {
        let (clients, fleet) = (&self.clients, &self.fleet);
        let begun = join_all((0..SERVERS).map(async |number| {
            let mut begun = Vec::new();
            for count in 1..=UNDER_WAY {
                let key = format!("under-way-{number}-{count}");
                begun.push((clients.begin(fleet, number, &key, count).await, key));
            }
            begun
        }));
        (self.sent, self.keys) = begun.await.into_iter().flatten().unzip();
    }

    /// Asks every server for the runs of the others, from the moment at which the database is back. Server 0 is later.
    async fn come_back(&self, later: Duration) {
        let asked = self.keys.iter().map(|key| async {
            join_all((0..SERVERS).map(|number| self.clients.until_settled_at(number, key, SLOW))).await;
        });
        let late = async {
            tokio::time::sleep(later).await;
            self.wires[0].open();
        };
        tokio::join!(join_all(asked), late);
        for name in ["away", "still-away"] {
            recover(&self.clients, name).await;
        }
    }

    async fn end(self, report: &mut Report) {
        let Self { policy, wires, mut fleet, clients, load, sent, before, .. } = self;
        for told in join_all(sent).await {
            let told = told.expect("no client panics");
            let is_right = matches!(told, ClientAnswer::Outcome { .. });
            report.expect(is_right, || format!("{policy}: a charge that was under way is answered {told:?}"));
        }
        load.end().await;
        let unsaved = fleet.logged("answered without a record");
        report.expect(unsaved > 0, || format!("{policy}: nothing was under way when the database went"));
        report.figure(format!("policy {policy}"));
        memory_is_bounded(&fleet, before, report);
        judge(&mut fleet, &clients, report).await;
        drop(wires);
    }
}

/// Plays the scenes. Server 0 comes back later than the others by `later` of its lease.
async fn away(database: &mut Database, time: Duration, later: f64) -> Report {
    let lease = (time / 2).max(LEAST_LEASE);
    let mut report = Report::default();
    let mut scenes = [Scene::start(database, "refuse", lease).await, Scene::start(database, "rerun", lease).await];
    join_all(scenes.iter_mut().map(Scene::begin)).await;
    let began = Instant::now();
    for scene in &scenes {
        scene.wires[0].close();
    }
    database.kill();
    for scene in &scenes {
        probe(&scene.clients, "away", &mut report).await;
    }
    tokio::time::sleep(time.saturating_sub(began.elapsed())).await;
    for scene in &scenes {
        probe(&scene.clients, "still-away", &mut report).await;
    }
    database.start_again();
    join_all(scenes.iter().map(|scene| scene.come_back(lease.mul_f64(later)))).await;
    for scene in scenes {
        scene.end(&mut report).await;
    }
    report.figure(format!("away for {time:?} with a lease of {lease:?}"));
    report
}

fn time() -> Duration {
    Duration::from_secs(number("AWAY").unwrap_or(24))
}

async fn a_database_that_is_away_for_twice_the_lease_costs_no_living_process_its_runs(system: System) {
    let name = &format!("database away, {system}");
    let Some(mut database) = Database::start(system, name).await else { return };
    // The other servers trust the lease that they read only after a whole lease of their own.
    away(&mut database, time(), 1.0 / 12.0).await.assert_kept(name);
}

async fn control_where_a_server_is_away_for_longer_than_its_lease_when_the_database_is_back_its_runs_are_taken_over(
    system: System,
) {
    let name = &format!("database away, and a server for longer, {system}");
    let Some(mut database) = Database::start(system, name).await else { return };
    away(&mut database, LEAST_LEASE, 1.5).await.assert_seen(name, "was taken for dead");
}

over_each_database! {
    a_database_that_is_away_for_twice_the_lease_costs_no_living_process_its_runs
    control_where_a_server_is_away_for_longer_than_its_lease_when_the_database_is_back_its_runs_are_taken_over
}
