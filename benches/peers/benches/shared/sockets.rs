//! First requests over sockets: the CPU time of the process is the service's alone, because each contender and the load
//! have a process of their own.

use peers::process::Server;
use peers::turns::{of, over_sockets, tell};
use testkit::bench::cpu::cpu_time_with_children;
use testkit::bench::report::Report;
use testkit::postgres::PostgresServer;

use super::contenders::Contender;
use super::first::MOST_OF_PROCESS;

/// The numbers of connections, each with the number of requests in a round, and the contenders.
const LOADS: [(usize, usize, &[Contender]); 2] = [
    (1, 300, &[Contender::Ours, Contender::ByHand]),
    (64, 3_840, &[Contender::Ours, Contender::ByHand, Contender::ByHandWithMany]),
];

const MOST_ALONE: f64 = 1.2;

pub(crate) async fn measure(report: &mut Report, server: &PostgresServer) {
    for (connections, requests, contenders) in LOADS {
        let names: Vec<_> = contenders.iter().map(|contender| contender.name()).collect();
        let servers: Vec<_> = names.iter().map(|&name| Server::over(name, &server.url())).collect();
        let rounds = over_sockets(&servers, connections, requests, |_| cpu_time_with_children(server.pid())).await;
        tell(report, &format!("first over sockets, {connections} at once"), &names, &rounds);
        if connections == 1 {
            let goal = format!("sockets/1/{}", Contender::ByHand.name());
            report.at_most(&format!("{goal}/p50"), of(&rounds, 1, |of| of.round.p50).ratio(), MOST_ALONE);
            report.at_most(&format!("{goal}/CPU, process"), of(&rounds, 1, |of| of.process).ratio(), MOST_OF_PROCESS);
        }
    }
}
