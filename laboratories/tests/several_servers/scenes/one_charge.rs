//! Each key is charged once, and all its copies get the same answer, whichever server they reach, and whichever is
//! killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use testkit::dice::{below, number};
use testkit::history::{History, Policy};
use tokio::time::MissedTickBehavior;

use crate::client::Clients;
use crate::database::{Database, Fault, System, over_each_database};
use crate::fleet::{Fleet, SERVERS};
use crate::report::Report;

/// The time for which the runs of a killed server count as alive. Another server finds this out once it has lived for
/// as long itself. With kills all the time, few servers do.
const LEASE: &str = "--lease 6";
/// The number of keys under way at once. The keys of a killed server wait for the end of its lease.
const AT_ONCE: usize = 400;
/// The time between two kills.
const KILL_EVERY: Duration = Duration::from_secs(1);
/// The number of kills after which the servers are left alone for as long as they need to find out which sessions are
/// over. Few servers live for that long otherwise, and on a busy machine a key would wait for one of them beyond its
/// time.
const KILLS_IN_A_ROW: usize = 30;
const LEFT_ALONE: Duration = Duration::from_secs(15);

fn charges() -> usize {
    number("CHARGES").unwrap_or(500)
}

async fn run(charges: usize, arguments: &str, history: History, kills: bool) -> Report {
    let mut fleet = Fleet::start(|_| arguments.to_owned()).await;
    let clients = Clients::new(&fleet.balancer, &history);
    let is_over = Arc::new(AtomicBool::new(false));
    let (watched, senders) = (Arc::clone(&is_over), clients.clone());
    let sent = tokio::spawn(async move {
        let sending = (0..charges).map(|number| {
            let clients = senders.clone();
            async move { clients.one_to_five(&format!("charge-{number}")).await }
        });
        futures_util::stream::iter(sending).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
        watched.store(true, Ordering::SeqCst);
    });
    let mut killed = 0;
    if kills {
        let mut tick = tokio::time::interval(KILL_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick.tick().await;
        while !is_over.load(Ordering::SeqCst) {
            tick.tick().await;
            let number = below(SERVERS);
            fleet.kill(number);
            history.crashed();
            killed += 1;
            fleet.start_again(number).await;
            if killed % KILLS_IN_A_ROW == 0 {
                tokio::time::sleep(LEFT_ALONE).await;
            }
        }
    }
    sent.await.expect("no client panics");
    let mut report = Report::default();
    fleet.count_effects(&history).await;
    report.judge(&clients);
    report.figure(format!("kills {killed}"));
    report.expect(killed > 0 || !kills, || "all was over before the first kill".to_owned());
    let unsettled = history.unsettled();
    if kills {
        let refused = unsettled.len();
        report.figure(format!("interrupted {refused}"));
        if report.is_wrong() {
            // After a loss of records, the lists may never have all operations.
            return report;
        }
        // Every server lists the interrupted operations.
        for number in 0..SERVERS {
            let listed = fleet.interrupted(number, refused).await;
            report.expect(listed == refused, || format!("{refused} keys are refused, and {listed} are listed"));
        }
    } else {
        unsettled.iter().for_each(|key| report.wrong(format!("{key}: no outcome")));
    }
    report
}

async fn each_key_is_charged_once_whichever_servers_its_copies_reach(system: System) {
    let name = &format!("one charge per key, {system}");
    let Some(database) = Database::start(system, name).await else { return };
    let arguments = format!("--store {} {LEASE}", database.url());
    run(charges(), &arguments, History::new(Policy::Refuse), false).await.assert_kept(name);
}

async fn each_key_is_charged_at_most_once_while_a_server_is_killed_every_second(system: System) {
    let name = &format!("one charge per key, with kills, {system}");
    let Some(database) = Database::start(system, name).await else { return };
    let arguments = format!("--store {} {LEASE} --on-interrupted refuse", database.url());
    run(charges(), &arguments, History::new(Policy::Refuse), true).await.assert_kept(name);
}

async fn under_rerun_each_key_is_charged_and_answered_the_same_while_a_server_is_killed_every_second(system: System) {
    let name = &format!("one answer per key under rerun, with kills, {system}");
    let Some(database) = Database::start(system, name).await else { return };
    let arguments = format!("--store {} {LEASE} --on-interrupted rerun", database.url());
    let history = History::new(Policy::Rerun);
    let mut report = run(charges().div_ceil(2), &arguments, history.clone(), true).await;
    history.unsettled().iter().for_each(|key| report.wrong(format!("{key}: no outcome")));
    report.assert_kept(name);
}

async fn control_where_the_database_compares_nothing_keys_are_charged_twice(system: System) {
    let name = &format!("one charge per key, in a database that compares nothing, {system}");
    let Some(database) = Database::broken(system, name, Fault::NoCompare).await else { return };
    let arguments = format!("--store {} {LEASE}", database.url());
    run(100, &arguments, History::new(Policy::Refuse), false).await.assert_seen(name, "effects under");
}

#[tokio::test(flavor = "multi_thread")]
async fn control_where_each_server_has_records_of_its_own_keys_are_charged_twice() {
    let name = "one charge per key, with a store of each server's own";
    // Like the runs that share a database, this one is not shown if the database cannot be started here.
    if Database::start(System::Postgres, name).await.is_none() {
        return;
    }
    run(300, "--store sled", History::new(Policy::Refuse), true).await.assert_seen(name, "effects under");
}

over_each_database! {
    each_key_is_charged_once_whichever_servers_its_copies_reach
    each_key_is_charged_at_most_once_while_a_server_is_killed_every_second
    under_rerun_each_key_is_charged_and_answered_the_same_while_a_server_is_killed_every_second
    control_where_the_database_compares_nothing_keys_are_charged_twice
}
