//! First requests over sockets: the CPU time of the process is the service's alone, because each contender and the load
//! have a process of their own.

use peers::load::Plan;
use peers::process::{self, Server};
use testkit::bench::report::Report;
use testkit::postgres::PostgresServer;

use super::contenders::Contender;
use super::first::{MOST_OF_PROCESS, of, rounds, tell};

/// The numbers of connections, each with the number of requests in a round, and the contenders.
const LOADS: [(usize, usize, &[Contender]); 2] = [
    (1, 300, &[Contender::Ours, Contender::ByHand]),
    (64, 3_840, &[Contender::Ours, Contender::ByHand, Contender::ByHandWithMany]),
];

const MOST_ALONE: f64 = 1.2;

pub(crate) async fn measure(report: &mut Report, server: &PostgresServer) {
    let mut first = 1_u64 << 56;
    for (connections, requests, contenders) in LOADS {
        let servers: Vec<_> =
            contenders.iter().map(|contender| Server::over(contender.name(), &server.url())).collect();
        let rounds = rounds(server, contenders, requests, async |place| {
            let Server { address, .. } = servers[place];
            let keys = "new".to_owned();
            let plan = Plan { address, connections, requests, keys, first, session: false, marks_replays: false };
            first += requests as u64;
            let before = servers[place].cpu_time();
            (process::load(&plan), servers[place].cpu_time() - before)
        });
        let rounds = rounds.await;
        tell(report, &format!("first over sockets, {connections} at once"), contenders, &rounds);
        if connections == 1 {
            let goal = format!("sockets/1/{}", Contender::ByHand.name());
            report.at_most(&format!("{goal}/p50"), of(&rounds, 1, |of| of.round.p50).ratio(), MOST_ALONE);
            report.at_most(&format!("{goal}/CPU, process"), of(&rounds, 1, |of| of.process).ratio(), MOST_OF_PROCESS);
        }
    }
}
