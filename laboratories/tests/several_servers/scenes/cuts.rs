//! Connections to the database that are cut: at every byte of a claim, of an outcome, and of their answers; then at
//! random, under load. There is no second effect, and every retry gets the same answer.

use std::time::Duration;

use futures_util::future::join_all;
use testkit::dice::{below, number, time_below};
use testkit::history::{ClientAnswer, History, Policy};
use testkit::proxy::{End, Way};

use super::outages::judge;
use crate::client::{Clients, VISA};
use crate::database::{Database, Fault, System, over_each_database};
use crate::fleet::{Fleet, SERVERS};
use crate::load::Load;
use crate::put::{COMPLETED, RUNNING};
use crate::report::Report;
use crate::wire::{Cut, Wire};

/// The longest time between two cuts at random.
const OFTEN: Duration = Duration::from_millis(60);

struct Scene {
    wires: Vec<Wire>,
    fleet: Fleet,
    clients: Clients,
    report: Report,
    /// The number of puts of a kind before the one that is cut.
    skipped: usize,
}

impl Scene {
    async fn start(database: &Database, namespace: &str, policy: &str) -> Self {
        let wires = join_all((0..SERVERS).map(|_| Wire::to(database.address()))).await;
        let arguments = |number: usize| {
            let url = database.url_at(wires[number].address());
            format!("--store {url} --namespace {namespace} --lease 12 --on-interrupted {policy}")
        };
        let fleet = Fleet::start(arguments).await;
        let clients = Clients::new(&fleet.balancer, &History::new(Policy::Refuse));
        Self { wires, fleet, clients, report: Report::default(), skipped: 0 }
    }

    /// Sends a charge to server 0, whose put of this kind goes as planned; then asks all servers for it.
    async fn charge(&self, key: &str, cut: Cut) -> ClientAnswer {
        self.wires[0].plan(cut);
        let told = self.clients.send_to(0, key, VISA).await;
        self.clients.ask_all(SERVERS, key).await;
        told
    }

    async fn at_every_byte(mut self, step: usize) -> Report {
        let (mut cuts, mut first) = (0, 0);
        for kind in [RUNNING, COMPLETED] {
            // A cut at a byte that is never reached cuts nothing.
            let skipped = self.skipped;
            let whole = Cut { kind, skipped, way: Way::Response, after: usize::MAX, end: End::Fin };
            let told = self.charge(&format!("kind-{kind}-whole"), whole).await;
            self.report.expect(matches!(told, ClientAnswer::Outcome { .. }), || format!("without a cut: {told:?}"));
            let [request, response] = self.wires[0].lengths();
            self.report.figure(format!("kind {kind}: {request} bytes and {response} of the answer"));
            assert!(request > 100 && response > 50, "the put is not seen: {request} {response}");
            for (way, length) in [(Way::Request, request), (Way::Response, response)] {
                for after in (0..length - 1).step_by(step).chain([length - 1, length]) {
                    let end = if after % 2 == 0 { End::Rst } else { End::Fin };
                    let before = self.wires[0].done();
                    let told = self
                        .charge(&format!("kind-{kind}-{way:?}-{after}"), Cut { kind, skipped, way, after, end })
                        .await;
                    let is_cut = self.wires[0].done() == before + 1;
                    cuts += 1;
                    first += usize::from(matches!(told, ClientAnswer::Outcome { .. }));
                    // Answers differ by a few bytes in length.
                    let is_short = way == Way::Response && after + 8 > length;
                    self.report.expect(is_cut || is_short, || format!("kind {kind}, {way:?} {after}: no cut"));
                }
            }
        }
        self.report.figure(format!("cuts {cuts}, answered at the first try all the same {first}"));
        self.end().await
    }

    async fn at_random(mut self, cuts: usize) -> Report {
        let load = Load::start(&self.clients);
        for _ in 0..cuts {
            self.wires[below(SERVERS)].cut_all();
            tokio::time::sleep(time_below(OFTEN)).await;
        }
        load.more(SERVERS).await;
        load.end().await;
        let connections: usize = self.wires.iter().map(Wire::connections).sum();
        self.report.figure(format!("cuts {cuts}, connections {connections}"));
        self.end().await
    }

    async fn end(self) -> Report {
        let Self { wires, mut fleet, clients, mut report, .. } = self;
        judge(&mut fleet, &clients, &mut report).await;
        drop(wires);
        report
    }
}

async fn a_connection_that_is_cut_at_any_byte_of_a_put_makes_no_second_effect(system: System) {
    let name = &format!("cut at every byte of a put, {system}");
    let Some(database) = Database::start(system, name).await else { return };
    let step = number("CUT_EVERY").unwrap_or(43);
    let mut report = Report::default();
    for policy in ["refuse", "rerun"] {
        report.add(Scene::start(&database, policy, policy).await.at_every_byte(step).await);
    }
    report.assert_kept(name);
}

async fn connections_that_are_cut_all_the_time_make_no_second_effect(system: System) {
    let name = &format!("cut at random, {system}");
    let Some(database) = Database::start(system, name).await else { return };
    let cuts = number("CUTS").unwrap_or(100);
    let mut report = Report::default();
    for policy in ["refuse", "rerun"] {
        report.add(Scene::start(&database, policy, policy).await.at_random(cuts).await);
    }
    report.assert_kept(name);
}

async fn control_where_the_database_compares_nothing_a_cut_makes_second_effects(system: System) {
    let name = &format!("cut at every byte of a put, in a database that compares nothing, {system}");
    let Some(database) = Database::broken(system, name, Fault::NoCompare).await else { return };
    // PostgreSQL's functions are broken, and they are the second to be asked, so the test skips one put.
    let skipped = usize::from(system == System::Postgres);
    let scene = Scene { skipped, ..Scene::start(&database, "broken", "refuse").await };
    scene.at_every_byte(200).await.assert_seen(name, "effects under");
}

over_each_database! {
    a_connection_that_is_cut_at_any_byte_of_a_put_makes_no_second_effect
    connections_that_are_cut_all_the_time_make_no_second_effect
    control_where_the_database_compares_nothing_a_cut_makes_second_effects
}
