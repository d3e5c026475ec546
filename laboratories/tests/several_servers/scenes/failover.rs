//! A primary that is lost under load, and its standby, which is promoted. If each commit waits for the standby, no
//! outcome that was answered is lost, and no key is charged twice. If no commit waits, the losses are measured.

use std::collections::BTreeSet;
use std::time::Duration;

use testkit::dice::number;
use testkit::history::{History, Policy};
use testkit::proxy::Proxy;
use tokio::join;

use super::outages::recover;
use crate::client::Clients;
use crate::database::{Database, System, over_each_database};
use crate::fleet::{Fleet, SERVERS};
use crate::load::{Load, ask_for};
use crate::report::Report;
use crate::wire::Wire;

/// The number of keys that are settled between two failovers.
const BETWEEN: usize = 60;
/// The time for which nothing gets to the standby before the primary is lost, in the rounds in which the primary is
/// ahead.
const AHEAD: Duration = Duration::from_millis(1_000);

/// A primary and its standby.
struct Pair {
    primary: Database,
    standby: Database,
    /// The link over which the standby streams.
    wire: Wire,
    /// The name that leads to the primary. Clients of PostgreSQL look for it themselves.
    name: Option<Proxy>,
    is_synchronous: bool,
}

/// The loss of the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// The primary is killed.
    Killed,
    /// The primary is killed after nothing has got to its standby for a while.
    KilledAhead,
    /// The same happens, and all payment servers are killed with it: no process remembers the records that the standby
    /// lacks.
    AllKilledAhead,
    /// The primary stalls for ever, and accepts connections.
    Hangs,
}

impl Pair {
    async fn start(system: System, promise: &str, is_synchronous: bool) -> Option<Self> {
        let primary = Database::primary(system, promise, is_synchronous).await?;
        let wire = Wire::to(primary.address()).await;
        let standby = primary.standby(wire.address());
        let name = match system {
            System::Postgres => None,
            System::Redis => Some(Proxy::to(primary.address(), |_| Some(())).await),
        };
        let pair = Self { primary, standby, wire, name, is_synchronous };
        pair.join().await;
        Some(pair)
    }

    fn url(&self) -> String {
        match &self.name {
            Some(name) => self.primary.url_at(name.address()),
            None => format!("postgres://postgres@{},{}/postgres", self.primary.address(), self.standby.address()),
        }
    }

    async fn join(&self) {
        self.primary.join(&self.standby, self.is_synchronous).await;
    }

    /// Loses the primary, and promotes its standby. Returns how many bytes of the log the standby lacked, as far as the
    /// primary knew.
    async fn fail_over(&mut self, loss: Loss) -> i64 {
        if matches!(loss, Loss::KilledAhead | Loss::AllKilledAhead) {
            self.wire.stall();
            tokio::time::sleep(AHEAD).await;
        }
        let behind = self.primary.behind().await;
        match loss {
            Loss::Killed | Loss::KilledAhead | Loss::AllKilledAhead => self.primary.kill(),
            Loss::Hangs => self.primary.pause(),
        }
        self.wire.close();
        self.standby.promote();
        std::mem::swap(&mut self.primary, &mut self.standby);
        if let Some(name) = &self.name {
            name.lead_to(self.primary.address());
        }
        behind
    }

    /// Brings the lost server back, as a standby.
    async fn rejoin(&mut self, loss: Loss) {
        if loss == Loss::Hangs {
            self.standby.kill();
        }
        self.wire = Wire::to(self.primary.address()).await;
        self.standby.become_standby_of(self.wire.address());
        self.join().await;
    }
}

