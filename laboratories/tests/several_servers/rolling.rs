//! A rolling deploy under load: server after server is told to end, ends, and is replaced. No request with a key fails,
//! and none has to wait for a lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinSet;

use crate::client::{Clients, SLOW, VISA, charge};
use crate::database::{Server, database, is, sql};
use crate::dice::{below, size};
use crate::fleet::{Fleet, SERVERS};
use crate::harness::history::{History, Policy, Told};
use crate::harness::process::eventually;
use crate::report::Report;

/// Far longer than duplicates wait: who had to wait for a lease would be told that the key is in flight, and fail.
const LEASE: &str = "--lease 60 --on-interrupted refuse";
const CLIENTS: usize = 24;
/// How many requests are answered between two replacements.
const BETWEEN: usize = 100;

/// How a server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Asked,
    Killed,
}

/// Charges, one after the other, each sent to two servers at once, until it is enough.
async fn load(clients: Clients, name: usize, enough: Arc<AtomicBool>, failed: Arc<AtomicUsize>) {
    let mut number = 0;
    while !enough.load(Ordering::SeqCst) {
        let key = format!("client-{name}-charge-{number}");
        number += 1;
        // Some are under way whenever a server is told to end.
        let source = if below(8) == 0 { SLOW } else { VISA };
        let call = charge(&key, source);
        let copies = (0..2).map(|_| clients.sends(&key, source, clients.balancer.send_on(&call)));
        let told = join_all(copies).await;
        let answered = told.iter().filter(|told| matches!(told, Told::Outcome { .. })).count();
        failed.fetch_add(told.len() - answered, Ordering::SeqCst);
    }
}

/// Duplicates wait for so many seconds.
async fn deploy(database: &Server, rounds: usize, end: End, patience: usize) -> Report {
    let arguments = format!("--store {} {LEASE} --on-in-flight wait:{patience}", database.url());
    let mut fleet = Fleet::start(|_| arguments.clone()).await;
    let clients = Clients::new(&fleet.balancer, &History::new(Policy::Refuse));
    let (enough, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut sending = JoinSet::new();
    for name in 0..CLIENTS {
        sending.spawn(load(clients.clone(), name, Arc::clone(&enough), Arc::clone(&failed)));
    }
    let (mut report, sql, mut replaced) = (Report::default(), sql(database).await, 0);
    // A row of a session whose process has ended is no session any more.
    let sessions = format!("SELECT count(*) = {} FROM idempotency.record WHERE kind = 6", SERVERS - 1);
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
        report.expect(is(&sql, &sessions).await, || format!("server {number} has ended, and its session has not"));
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
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_with_a_key_fails_while_server_after_server_is_replaced() {
    let name = "rolling deploy";
    let Some(database) = database(name, &[]).await else { return };
    let report = deploy(&database, size("DEPLOYS", 2), End::Asked, 20).await;
    report.assert_kept(name);
}

#[tokio::test(flavor = "multi_thread")]
async fn control_where_servers_are_killed_to_replace_them_requests_fail() {
    let name = "rolling deploy with SIGKILL";
    let Some(database) = database(name, &[]).await else { return };
    deploy(&database, 1, End::Killed, 3).await.assert_seen(name);
}
