//! Servers that are killed in the midst of a charge: one before the charge took place, one after it, and before it was
//! recorded. Until the leases of the two are over, their keys are in flight elsewhere; then they are what the policy
//! says.

use futures_util::future::join_all;
use testkit::history::{History, Policy, Told};
use testkit::process::eventually;

use crate::client::{Clients, SLOW};
use crate::database::{Fault, Server, alive, broken_database, database, sql, until};
use crate::fleet::{Fleet, SERVERS};
use crate::operator::{forget, listed, settle};
use crate::report::{Report, in_time};
use crate::wire::Wire;

const LEASE: &str = "--lease 12 --on-in-flight reject";
/// The keys: one that was not charged when its server was killed, and one that was.
const UNCHARGED: &str = "killed-before-the-charge";
const CHARGED: &str = "killed-after-the-charge";

/// Three servers of which two were killed.
struct Scene {
    fleet: Fleet,
    clients: Clients,
    report: Report,
    policy: Policy,
    _wires: Vec<Wire>,
}

fn name(policy: Policy) -> String {
    format!("{policy:?}").to_lowercase()
}

impl Scene {
    async fn play(database: &Server, policy: Policy) -> Self {
        in_time(async |number| Self::play_once(database, policy, number).await).await
    }

    /// `None` if a charge was over before its server was killed.
    async fn play_once(database: &Server, policy: Policy, number: usize) -> Option<Self> {
        let name = name(policy);
        let namespace = format!("{name}-{number}");
        let wires = join_all((0..SERVERS).map(|_| Wire::to(database.address()))).await;
        let arguments = |number: usize| {
            let url = wires[number].url();
            format!("--store {url} --namespace {namespace} {LEASE} --on-interrupted {name}")
        };
        let mut fleet = Fleet::start(arguments).await;
        let clients = Clients::new(&fleet.balancer, &History::new(policy));
        let mut report = Report::default();
        // A server that has been open for less than 5/4 of a lease takes all others for alive.
        let sql = sql(database).await;
        let trusted = format!(
            "SELECT count(*) = {SERVERS} FROM idempotency.record \
             WHERE namespace = '{namespace}' AND kind IN (5, 6) AND until > clock_timestamp() \
             AND clock_timestamp() > began + interval '18 s'"
        );
        until(&sql, &trusted).await;

        let first = clients.begin(&fleet, 0, UNCHARGED, 1).await;
        let second = clients.begin(&fleet, 1, CHARGED, 1).await;
        wires[1].silence();
        let log = fleet.server(0).log.clone();
        fleet.kill(0);
        if log.whole().await.contains("charged id=") {
            return None;
        }
        let log = fleet.server(1).log.clone();
        eventually("the charge", || log.text().contains("charged id=").then_some(())).await;
        fleet.kill(1);
        if alive(&sql, &namespace).await < 2 {
            return None;
        }
        wires[1].open();
        clients.history.crashed();
        for cut in [first, second] {
            let told = cut.await.expect("no client panics");
            report.expect(told == Told::Nothing, || format!("answered before the kill: {told:?}"));
        }
        // As long as the database says that the leases are not over, the keys are in flight.
        let mut asked = 0;
        loop {
            let told = [clients.send_to(2, UNCHARGED, SLOW).await, clients.send_to(2, CHARGED, SLOW).await];
            if alive(&sql, &namespace).await < 2 {
                break;
            }
            for told in told {
                // A server whose own lease is short, as the machine stood still, claims nothing for a while.
                report.expect(told.says_to_come_again(), || format!("{name}: {told:?} before the lapse"));
                asked += usize::from(told == Told::refused("in-flight"));
            }
        }
        report.expect(asked > 4, || format!("{name}: asked {asked} times before the lapse"));
        report.figure(format!("{name}: in flight {asked} times"));
        Some(Self { fleet, clients, report, policy, _wires: wires })
    }

    /// What a server says at last.
    async fn ends(&mut self, number: usize, key: &str, is_answered: bool) {
        let told = self.clients.until_settled_at(number, key, SLOW).await;
        let is_right =
            if is_answered { matches!(told, Told::Outcome { .. }) } else { told == Told::refused("outcome-unknown") };
        self.report.expect(is_right, || format!("{:?}, {key} at server {number}: {told:?}", self.policy));
    }

