//! A server that is stopped past its lease, with charges under way. Others take some of its operations over, or an
//! operator settles them. When it wakes, its outcomes of those are refused and kept as disputed; its other outcomes are
//! accepted.

use std::collections::BTreeSet;

use testkit::history::{History, Policy, Told};

use crate::client::{Clients, SLOW};
use crate::database::{Fault, Server, alive, broken_database, database, lapse, rows, sql};
use crate::fleet::{Fleet, SERVERS};
use crate::operator::{forget, listed, settle};
use crate::report::{Report, in_time};

const LEASE: &str = "--lease 12 --on-in-flight reject";

async fn sees(report: &mut Report, clients: &Clients, number: usize, key: &str, is_answered: bool) {
    let told = clients.until_settled_at(number, key, SLOW).await;
    let is_right =
        if is_answered { matches!(told, Told::Outcome { .. }) } else { told == Told::refused("outcome-unknown") };
    report.expect(is_right, || format!("{key} at server {number}: {told:?}"));
}

/// Server 0 refuses what was interrupted, and so its handlers go on; server 1 runs it again; server 2 refuses.
///
/// `None` if a charge was over before its server stood still.
async fn refused_and_accepted(database: &Server, namespace: &str) -> Option<Report> {
    let arguments = format!("--store {} --namespace {namespace} {LEASE} --on-interrupted refuse", database.url());
    let mut fleet = Fleet::start(|_| arguments.clone()).await;
    let sql = sql(database).await;
    let mut report = Report::default();
    // Where an operator frees the key, and a retry runs it again, there are two effects.
    let twice = Clients::new(&fleet.balancer, &History::new(Policy::Rerun));
    let once = Clients::new(&fleet.balancer, &History::new(Policy::Refuse));
    let taken = twice.begin(&fleet, 0, "taken", 1).await;
    let forgotten = twice.begin(&fleet, 0, "forgotten", 2).await;
    let answered = once.begin(&fleet, 0, "answered", 3).await;
    let left = once.begin(&fleet, 0, "left", 4).await;
    fleet.pause(0).await;
    if alive(&sql, namespace).await < 4 {
        return None;
    }
    lapse(&sql, namespace).await;

    fleet.interrupted(2, 4).await;
    let found = listed(fleet.server(2)).await;
    let [first, second, third, _] = found.as_slice() else {
        report.wrong(format!("listed are {found:?}"));
        fleet.resume(0);
        return Some(report);
    };
    forget(fleet.server(2), first, &mut report).await;
    sees(&mut report, &twice, 1, "taken", true).await;
    forget(fleet.server(2), second, &mut report).await;
    sees(&mut report, &twice, 2, "forgotten", true).await;
    settle(fleet.server(2), third, r#"{"id":"by hand"}"#, &mut report).await;
    sees(&mut report, &once, 2, "answered", true).await;
    sees(&mut report, &once, 2, "left", false).await;
    let before = rows(&sql, namespace).await;

    fleet.resume(0);
    for (key, late) in [("taken", taken), ("forgotten", forgotten), ("answered", answered)] {
        let told = late.await.expect("no client panics");
        report.expect(told == Told::refused("outcome-unknown"), || format!("{key}: its late run is told {told:?}"));
    }
    let told = left.await.expect("no client panics");
    report.expect(matches!(told, Told::Outcome { .. }), || format!("left: its late run is told {told:?}"));
    for number in 0..SERVERS {
        for (key, clients) in [("taken", &twice), ("forgotten", &twice), ("answered", &once), ("left", &once)] {
            sees(&mut report, clients, number, key, true).await;
        }
        // It serves on.
        sees(&mut report, &once, number, &format!("new-{number}"), true).await;
    }
    // Nothing was overwritten: of the earlier rows, only that of the run that was not taken over has changed.
    let after: BTreeSet<String> = rows(&sql, namespace).await.into_iter().collect();
    let changed = before.iter().filter(|row| !after.contains(*row)).count();
    report.expect(changed == 1, || format!("{changed} rows were changed by what came late"));
    // Counted, and listed, on every server.
    let logged = fleet.soon_logged("its outcome is disputed", 3).await;
    report.expect(logged == 3, || format!("{logged} disputed outcomes are logged"));
    let expected: BTreeSet<&str> = [first, second, third].map(|listed| listed.id.as_str()).into();
    for number in 0..SERVERS {
        let disputed = fleet.disputed(number).await;
        let found: BTreeSet<&str> = disputed.iter().map(|(id, _)| id.as_str()).collect();
        report.expect(found == expected && disputed.len() == 3, || format!("server {number} lists {disputed:?}"));
    }
    let effects = fleet.effects().await;
    for (key, expected) in [("taken", 2), ("forgotten", 2), ("answered", 1), ("left", 1)] {
        let found = effects.get(key).copied().unwrap_or_default();
        report.expect(found == expected, || format!("{key}: {found} effects"));
        let history = if expected == 2 { &twice.history } else { &once.history };
        (0..found).for_each(|_| history.effect(key));
    }
    for number in 0..SERVERS {
        once.history.effect(&format!("new-{number}"));
    }
    report.judge_settled(&twice);
    report.judge_settled(&once);
    report.figure(format!("disputed {logged}, late and accepted 1"));
    Some(report)
}

/// All servers run it again. The one that wakes drops its handler, or says too late how that ended.
///
/// `None` if a charge was over before its server stood still.
async fn run_again(database: &Server, namespace: &str) -> Option<Report> {
    let arguments = format!("--store {} --namespace {namespace} {LEASE} --on-interrupted rerun", database.url());
    let mut fleet = Fleet::start(|_| arguments.clone()).await;
    let sql = sql(database).await;
    let (mut report, clients) = (Report::default(), Clients::new(&fleet.balancer, &History::new(Policy::Rerun)));
    let taken = clients.begin(&fleet, 0, "taken", 1).await;
    let left = clients.begin(&fleet, 0, "left", 2).await;
    fleet.pause(0).await;
    if alive(&sql, namespace).await < 2 {
        return None;
    }
    lapse(&sql, namespace).await;
    sees(&mut report, &clients, 1, "taken", true).await;
    let before = rows(&sql, namespace).await;
    fleet.resume(0);
    let told = taken.await.expect("no client panics");
    report.expect(told == Told::refused("outcome-unknown"), || format!("taken: its late run is told {told:?}"));
    // Whatever its answer, the next request settles it.
    left.await.expect("no client panics");
    for number in 0..SERVERS {
        for key in ["left", "taken"] {
            sees(&mut report, &clients, number, key, true).await;
        }
    }
    let after: BTreeSet<String> = rows(&sql, namespace).await.into_iter().collect();
    let changed = before.iter().filter(|row| !after.contains(*row)).count();
    report.expect(changed == 1, || format!("{changed} rows were changed by what came late"));
    fleet.count_effects(&clients.history).await;
    report.judge_settled(&clients);
    Some(report)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_says_late_is_kept_as_disputed_if_somebody_took_over_and_accepted_if_nobody_did() {
    let name = "stopped past its lease";
    let Some(database) = database(name, &[]).await else { return };
    let (mut report, again) = tokio::join!(
        in_time(async |number| refused_and_accepted(&database, &format!("late-{number}")).await),
        in_time(async |number| run_again(&database, &format!("again-{number}")).await),
    );
    report.add(again);
    report.assert_kept(name);
}

#[tokio::test(flavor = "multi_thread")]
async fn control_where_the_database_compares_nothing_what_comes_late_overwrites() {
    let name = "stopped past its lease, in a database that compares nothing";
    let Some(database) = broken_database(name, &[], Fault::NoCompare).await else { return };
    let report = in_time(async |number| refused_and_accepted(&database, &format!("late-{number}")).await).await;
    report.assert_seen(name, "rows were changed");
}
