//! A rolling deploy under load: server after server shuts down and is replaced. No request with a key fails,
//! and none has to wait for a lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use testkit::Call;
use testkit::dice::{below, number};
use testkit::history::{ClientAnswer, History, Policy};
use testkit::process::eventually;
use tokio::task::JoinSet;

use crate::client::{Clients, SLOW, VISA};
use crate::database::{Database, System, over_each_database};
use crate::fleet::{Fleet, SERVERS};
use crate::report::{Report, in_time};

/// A lease far longer than duplicates wait: a request that had to wait for a lease would get `in-flight`, and fail.
const LEASE: &str = "--lease 60 --on-interrupted refuse";
const CLIENTS: usize = 24;
/// The number of requests that are answered between two replacements.
const BETWEEN: usize = 100;
/// The milliseconds from which on a stall of the machine is long: two thirds of the time that a call of the database
/// may take.
const STILL: u64 = 1_000;

/// The way in which a server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Asked,
    Killed,
}

/// Sends charges, one after the other, each to two servers at once, until it is enough.
async fn load(clients: Clients, name: usize, enough: Arc<AtomicBool>, failed: Arc<AtomicUsize>) {
    let mut number = 0;
    while !enough.load(Ordering::SeqCst) {
        let key = format!("client-{name}-charge-{number}");
        number += 1;
        // Some charges are under way whenever a server shuts down.
        let source = if below(8) == 0 { SLOW } else { VISA };
        let call = Call::charge_of(&key, source);
        let copies = (0..2).map(|_| clients.sends(&key, source, clients.balancer.send_on(&call)));
        let told = join_all(copies).await;
        let answered = told.iter().filter(|told| matches!(told, ClientAnswer::Outcome { .. })).count();
        failed.fetch_add(told.len() - answered, Ordering::SeqCst);
    }
}

/// Measures the longest stall of the machine, in milliseconds.
fn watch() -> (JoinSet<()>, Arc<AtomicU64>) {
    let (mut task, longest) = (JoinSet::new(), Arc::new(AtomicU64::new(0)));
    let seen = Arc::clone(&longest);
    task.spawn(async move {
        loop {
            let began = Instant::now();
            tokio::time::sleep(Duration::from_millis(50)).await;
            let took = began.elapsed().as_millis().try_into().expect("it is short");
            seen.fetch_max(took, Ordering::SeqCst);
        }
    });
    (task, longest)
}

/// Replaces the servers under load. Duplicates wait for `timeout` seconds.
///
/// Returns `None` if something failed and the machine stalled for so long that the servers give up calls to the
/// database which take a moment. Such a request gets `store-unavailable`, and has no effect.
async fn deploy(database: &Database, namespace: &str, rounds: usize, end: End, timeout: usize) -> Option<Report> {
    let store = database.url();
    let arguments = format!("--store {store} --namespace {namespace} {LEASE} --on-in-flight wait:{timeout}");
    let (_watching, longest) = watch();
    let mut fleet = Fleet::start(|_| arguments.clone()).await;
    let clients = Clients::new(&fleet.balancer, &History::new(Policy::Refuse));
    let (enough, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut sending = JoinSet::new();
    for name in 0..CLIENTS {
        sending.spawn(load(clients.clone(), name, Arc::clone(&enough), Arc::clone(&failed)));
    }
    let (mut report, look, mut replaced) = (Report::default(), database.look().await, 0);
    for number in (0..SERVERS).cycle().take(rounds * SERVERS) {
        let until = clients.balancer.requests() + BETWEEN;
        eventually("requests", || (clients.balancer.requests() >= until).then_some(())).await;
        match end {
            End::Asked => fleet.stop(number).await,
            End::Killed => {
                fleet.kill(number);
                clients.history.crashed();
            }
        }
        let sessions = look.sessions(namespace).await;
        report.expect(sessions == SERVERS - 1, || format!("server {number} has ended, and its session has not"));
        fleet.start_again(number).await;
        replaced += 1;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    enough.store(true, Ordering::SeqCst);
    sending.join_all().await;
    let failed = failed.load(Ordering::SeqCst);
    report.expect(failed == 0, || format!("{failed} requests with a key failed"));
    let left = fleet.logged("not all was recorded in time");
    report.expect(left == 0, || format!("{left} servers ended before all was recorded"));
    for number in 0..SERVERS {
        let interrupted = fleet.server(number).interrupted().await.len();
        report.expect(interrupted == 0, || format!("{interrupted} operations were interrupted"));
    }
    fleet.count_effects(&clients.history).await;
    report.judge_settled(&clients);
    report.figure(format!(
        "replaced {replaced}, requests that a server gave back {}, failed {failed}",
        clients.balancer.passed_on()
    ));
    let stood_still = longest.load(Ordering::SeqCst) > STILL;
    if end == End::Asked && report.is_wrong() && stood_still { None } else { Some(report) }
}

async fn no_request_with_a_key_fails_while_server_after_server_is_replaced(system: System) {
    let name = &format!("rolling deploy, {system}");
    let Some(database) = Database::start(system, name).await else { return };
    let rounds = number("DEPLOYS").unwrap_or(2);
    let play = async |number| deploy(&database, &format!("rolling-{number}"), rounds, End::Asked, 20).await;
    in_time(play).await.assert_kept(name);
}

async fn control_where_servers_are_killed_to_replace_them_requests_fail(system: System) {
    let name = &format!("rolling deploy with SIGKILL, {system}");
    let Some(database) = Database::start(system, name).await else { return };
    let report = deploy(&database, "rolling", 1, End::Killed, 3).await.expect("servers were killed");
    report.assert_seen(name, "requests with a key failed");
}

over_each_database! {
    no_request_with_a_key_fails_while_server_after_server_is_replaced
    control_where_servers_are_killed_to_replace_them_requests_fail
}
