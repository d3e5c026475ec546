//! First requests, compared with those of other contenders: their time, and the CPU time of the process and of the
//! database's server.

use axum::Router;
use testkit::bench::cpu::cpu_time;
use testkit::bench::estimate::{Pairs, pairs};
use testkit::bench::load::{Round, round};
use testkit::bench::report::Report;

use crate::load::Plan;
use crate::process::{self, Server};

/// The figures of a round.
pub struct Measured {
    pub round: Round,
    /// The CPU time for each request, in µs: of our process, and of the database's server.
    pub process: f64,
    pub server: f64,
}

/// Measures rounds in this process, so that its CPU time has the load in it. `server` returns the CPU time so far, in
/// µs, of the database's server of the app at this place.
pub async fn in_process(
    apps: &[Router],
    clients: usize,
    requests: usize,
    server: impl Fn(usize) -> f64,
) -> Vec<Vec<Measured>> {
    let mut serial = (clients as u64) << 32;
    let rounds = rounds(apps.len(), requests, server, async |place| {
        let before = cpu_time(std::process::id());
        let round = round(&apps[place], clients, requests, &mut serial).await;
        (round, cpu_time(std::process::id()) - before)
    });
    rounds.await
}

/// Measures rounds over sockets. Each contender and the load have a process of their own, so that the CPU time is the
/// service's alone.
pub async fn over_sockets(
    servers: &[Server],
    connections: usize,
    requests: usize,
    server: impl Fn(usize) -> f64,
) -> Vec<Vec<Measured>> {
    let mut first = 1_u64 << 56 | (connections as u64) << 40;
    let rounds = rounds(servers.len(), requests, server, async |place| {
        let Server { address, .. } = servers[place];
        let keys = "new".to_owned();
        let plan = Plan { address, connections, requests, keys, first, session: false, marks_replays: false };
        first += requests as u64;
        let before = servers[place].cpu_time();
        (process::load(&plan), servers[place].cpu_time() - before)
    });
    rounds.await
}

/// Measures rounds of all contenders in turns. The one that begins changes. `round` gets the place of a contender, and
/// returns the CPU time of the process, too.
async fn rounds(
    contenders: usize,
    requests: usize,
    server: impl Fn(usize) -> f64,
    mut round: impl AsyncFnMut(usize) -> (Round, f64),
) -> Vec<Vec<Measured>> {
    let mut rounds = Vec::new();
    for turn in 0..=pairs() {
        let mut all = Vec::new();
        for place in 0..contenders {
            let place = (place + turn) % contenders;
            let before = server(place);
            let (round, process) = round(place).await;
            let took = server(place) - before;
            let [process, server] = [process, took].map(|micros| micros / requests as f64);
            all.push((place, Measured { round, process, server }));
        }
        all.sort_by_key(|(place, _)| *place);
        // The first round warms up.
        if turn > 0 {
            rounds.push(all.into_iter().map(|(_, measured)| measured).collect());
        }
    }
    rounds
}

/// A figure: its name, its unit, and what it is of a round.
type Figure = (&'static str, &'static str, fn(&Measured) -> f64);

/// Returns what was measured of the first contender, which is ours, and of the one at `place`.
pub fn of(rounds: &[Vec<Measured>], place: usize, what: fn(&Measured) -> f64) -> Pairs {
    Pairs {
        ours: rounds.iter().map(|round| what(&round[0])).collect(),
        theirs: rounds.iter().map(|round| what(&round[place])).collect(),
    }
}

/// Reports the figures of contenders with these names, of which the first one is ours.
pub fn tell(report: &mut Report, group: &str, names: &[&str], rounds: &[Vec<Measured>]) {
    let figures: [Figure; 5] = [
        ("throughput", "requests/s", |of| of.round.throughput),
        ("p50", "µs", |of| of.round.p50),
        ("p99", "µs", |of| of.round.p99),
        ("CPU, process", "µs", |of| of.process),
        ("CPU, server", "µs", |of| of.server),
    ];
    for (place, name) in names.iter().enumerate() {
        for (figure, unit, what) in figures {
            report.row(group, &format!("{figure}, {name}"), unit, of(rounds, place, what).theirs());
        }
        for (figure, _, what) in figures.into_iter().filter(|(figure, ..)| *figure != "p99") {
            if place > 0 {
                report.row(group, &format!("{figure}, ours over {name}"), "×", of(rounds, place, what).ratio());
            }
        }
    }
}
