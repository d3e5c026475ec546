//! Counts the round trips of an exchange to the database.

use std::net::SocketAddr;
use std::time::Duration;

use peers::stores::postgres;
use peers::trips::{MOST_FIRST, MOST_KNOWN, MOST_REPLAY, TOGETHER, counted, exchanges};
use peers::waiting::Charge;
use testkit::bench::estimate::{Estimate, pairs};
use testkit::bench::report::Report;
use tokio::time::sleep;

use super::contenders::Contender;
use super::proxy::Proxy;

const MOST_DUPLICATE: f64 = 1.0;
const MOST_TOLD: f64 = 1.0;

/// A time within which a duplicate has asked for the owner of the run, and has not begun to look for the run's end.
const MOMENT: Duration = Duration::from_millis(15);

pub(crate) async fn measure(report: &mut Report, server: SocketAddr) {
    for contender in [Contender::Ours, Contender::ByHand, Contender::Sqlx, Contender::Cratestack] {
        let [here, there] = [Proxy::to(server).await, Proxy::to(server).await];
        let [app, other] = [contender.app(&here.url()).await, contender.app(&there.url()).await];
        let mut serial = 1 << 50 | (contender as u64) << 40;
        // This prepares the statements and makes the connections.
        for app in [&app, &other] {
            exchanges(app, serial).await;
            serial += TOGETHER;
        }
        let (mut first, mut replay, mut known, mut aside) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..pairs() {
            let before = here.aside();
            first.push(counted(|| here.trips(), exchanges(&app, serial)).await);
            aside.push((here.aside() - before) as f64 / TOGETHER as f64);
            if contender != Contender::ByHand {
                replay.push(counted(|| there.trips(), exchanges(&other, serial)).await);
                known.push(counted(|| there.trips(), exchanges(&other, serial)).await);
            }
            serial += TOGETHER;
        }
        let mut tell = |what: &str, counts: Vec<f64>, most: Option<f64>| {
            let count = Estimate::of(counts);
            report.row("round trips", &format!("{what}, {}", contender.name()), "per request", count);
            if let Some(most) = most.filter(|_| contender == Contender::Ours) {
                report.at_most(&format!("trips/{what}"), count, most);
            }
        };
        tell("first run", first, Some(MOST_FIRST));
        tell("first run, no duplicate waits", aside, None);
        if contender != Contender::ByHand {
            tell("replay on another server", replay, Some(MOST_REPLAY));
            tell("the same again", known, Some(MOST_KNOWN));
        }
        if contender == Contender::Ours {
            duplicates(report, [&here, &there], &mut serial).await;
        }
    }
}

/// Counts the queries of a duplicate of a run elsewhere: those when it comes, and those when the run has ended.
async fn duplicates(report: &mut Report, [here, there]: [&Proxy; 2], serial: &mut u64) {
    let stores = [postgres(&here.url()).await, postgres(&there.url()).await];
    let (mut asked, mut told) = (Vec::new(), Vec::new());
    for turn in 0..=pairs() {
        *serial += 1;
        let charge = Charge::begin(&stores[0], *serial).await;
        let before = there.trips();
        let duplicate = charge.duplicate(&stores[1]);
        sleep(MOMENT).await;
        let waits = there.trips();
        charge.end().await;
        duplicate.await.expect("it is answered");
        // The first one makes a connection.
        if turn > 0 {
            asked.push((waits - before) as f64);
            told.push((there.trips() - waits) as f64);
        }
    }
    let (asked, told) = (Estimate::of(asked), Estimate::of(told));
    report.row("round trips", "duplicate of a run elsewhere, until it waits", "per request", asked);
    report.row("round trips", "duplicate of a run elsewhere, when it ended", "per request", told);
    report.at_most("trips/duplicate of a run elsewhere", asked, MOST_DUPLICATE);
    report.at_most("trips/the same, when it is notified", told, MOST_TOLD);
}
