//! First requests, compared with other crates and hand-written code: their time, and the CPU time of the process, with
//! the load in it, and of the server.

use axum::Router;
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
const MOST_OF_PROCESS: f64 = 1.8;
const MOST_OF_SERVER: f64 = 1.45;

struct Measured {
    round: Round,
    /// For each request, in µs.
    process: f64,
    server: f64,
}

pub(crate) async fn measure(report: &mut Report, server: &PostgresServer) {
    for (clients, requests, contenders) in LOADS {
        let mut apps = Vec::new();
        for contender in contenders {
            apps.push(contender.app(&server.url()).await);
        }
        let rounds = rounds(server, &apps, clients, requests).await;
        tell(report, contenders, clients, &rounds);
    }
}

/// Measures rounds of all contenders in turns. The one that begins changes.
async fn rounds(server: &PostgresServer, apps: &[Router], clients: usize, requests: usize) -> Vec<Vec<Measured>> {
    let cpu_times = || (cpu_time(std::process::id()), cpu_time_with_children(server.pid()));
    let mut serial = (clients as u64) << 32;
    let mut rounds = Vec::new();
    for turn in 0..=pairs() {
        let mut all = Vec::new();
        for place in 0..apps.len() {
            let place = (place + turn) % apps.len();
            let before = cpu_times();
            let round = round(&apps[place], clients, requests, &mut serial).await;
            let after = cpu_times();
            let [process, server] = [after.0 - before.0, after.1 - before.1].map(|micros| micros / requests as f64);
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

fn tell(report: &mut Report, contenders: &[Contender], clients: usize, rounds: &[Vec<Measured>]) {
    let group = format!("first, {clients} at once");
    let of = |place: usize, what: fn(&Measured) -> f64| Pairs {
        ours: rounds.iter().map(|round| what(&round[0])).collect(),
        theirs: rounds.iter().map(|round| what(&round[place])).collect(),
    };
    for (place, contender) in contenders.iter().enumerate() {
        let name = contender.name();
        let [throughput, p50, p99] =
            [|of: &Measured| of.round.throughput, |of: &Measured| of.round.p50, |of: &Measured| of.round.p99]
                .map(|what| of(place, what));
        let [process, server] = [|of: &Measured| of.process, |of: &Measured| of.server].map(|what| of(place, what));
        report.row(&group, &format!("throughput, {name}"), "requests/s", throughput.theirs());
        report.row(&group, &format!("p50, {name}"), "µs", p50.theirs());
        report.row(&group, &format!("p99, {name}"), "µs", p99.theirs());
        report.row(&group, &format!("CPU, process, {name}"), "µs", process.theirs());
        report.row(&group, &format!("CPU, server, {name}"), "µs", server.theirs());
        if *contender == Contender::Ours {
            continue;
        }
        report.row(&group, &format!("throughput, ours over {name}"), "×", throughput.ratio());
        report.row(&group, &format!("p50, ours over {name}"), "×", p50.ratio());
        report.row(&group, &format!("CPU, process, ours over {name}"), "×", process.ratio());
        report.row(&group, &format!("CPU, server, ours over {name}"), "×", server.ratio());
        let goal = format!("first/{clients}/{name}");
        match (contender, clients) {
            (Contender::ByHand, 1) => {
                report.at_most(&format!("{goal}/p50"), p50.ratio(), MOST_ALONE);
                report.at_most(&format!("{goal}/CPU, process"), process.ratio(), MOST_OF_PROCESS);
                report.at_most(&format!("{goal}/CPU, server"), server.ratio(), MOST_OF_SERVER);
            }
            (Contender::ByHand, _) => {
                report.at_least(&format!("{goal}/throughput"), throughput.ratio(), LEAST_TOGETHER)
            }
            (Contender::ByHandWithMany, _) => {
                report.at_least(&format!("{goal}/throughput"), throughput.ratio(), LEAST_OF_MANY);
            }
            (Contender::Sqlx | Contender::Cratestack, 64) => {
                report.at_least(&format!("{goal}/throughput"), throughput.ratio(), LEAST_OF_PEERS);
            }
            _ => {}
        }
    }
}
