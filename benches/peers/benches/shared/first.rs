//! First requests, compared with other crates and hand-written code: their time, and the CPU time of the process, with
//! the load in it, and of the server.

use testkit::bench::cpu::{cpu_time, cpu_time_with_children};
use testkit::bench::estimate::{Pairs, pairs};
use testkit::bench::load::{Round, round};
use testkit::bench::report::Report;
use testkit::postgres::PostgresServer;

use super::contenders::Contender;

/// The numbers of requests at once, each with the number of requests in a round, and the contenders.
const LOADS: [(usize, usize, &[Contender]); 2] = [
    (1, 150, &[Contender::Ours, Contender::ByHand, Contender::Sqlx, Contender::Cratestack]),
    (
        64,
        1_920,
        &[Contender::Ours, Contender::ByHand, Contender::ByHandWithMany, Contender::Sqlx, Contender::Cratestack],
    ),
];

const LEAST_TOGETHER: f64 = 2.0;
/// Of the minimum that has a connection for each client.
const LEAST_OF_MANY: f64 = 1.4;
const LEAST_OF_PEERS: f64 = 1.0;
const MOST_ALONE: f64 = 1.7;
pub(crate) const MOST_OF_PROCESS: f64 = 1.8;
const MOST_OF_SERVER: f64 = 1.45;

/// The figures of a round.
pub(crate) struct Measured {
    pub(crate) round: Round,
    /// The CPU time for each request, in µs: of our process, and of PostgreSQL's.
    pub(crate) process: f64,
    pub(crate) server: f64,
}

pub(crate) async fn measure(report: &mut Report, server: &PostgresServer) {
    for (clients, requests, contenders) in LOADS {
        let mut apps = Vec::new();
        for contender in contenders {
            apps.push(contender.app(&server.url()).await);
        }
        let mut serial = (clients as u64) << 32;
        let rounds = rounds(server, contenders, requests, async |place| {
            let before = cpu_time(std::process::id());
            let round = round(&apps[place], clients, requests, &mut serial).await;
            (round, cpu_time(std::process::id()) - before)
        });
        let rounds = rounds.await;
        tell(report, &format!("first, {clients} at once"), contenders, &rounds);
        goals(report, contenders, clients, &rounds);
    }
}

/// Measures rounds of all contenders in turns. The one that begins changes. `round` gets the place of a contender, and
/// returns the CPU time of the process, too.
pub(crate) async fn rounds(
    server: &PostgresServer,
    contenders: &[Contender],
    requests: usize,
    mut round: impl AsyncFnMut(usize) -> (Round, f64),
) -> Vec<Vec<Measured>> {
    let mut rounds = Vec::new();
    for turn in 0..=pairs() {
        let mut all = Vec::new();
        for place in 0..contenders.len() {
            let place = (place + turn) % contenders.len();
            let before = cpu_time_with_children(server.pid());
            let (round, process) = round(place).await;
            let took = cpu_time_with_children(server.pid()) - before;
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
pub(crate) fn of(rounds: &[Vec<Measured>], place: usize, what: fn(&Measured) -> f64) -> Pairs {
    Pairs {
        ours: rounds.iter().map(|round| what(&round[0])).collect(),
        theirs: rounds.iter().map(|round| what(&round[place])).collect(),
    }
}

pub(crate) fn tell(report: &mut Report, group: &str, contenders: &[Contender], rounds: &[Vec<Measured>]) {
    let figures: [Figure; 5] = [
        ("throughput", "requests/s", |of| of.round.throughput),
        ("p50", "µs", |of| of.round.p50),
        ("p99", "µs", |of| of.round.p99),
        ("CPU, process", "µs", |of| of.process),
        ("CPU, server", "µs", |of| of.server),
    ];
    for (place, contender) in contenders.iter().enumerate() {
        let name = contender.name();
        for (figure, unit, what) in figures {
            report.row(group, &format!("{figure}, {name}"), unit, of(rounds, place, what).theirs());
        }
        for (figure, _, what) in figures.into_iter().filter(|(figure, ..)| *figure != "p99") {
            if *contender != Contender::Ours {
                report.row(group, &format!("{figure}, ours over {name}"), "×", of(rounds, place, what).ratio());
            }
        }
    }
}

fn goals(report: &mut Report, contenders: &[Contender], clients: usize, rounds: &[Vec<Measured>]) {
    for (place, contender) in contenders.iter().enumerate() {
        let goal = format!("first/{clients}/{}", contender.name());
        let throughput = of(rounds, place, |of| of.round.throughput).ratio();
        match (contender, clients) {
            (Contender::ByHand, 1) => {
                let p50 = of(rounds, place, |of| of.round.p50).ratio();
                report.at_most(&format!("{goal}/p50"), p50, MOST_ALONE);
                let process = of(rounds, place, |of| of.process).ratio();
                report.at_most(&format!("{goal}/CPU, process"), process, MOST_OF_PROCESS);
                report.at_most(
                    &format!("{goal}/CPU, server"),
                    of(rounds, place, |of| of.server).ratio(),
                    MOST_OF_SERVER,
                );
            }
            (Contender::ByHand, _) => report.at_least(&format!("{goal}/throughput"), throughput, LEAST_TOGETHER),
            (Contender::ByHandWithMany, _) => {
                report.at_least(&format!("{goal}/throughput"), throughput, LEAST_OF_MANY);
            }
            (Contender::Sqlx | Contender::Cratestack, 64) => {
                report.at_least(&format!("{goal}/throughput"), throughput, LEAST_OF_PEERS);
            }
            _ => {}
        }
    }
}
