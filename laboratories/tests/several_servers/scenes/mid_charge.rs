//! Servers that are killed in the middle of a charge: one before the charge took place, one after it and before it was
//! recorded. Until the leases of the two are over, their keys are in flight elsewhere. Then their ends are unknown,
//! until an operator settles them.

use futures_util::future::join_all;
use testkit::history::{ClientAnswer, History, Policy};
use testkit::process::eventually;

use crate::client::{Clients, SLOW};
use crate::database::{Database, Fault, System, over_each_database};
use crate::fleet::{Fleet, SERVERS};
use crate::operator::{release, settle};
use crate::report::{Report, in_time};
use crate::wire::Wire;

const LEASE: &str = "--lease 12 --on-in-flight reject";
/// The keys: one that was not charged when its server was killed, and one that was.
const UNCHARGED: &str = "killed-before-the-charge";
const CHARGED: &str = "killed-after-the-charge";

/// Three servers, two of them killed.
struct Scene {
    fleet: Fleet,
    clients: Clients,
    report: Report,
    _wires: Vec<Wire>,
}

impl Scene {
    async fn play(database: &Database) -> Self {
        in_time(async |number| Self::play_once(database, number).await).await
    }

    /// Plays the scene once. Returns `None` if a charge was over before its server was killed.
    async fn play_once(database: &Database, number: usize) -> Option<Self> {
        let namespace = format!("refuse-{number}");
        let wires = join_all((0..SERVERS).map(|_| Wire::to(database.address()))).await;
        let arguments = |number: usize| {
            let url = database.url_at(wires[number].address());
            format!("--store {url} --namespace {namespace} {LEASE} --on-interrupted refuse")
        };
        let mut fleet = Fleet::start(arguments).await;
        let clients = Clients::new(&fleet.balancer, &History::new(Policy::Refuse));
        let mut report = Report::default();
        // A server that has been open for less than 5/4 of a lease takes all others for alive.
        let look = database.look().await;
        look.until_open_for(&namespace, 18, SERVERS).await;

        let first = clients.begin(&fleet, 0, UNCHARGED, 1).await;
        let second = clients.begin(&fleet, 1, CHARGED, 1).await;
        wires[1].stall();
        let log = fleet.server(0).log.clone();
        fleet.kill(0);
        if log.whole().await.contains("charged id=") {
            return None;
        }
        let log = fleet.server(1).log.clone();
        eventually("the charge", || log.text().contains("charged id=").then_some(())).await;
        fleet.kill(1);
        if look.alive(&namespace).await < 2 {
            return None;
        }
        wires[1].open();
        clients.history.crashed();
        for cut in [first, second] {
            let told = cut.await.expect("no client panics");
            report.expect(told == ClientAnswer::Nothing, || format!("answered before the kill: {told:?}"));
        }
        // While the leases last by the database's clock, the keys are in flight.
        let mut asked = 0;
        loop {
            let told = [clients.send_to(2, UNCHARGED, SLOW).await, clients.send_to(2, CHARGED, SLOW).await];
            if look.alive(&namespace).await < 2 {
                break;
            }
            for told in told {
                // A server whose own lease is short, because the machine stalled, claims nothing for a while.
                report.expect(told.says_to_come_again(), || format!("{told:?} before the lapse"));
                asked += usize::from(told == ClientAnswer::refused("in-flight"));
            }
        }
        report.expect(asked > 4, || format!("asked {asked} times before the lapse"));
        report.figure(format!("in flight {asked} times"));
        Some(Self { fleet, clients, report, _wires: wires })
    }

    /// Checks the last answer of a server.
    async fn ends(&mut self, number: usize, key: &str, is_answered: bool) {
        let told = self.clients.until_settled_at(number, key, SLOW).await;
        let is_right = if is_answered {
            matches!(told, ClientAnswer::Outcome { .. })
        } else {
            told == ClientAnswer::refused("outcome-unknown")
        };
        self.report.expect(is_right, || format!("{key} at server {number}: {told:?}"));
    }

    async fn ends_everywhere(&mut self, key: &str, is_answered: bool) {
        for number in 0..SERVERS {
            self.ends(number, key, is_answered).await;
        }
    }

    /// Frees the uncharged key as an operator does. Nothing runs.
    async fn an_operator_forgets_the_uncharged(&mut self) {
        let found = self.fleet.server(2).interrupted().await;
        match found.first() {
            Some(first) => release(self.fleet.server(2), first, &mut self.report).await,
            None => self.report.wrong("nothing is listed"),
        }
        self.ends_everywhere(UNCHARGED, true).await;
    }

    /// Answers for the charged key as an operator does, with the charge of the ledger.
    async fn an_operator_answers_for_the_charged(&mut self) {
        let charges = self.fleet.server(1).charges().await;
        let charge = charges.iter().find(|charge| charge["description"] == CHARGED).expect("it took place");
        let found = self.fleet.server(0).interrupted().await;
        match found.as_slice() {
            [charged] => settle(self.fleet.server(0), charged, &charge.to_string(), &mut self.report).await,
            other => self.report.wrong(format!("listed are {other:?}")),
        }
        self.ends_everywhere(CHARGED, true).await;
    }

    /// Counts the effects, and judges.
    async fn end(mut self) -> Report {
        let effects = self.fleet.effects().await;
        for key in [UNCHARGED, CHARGED] {
            let found = effects.get(key).copied().unwrap_or_default();
            self.report.expect(found == 1, || format!("{key}: {found} effects"));
        }
        self.fleet.count_effects(&self.clients.history).await;
        self.report.judge_settled(&self.clients);
        self.report
    }
}

async fn run(database: &Database) -> Report {
    let mut scene = Scene::play(database).await;
    scene.ends(2, UNCHARGED, false).await;
    scene.ends(2, CHARGED, false).await;
    scene.fleet.start_all().await;
    scene.ends_everywhere(UNCHARGED, false).await;
    scene.ends_everywhere(CHARGED, false).await;
    for number in 0..SERVERS {
        let found = scene.fleet.server(number).interrupted().await.len();
        scene.report.expect(found == 2, || format!("server {number} lists {found}"));
    }
    scene.an_operator_forgets_the_uncharged().await;
    scene.an_operator_answers_for_the_charged().await;
    scene.end().await
}

async fn a_key_whose_server_is_killed_is_in_flight_until_the_lapse_and_then_unknown_until_it_is_settled(
    system: System,
) {
    let name = &format!("killed in mid-charge, {system}");
    let Some(database) = Database::start(system, name).await else { return };
    run(&database).await.assert_kept(name);
}

async fn control_where_leases_look_over_a_key_is_not_in_flight_before_the_lapse(system: System) {
    let name = &format!("killed in mid-charge, where leases look over, {system}");
    let Some(database) = Database::broken(system, name, Fault::LeasesLookOver).await else { return };
    run(&database).await.assert_seen(name, "before the lapse");
}

over_each_database! {
    a_key_whose_server_is_killed_is_in_flight_until_the_lapse_and_then_unknown_until_it_is_settled
    control_where_leases_look_over_a_key_is_not_in_flight_before_the_lapse
}
