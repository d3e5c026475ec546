//! Counts the round trips of an exchange to the server, by the server: one request alone makes each call of a script in
//! a round trip of its own, and calls nothing else.

use peers::trips::{MOST_FIRST, MOST_KNOWN, MOST_REPLAY, TOGETHER, counted, exchanges};
use testkit::bench::estimate::{Estimate, pairs};
use testkit::bench::report::Report;

use super::contenders::Contender;
use super::server::{script_calls, started};

pub(crate) async fn measure(report: &mut Report) {
    let server = started();
    let [app, other] = [Contender::Ours.app(&server.url()).await, Contender::Ours.app(&server.url()).await];
    let mut serial = 1 << 50;
    // This makes the connections.
    for app in [&app, &other] {
        exchanges(app, serial).await;
        serial += TOGETHER;
    }
    let calls = || script_calls(&server);
    let (mut first, mut replay, mut known) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..pairs() {
        first.push(counted(calls, exchanges(&app, serial)).await);
        replay.push(counted(calls, exchanges(&other, serial)).await);
        known.push(counted(calls, exchanges(&other, serial)).await);
        serial += TOGETHER;
    }
    for (what, counts, most) in [
        ("first run", first, MOST_FIRST),
        ("replay on another server", replay, MOST_REPLAY),
        ("the same again", known, MOST_KNOWN),
    ] {
        let count = Estimate::of(counts);
        report.row("round trips", what, "per request", count);
        report.at_most(&format!("trips/{what}"), count, most);
    }
}