/// Plays the rounds. Returns the report, and the number of keys that were charged twice or answered otherwise later.
async fn fail_over(mut pair: Pair, rounds: usize, losses: &[Loss]) -> (Report, usize) {
    let arguments = format!("--store {} --lease 12 --on-interrupted refuse", pair.url());
    let mut fleet = Fleet::start(|_| arguments.clone()).await;
    let history = History::new(Policy::Refuse);
    let clients = Clients::new(&fleet.balancer, &history);
    let clients = if pair.is_synchronous { clients } else { clients.impatient() };
    let (load, mut report, mut behind) = (Load::start(&clients), Report::default(), 0);
    for round in 0..rounds {
        load.more(BETWEEN).await;
        let loss = losses[round % losses.len()];
        behind = behind.max(pair.fail_over(loss).await);
        if loss == Loss::AllKilledAhead {
            (0..SERVERS).for_each(|number| fleet.kill(number));
            fleet.start_all().await;
        }
        // The servers over Redis say how many replicas a write waits for, so they recover with the standby.
        let name = format!("round-{round}");
        join!(recover(&clients, &name), pair.rejoin(loss));
    }
    let keys = load.end().await;
    // The servers forget what they remember: the answers must come from the database.
    for number in 0..SERVERS {
        fleet.stop(number).await;
    }
    fleet.start_all().await;
    ask_for(&clients, &keys).await;
    let effects = fleet.effects().await;
    let twice = effects.values().filter(|effects| **effects > 1).count();
    fleet.count_effects(&history).await;
    report.judge_settled(&clients);
    if !losses.contains(&Loss::AllKilledAhead) {
        let unknown = clients.refused("outcome-unknown");
        report.expect(unknown == 0, || format!("{unknown} times a run was taken for dead, and no server died"));
    }
    let violations = history.violations();
    let is_otherwise = |line: &&String| line.contains("rule 3") || line.contains("rule 4");
    let lost: BTreeSet<_> = violations.iter().filter(is_otherwise).filter_map(|line| line.split(':').next()).collect();
    let lost = lost.len();
    let (answered, disputed) = (history.acknowledged(), fleet.logged("its outcome is disputed"));
    report.figure(format!(
        "failovers {rounds}, the standby behind by at most {behind} bytes, keys answered {answered}, twice {twice}, \
         answered otherwise later {lost}, disputed {disputed}"
    ));
    (report, twice + lost)
}

async fn a_failover_to_a_synchronous_standby_loses_nothing_and_charges_nothing_twice(system: System) {
    let name = &format!("failover, synchronous, {system}");
    let Some(pair) = Pair::start(system, name, true).await else { return };
    let losses = [Loss::Killed, Loss::KilledAhead, Loss::Hangs];
    fail_over(pair, number("ROUNDS").unwrap_or(3), &losses).await.0.assert_kept(name);
}

/// Measures the losses. They are in the figures, and no number of them fails the test.
async fn what_a_failover_to_an_asynchronous_standby_loses_is_measured(system: System) {
    for (what, loss) in
        [("failover, asynchronous", Loss::Killed), ("failover, asynchronous, one second behind", Loss::KilledAhead)]
    {
        let name = &format!("{what}, {system}");
        let Some(pair) = Pair::start(system, name, false).await else { return };
        fail_over(pair, number("ROUNDS").unwrap_or(1), &[loss]).await.0.print(name, 5);
    }
}

// A living server puts back what it remembers, so the control kills all servers.
async fn control_where_the_standby_is_behind_and_no_server_waits_for_it_outcomes_are_lost(system: System) {
    let name = &format!("failover, asynchronous, one second behind, all servers killed, {system}");
    let Some(pair) = Pair::start(system, name, false).await else { return };
    let (report, lost) = fail_over(pair, number("ROUNDS").unwrap_or(1), &[Loss::AllKilledAhead]).await;
    report.assert_seen(name, "two outcomes");
    assert!(lost > 0, "{name}: nothing was lost");
}

over_each_database! {
    a_failover_to_a_synchronous_standby_loses_nothing_and_charges_nothing_twice
    what_a_failover_to_an_asynchronous_standby_loses_is_measured
    control_where_the_standby_is_behind_and_no_server_waits_for_it_outcomes_are_lost
}