    async fn ends_everywhere(&mut self, key: &str, is_answered: bool) {
        for number in 0..SERVERS {
            self.ends(number, key, is_answered).await;
        }
    }

    /// Nothing runs; an operator frees what was not charged.
    async fn an_operator_forgets_the_uncharged(&mut self) {
        let found = listed(self.fleet.server(2)).await;
        match found.first() {
            Some(first) => forget(self.fleet.server(2), first, &mut self.report).await,
            None => self.report.wrong("nothing is listed"),
        }
        self.ends_everywhere(UNCHARGED, true).await;
    }

    /// An operator answers for what was charged, as the ledger has it.
    async fn an_operator_answers_for_the_charged(&mut self) {
        let charges = self.fleet.server(1).charges().await;
        let charge = charges.iter().find(|charge| charge["description"] == CHARGED).expect("it took place");
        let found = listed(self.fleet.server(0)).await;
        match found.as_slice() {
            [charged] => settle(self.fleet.server(0), charged, &charge.to_string(), &mut self.report).await,
            other => self.report.wrong(format!("listed are {other:?}")),
        }
        self.ends_everywhere(CHARGED, true).await;
    }

    /// Counts, and judges.
    async fn end(mut self, uncharged: usize, charged: usize) -> Report {
        let effects = self.fleet.effects().await;
        for (key, expected) in [(UNCHARGED, uncharged), (CHARGED, charged)] {
            let found = effects.get(key).copied().unwrap_or_default();
            self.report.expect(found == expected, || format!("{:?}, {key}: {found} effects", self.policy));
        }
        self.fleet.count_effects(&self.clients.history).await;
        self.report.judge_settled(&self.clients);
        self.report
    }
}

/// "409, until an operator settles it."
async fn refuse(database: &Server) -> Report {
    let mut scene = Scene::play(database, Policy::Refuse).await;
    scene.ends(2, UNCHARGED, false).await;
    scene.ends(2, CHARGED, false).await;
    scene.fleet.start_all().await;
    scene.ends_everywhere(UNCHARGED, false).await;
    scene.ends_everywhere(CHARGED, false).await;
    for number in 0..SERVERS {
        let found = listed(scene.fleet.server(number)).await.len();
        scene.report.expect(found == 2, || format!("refuse: server {number} lists {found}"));
    }
    scene.an_operator_forgets_the_uncharged().await;
    scene.an_operator_answers_for_the_charged().await;
    scene.end(1, 1).await
}

/// "It runs again."
async fn rerun(database: &Server) -> Report {
    let mut scene = Scene::play(database, Policy::Rerun).await;
    scene.ends(2, UNCHARGED, true).await;
    scene.ends(2, CHARGED, true).await;
    scene.fleet.start_all().await;
    scene.ends_everywhere(UNCHARGED, true).await;
    scene.ends_everywhere(CHARGED, true).await;
    scene.end(1, 2).await
}

/// "The ledger is asked": that of the server that charged has it, the others can't know.
async fn reconcile(database: &Server) -> Report {
    let mut scene = Scene::play(database, Policy::Reconcile).await;
    scene.ends(2, UNCHARGED, false).await;
    scene.ends(2, CHARGED, false).await;
    scene.fleet.start_all().await;
    scene.ends(1, CHARGED, true).await;
    scene.ends_everywhere(CHARGED, true).await;
    scene.ends_everywhere(UNCHARGED, false).await;
    scene.an_operator_forgets_the_uncharged().await;
    scene.end(1, 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_server_is_killed_is_in_flight_until_the_lapse_and_then_what_the_policy_says() {
    let name = "killed in mid-charge";
    let Some(database) = database(name, &[]).await else { return };
    let mut report = Report::default();
    let (refused, rerun, reconciled) = tokio::join!(refuse(&database), rerun(&database), reconcile(&database));
    [refused, rerun, reconciled].into_iter().for_each(|part| report.add(part));
    report.assert_kept(name);
}

#[tokio::test(flavor = "multi_thread")]
async fn control_where_leases_look_over_a_key_is_not_in_flight_before_the_lapse() {
    let name = "killed in mid-charge, where leases look over";
    let Some(database) = broken_database(name, &[], Fault::LeasesLookOver).await else { return };
    refuse(&database).await.assert_seen(name, "before the lapse");
}
