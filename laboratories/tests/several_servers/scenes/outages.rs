//! A database that is killed and started again, or stalls, under load: there is no second effect, servers answer 503
//! meanwhile, and no server has to be started again.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use testkit::dice::number;
use testkit::history::{ClientAnswer, History, Policy};

use crate::client::{Clients, VISA};
use crate::database::{Database, Fault, System, over_each_database};
use crate::fleet::{Fleet, SERVERS};
use crate::load::{Load, ask_for};
use crate::report::Report;

/// The number of keys that are settled before the database is taken away.
const BETWEEN: usize = 40;
/// The most additional memory that a server may have after an outage, in MiB.
const MEMORY: usize = 200;

/// Checks that every server refuses a new key while the database is away.
pub(crate) async fn probe(clients: &Clients, name: &str, report: &mut Report) {
    let keys: Vec<String> = (0..SERVERS).map(|number| format!("{name}-server-{number}")).collect();
    let told = join_all(keys.iter().enumerate().map(|(number, key)| clients.send_to(number, key, VISA))).await;
    for (number, told) in told.into_iter().enumerate() {
        let is_refused = ["store-unavailable", "overloaded"].map(ClientAnswer::refused).contains(&told);
        report.expect(is_refused, || format!("{name}: server {number} says {told:?} without its database"));
    }
}

/// Checks that every server accepts the refused keys once the database is back.
pub(crate) async fn recover(clients: &Clients, name: &str) {
    let keys: Vec<String> = (0..SERVERS).map(|number| format!("{name}-server-{number}")).collect();
    join_all(keys.iter().enumerate().map(|(number, key)| clients.until_settled_at(number, key, VISA))).await;
}

/// Judges a run in which no server died: no operation is ever interrupted.
pub(crate) async fn judge(fleet: &mut Fleet, clients: &Clients, report: &mut Report) {
    let interrupted = clients.refused("outcome-unknown");
    report.expect(interrupted == 0, || format!("{interrupted} times a run was taken for dead, and no server died"));
    fleet.count_effects(&clients.history).await;
    report.judge_settled(clients);
    report.figure(format!("answers without a record at first {}", fleet.logged("answered without a record")));
}

/// Kills the database under load, or makes it stall, and brings it back.
async fn gone(database: &mut Database, rounds: usize, how: How) -> Report {
    let arguments = format!("--store {} --lease 12 --on-interrupted {}", database.url(), how.policy());
    let mut fleet = Fleet::start(|_| arguments.clone()).await;
    // No policy allows a second effect, because no server dies.
    let clients = Clients::new(&fleet.balancer, &History::new(Policy::Refuse));
    let clients = if how == How::KilledWithServers { clients.impatient() } else { clients };
    let load = Load::start(&clients);
    let (mut report, before) = (Report::default(), fleet.memory());
    for round in 0..rounds {
        load.more(BETWEEN).await;
        let name = format!("probe-{round}");
        match how {
            How::Killed => {
                database.kill();
                probe(&clients, &name, &mut report).await;
                database.start_again();
            }
            How::KilledWithServers => {
                database.kill();
                (0..SERVERS).for_each(|number| fleet.kill(number));
                database.start_again();
                fleet.start_all().await;
            }
            How::Paused(time) => {
                database.pause();
                let began = Instant::now();
                probe(&clients, &name, &mut report).await;
                tokio::time::sleep(time.saturating_sub(began.elapsed())).await;
                database.resume();
            }
        }
        recover(&clients, &name).await;
    }
    let keys = load.end().await;
    if how == How::KilledWithServers {
        // A server that died may have left unknown ends: only the charges count.
        ask_for(&clients, &keys).await;
        let twice = fleet.effects().await.into_values().filter(|effects| *effects > 1).count();
        report.expect(twice == 0, || format!("{twice} keys were charged twice"));
        report.figure(format!("rounds {rounds}, keys {}", keys.len()));
        return report;
    }
    memory_is_bounded(&fleet, before, &mut report);
    judge(&mut fleet, &clients, &mut report).await;
    report.figure(format!("rounds {rounds}"));
    report
}

/// Checks that the writes that a server has put off do not fill its memory.
pub(crate) fn memory_is_bounded(fleet: &Fleet, before: [usize; SERVERS], report: &mut Report) {
    let after = fleet.memory();
    report.figure(format!("memory in MiB, at most {before:?} before and {after:?} after"));
    for (before, after) in before.into_iter().zip(after) {
        report.expect(after < before + MEMORY, || format!("a server had {before} MiB, and then {after}"));
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Killed,
    /// All servers are killed too, so that no process remembers the records that the database has lost.
    KilledWithServers,
    Paused(Duration),
}

impl How {
    fn policy(self) -> &'static str {
        match self {
            Self::Killed | Self::KilledWithServers => "refuse",
            Self::Paused(_) => "rerun",
        }
    }
}

async fn a_database_that_is_killed_and_started_again_makes_no_second_effect_and_no_server_has_to_be_started_again(
    system: System,
) {
    let name = &format!("database killed, {system}");
    let Some(mut database) = Database::start(system, name).await else { return };
    gone(&mut database, number("OUTAGES").unwrap_or(4), How::Killed).await.assert_kept(name);
}

async fn a_database_that_stands_still_for_ten_seconds_makes_no_second_effect(system: System) {
    let name = &format!("database paused, {system}");
    let Some(mut database) = Database::start(system, name).await else { return };
    let how = How::Paused(Duration::from_secs(10));
    gone(&mut database, number("OUTAGES").unwrap_or(2_usize).div_ceil(2), how).await.assert_kept(name);
}

// A living server puts back what it remembers, so the control kills all servers.
async fn control_where_writes_are_answered_before_they_are_durable_outcomes_are_lost(system: System) {
    let name = &format!("database killed, which answers before it is durable, {system}");
    let Some(mut database) = Database::broken(system, name, Fault::AnsweredEarly).await else { return };
    let (mut report, twice) = (Report::default(), "were charged twice");
    // A kill may come when the database has just written all that it has answered.
    for _ in 0..4 {
        report.add(gone(&mut database, 2, How::KilledWithServers).await);
        if report.has_seen(twice) {
            break;
        }
    }
    report.assert_seen(name, twice);
}

over_each_database! {
    a_database_that_is_killed_and_started_again_makes_no_second_effect_and_no_server_has_to_be_started_again
    a_database_that_stands_still_for_ten_seconds_makes_no_second_effect
    control_where_writes_are_answered_before_they_are_durable_outcomes_are_lost
}
