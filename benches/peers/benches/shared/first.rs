//! First requests, compared with other crates and hand-written code: their time, and the CPU time of the process, with
//! the load in it, and of the server.

use peers::turns::{Measured, in_process, of, tell};
use testkit::bench::cpu::cpu_time_with_children;
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

pub(crate) async fn measure(report: &mut Report, server: &PostgresServer) {
    for (clients, requests, contenders) in LOADS {
        let mut apps = Vec::new();
        for contender in contenders {
            apps.push(contender.app(&server.url()).await);
        }
        let rounds = in_process(&apps, clients, requests, |_| cpu_time_with_children(server.pid())).await;
        let names: Vec<_> = contenders.iter().map(|contender| contender.name()).collect();
        tell(report, &format!("first, {clients} at once"), &names, &rounds);
        goals(report, contenders, clients, &rounds);
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
