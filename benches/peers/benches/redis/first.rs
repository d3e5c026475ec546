//! First requests, compared with hand-written code and with PostgreSQL: their time, and the CPU time of the process and
//! of the server.

use peers::process::Server;
use peers::turns::{Measured, in_process, of, over_sockets, tell};
use testkit::bench::cpu::cpu_time_with_children;
use testkit::bench::estimate::Estimate;
use testkit::bench::report::Report;
use testkit::postgres::PostgresServer;
use testkit::redis::RedisServer;

use super::contenders::Contender;
use super::server::{cpu_time, started};

/// A number of requests at once, the number of requests in a round, and the contenders.
type Load = (usize, usize, &'static [Contender]);

const LOADS: [Load; 2] = [
    (1, 1_000, &[Contender::Ours, Contender::ByHand, Contender::ByHandInScripts]),
    (64, 2_560, &[Contender::Ours, Contender::ByHand, Contender::ByHandInScripts, Contender::OnPostgres]),
];
const REPLICATED: [Load; 2] = [
    (1, 500, &[Contender::OursReplicated, Contender::ByHandReplicated]),
    (64, 2_560, &[Contender::OursReplicated, Contender::ByHandReplicated]),
];
const OVER_SOCKETS: [Load; 2] =
    [(1, 500, &[Contender::Ours, Contender::ByHand]), (64, 2_560, &[Contender::Ours, Contender::ByHand])];

const LEAST_TOGETHER: f64 = 0.5;
const LEAST_OF_POSTGRES: f64 = 2.0;
const MOST_ALONE: f64 = 1.25;
/// A goal is void if the other side's throughput in the second half of the turns is this many times that in the first,
/// or as little.
const STEADY: f64 = 1.25;

pub(crate) async fn measure(report: &mut Report, postgres: &PostgresServer) {
    take_turns(report, "first", LOADS, &started(), postgres).await;
}

pub(crate) async fn measure_with_a_replica(report: &mut Report, postgres: &PostgresServer) {
    let primary = started();
    let _replica = RedisServer::replica_of(primary.address(), &[]).expect("its primary has started");
    take_turns(report, "replicas", REPLICATED, &primary, postgres).await;
}

async fn take_turns(
    report: &mut Report,
    part: &str,
    loads: [Load; 2],
    server: &RedisServer,
    postgres: &PostgresServer,
) {
    for (clients, requests, contenders) in loads {
        let mut apps = Vec::new();
        for contender in contenders {
            let url = if *contender == Contender::OnPostgres { postgres.url() } else { server.url() };
            apps.push(contender.app(&url).await);
        }
        let cpu = |place: usize| match contenders[place] {
            Contender::OnPostgres => cpu_time_with_children(postgres.pid()),
            _ => cpu_time(server),
        };
        let rounds = in_process(&apps, clients, requests, cpu).await;
        tell_all(report, part, clients, contenders, &rounds);
    }
}

/// Each contender and the load have a process of their own, so that the CPU time of the process is the service's alone.
pub(crate) async fn measure_over_sockets(report: &mut Report) {
    let server = started();
    for (connections, requests, contenders) in OVER_SOCKETS {
        let services = contenders.iter().map(|contender| Server::over(contender.name(), &server.url()));
        let services: Vec<_> = services.collect();
        let rounds = over_sockets(&services, connections, requests, |_| cpu_time(&server)).await;
        tell_all(report, "sockets", connections, contenders, &rounds);
    }
}

fn tell_all(report: &mut Report, part: &str, clients: usize, contenders: &[Contender], rounds: &[Vec<Measured>]) {
    let names: Vec<_> = contenders.iter().map(|contender| contender.name()).collect();
    tell(report, &format!("{part}, {clients} at once"), &names, rounds);
    for (place, contender) in contenders.iter().enumerate().skip(1) {
        let goal = format!("{part}/{clients}/{}", contender.name());
        let throughput = of(rounds, place, |of| of.round.throughput);
        match (contender, clients) {
            // It says what of a goal scripts leave.
            (Contender::ByHandInScripts, _) => continue,
            (Contender::OnPostgres, _) => {
                report.at_least(&format!("{goal}/throughput"), throughput.ratio(), LEAST_OF_POSTGRES);
            }
            (_, 1) => {
                let p50 = of(rounds, place, |of| of.round.p50).ratio();
                report.at_most(&format!("{goal}/p50"), p50, MOST_ALONE);
            }
            _ => report.at_least(&format!("{goal}/throughput"), throughput.ratio(), LEAST_TOGETHER),
        }
        check(report, &goal, &throughput.theirs);
    }
}

/// Nothing can be said of a goal if the other side has become another one.
fn check(report: &mut Report, goal: &str, theirs: &[f64]) {
    let (first, second) = theirs.split_at(theirs.len() / 2);
    if first.is_empty() {
        return;
    }
    let [first, second] = [first, second].map(|half| Estimate::of(half.to_vec()).median);
    let ratio = second / first;
    if !(1.0 / STEADY..=STEADY).contains(&ratio) {
        println!("VOID: the other side of {goal} has {ratio:.2} times its throughput in the second half of the turns");
        report.void(&format!("{goal}/"));
    }
}
