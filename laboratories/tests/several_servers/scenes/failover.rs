//! A primary that is lost under load, and its standby, which is promoted. If each commit waits for the standby, no
//! outcome that was answered is lost, and no key is charged twice. If no commit waits, the losses are measured.

use std::collections::BTreeSet;
use std::time::Duration;

use testkit::dice::number;
use testkit::history::{History, Policy};

use super::outages::recover;
use crate::client::Clients;
use crate::database::{PostgresServer, database, sql, until};
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
    primary: PostgresServer,
    standby: PostgresServer,
    /// The link over which the standby streams.
    wire: Wire,
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
    async fn start(promise: &str, is_synchronous: bool) -> Option<Self> {
        let primary = database(promise, &[]).await?;
        let wire = Wire::to(primary.address()).await;
        let standby = PostgresServer::standby_of(wire.address()).expect("the programs are there");
        let pair = Self { primary, standby, wire, is_synchronous };
        pair.join().await;
        Some(pair)
    }

    fn url(&self) -> String {
        format!("postgres://postgres@{},{}/postgres", self.primary.address(), self.standby.address())
    }

    /// Waits until the standby streams. From then on commits wait for it.
    async fn join(&self) {
        let sql = sql(&self.primary).await;
        until(&sql, "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE state = 'streaming')").await;
        if !self.is_synchronous {
            return;
        }
        sql.batch_execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await.expect("it has the right");
        sql.batch_execute("SELECT pg_reload_conf()").await.expect("it has the right");
        // The setting gets to one process after the other. Once the first commit waits, all do.
        self.standby.pause();
        let prober = crate::database::sql(&self.primary).await;
        let probing = tokio::spawn(async move {
            prober.batch_execute("SET synchronous_commit = on").await.expect("sound SQL");
            while prober.batch_execute("UPDATE idempotency.version SET since = since").await.is_ok() {}
        });
        until(&sql, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')").await;
        self.standby.resume();
        probing.abort();
        until(&sql, "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')").await;
    }

    /// Loses the primary, and promotes its standby. Returns how many bytes of the log the standby lacked, as far as the
    /// primary knew.
    async fn fail_over(&mut self, loss: Loss) -> i64 {
        let sql = sql(&self.primary).await;
        if matches!(loss, Loss::KilledAhead | Loss::AllKilledAhead) {
            self.wire.stall();
            tokio::time::sleep(AHEAD).await;
        }
        let lag = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), flush_lsn)::bigint FROM pg_stat_replication";
        let behind = sql.query_one(lag, &[]).await.expect("there is one standby").get(0);
        match loss {
            Loss::Killed | Loss::KilledAhead | Loss::AllKilledAhead => self.primary.kill(),
            Loss::Hangs => self.primary.pause(),
        }
        self.wire.close();
        self.standby.promote();
        std::mem::swap(&mut self.primary, &mut self.standby);
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
        recover(&clients, &format!("round-{round}")).await;
        pair.rejoin(loss).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_to_a_synchronous_standby_loses_nothing_and_charges_nothing_twice() {
    let name = "failover, synchronous";
    let Some(pair) = Pair::start(name, true).await else { return };
    let losses = [Loss::Killed, Loss::KilledAhead, Loss::Hangs];
    fail_over(pair, number("ROUNDS").unwrap_or(3), &losses).await.0.assert_kept(name);
}

/// Measures the losses. They are in the figures, and no number of them fails the test.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_failover_to_an_asynchronous_standby_loses_is_measured() {
    for (name, loss) in
        [("failover, asynchronous", Loss::Killed), ("failover, asynchronous, one second behind", Loss::KilledAhead)]
    {
        let Some(pair) = Pair::start(name, false).await else { return };
        fail_over(pair, number("ROUNDS").unwrap_or(1), &[loss]).await.0.print(name, 5);
    }
}

// A living server puts back what it remembers, so the control kills all servers.
#[tokio::test(flavor = "multi_thread")]
async fn control_where_the_standby_is_behind_and_nobody_waits_for_it_outcomes_are_lost() {
    let name = "failover, asynchronous, one second behind, all servers killed";
    let Some(pair) = Pair::start(name, false).await else { return };
    let (report, lost) = fail_over(pair, number("ROUNDS").unwrap_or(1), &[Loss::AllKilledAhead]).await;
    report.assert_seen(name, "two outcomes");
    assert!(lost > 0, "{name}: nothing was lost");
}
