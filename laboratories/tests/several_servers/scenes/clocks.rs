//! A clock that is hours or days wrong, under load: the database's, or a server's. A server that starts meanwhile
//! remembers nothing, and no other clock is wrong.

use futures_util::future::join_all;
use testkit::dice::number;
use testkit::history::{History, Policy};

use super::outages::judge;
use crate::client::Clients;
use crate::database::{Database, Fault, System, over_each_database};
use crate::fleet::{Fleet, SERVERS};
use crate::load::{Load, ask_for};
use crate::report::Report;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// The seconds by which a clock is ahead, in each round. A key is kept for a day, and no run can begin with clocks that
/// are more than a week apart.
const AHEAD: [i64; 6] = [25 * HOUR, -25 * HOUR, 15 * MINUTE, -10 * MINUTE, 6 * DAY, -6 * DAY];
/// The number of keys that are settled while a clock is wrong.
const MEANWHILE: usize = 25;
/// The number of keys that are settled before the clock is wrong. The test asks for them while it is wrong, and later.
const BEFORE: usize = 12;

/// The owner of the clock that is set.
#[derive(Debug, Clone, Copy)]
enum Of {
    Database,
    Server(usize),
}

fn set(database: &Database, fleet: &Fleet, of: Of, ahead: i64) {
    match of {
        Of::Database => database.set_clock(ahead),
        Of::Server(number) => fleet.set_clock(number, ahead),
    }
}

async fn run(database: &Database, rounds: usize) -> Report {
    let arguments = format!("--store {} --lease 12 --on-interrupted refuse", database.url());
    let mut fleet = Fleet::with_clocks(|_| arguments.clone()).await;
    let clients = Clients::new(&fleet.balancer, &History::new(Policy::Refuse));
    let load = Load::start(&clients);
    for round in 0..rounds {
        let (ahead, number) = (AHEAD[round / 2 % AHEAD.len()], round % SERVERS);
        let of = if round % 2 == 0 { Of::Database } else { Of::Server(number) };
        let keys: Vec<String> = (0..BEFORE).map(|key| format!("round-{round}-{key}")).collect();
        join_all(keys.iter().map(|key| clients.until_settled(key))).await;
        set(database, &fleet, of, ahead);
        fleet.stop(number).await;
        fleet.start_again(number).await;
        ask_for(&clients, &keys).await;
        load.more(MEANWHILE).await;
        set(database, &fleet, of, 0);
        ask_for(&clients, &keys).await;
    }
    load.end().await;
    let mut report = Report::default();
    judge(&mut fleet, &clients, &mut report).await;
    report.figure(format!("rounds {rounds}"));
    report
}

async fn whichever_clock_is_days_wrong_each_key_is_charged_once_and_answered_the_same(system: System) {
    let name = &format!("a clock that is wrong, {system}");
    let Some(database) = Database::with_a_clock(system, name, None).await else { return };
    run(&database, number("CLOCKS").unwrap_or(2 * AHEAD.len())).await.assert_kept(name);
}

async fn control_where_the_database_s_clock_decides_alone_keys_are_charged_twice(system: System) {
    let name = &format!("a clock that is wrong, in a database that looks at no other, {system}");
    let Some(database) = Database::with_a_clock(system, name, Some(Fault::OneClock)).await else { return };
    run(&database, 1).await.assert_seen(name, "effects under");
}

over_each_database! {
    whichever_clock_is_days_wrong_each_key_is_charged_once_and_answered_the_same
    control_where_the_database_s_clock_decides_alone_keys_are_charged_twice
}
