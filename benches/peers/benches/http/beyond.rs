//! Measures the CPU time that a server spends on a request beyond the bare server's: the steadiest figure of all on a
//! machine that others use too.

use peers::load::Plan;
use peers::process::{self, Server};
use testkit::bench::estimate::{Estimate, pairs};
use testkit::bench::report::Report;

use super::{BARE, Kind, start};

const CONNECTIONS: usize = 64;
const REQUESTS: usize = 25_600;

/// The servers: the bare one, ours, and the peers, first the one that the goals are of.
const SERVERS: [&str; 5] = [BARE, "ours, memory", "cratestack-axum", "axum-idempotent", "moka by hand"];

/// The most that a request may cost here, as a multiple of what it costs the peer: a replay, and a first request, which
/// may cost more with glibc's allocator.
const MOST_REPLAY: f64 = 1.0;
const MOST_FIRST: f64 = 1.1;
const MOST_FIRST_GLIBC: f64 = 1.3;

/// The allocator that is loaded before the program: its name, the report, the command, the most for a first request.
fn allocator() -> (&'static str, &'static str, &'static str, f64) {
    let loaded = std::env::var("LD_PRELOAD").unwrap_or_default();
    match loaded {
        loaded if loaded.contains("jemalloc") => {
            let command = "LD_PRELOAD=libjemalloc.so.2 cargo bench -p peers --bench http -- cpu";
            ("jemalloc", "cpu-jemalloc", command, MOST_FIRST)
        }
        loaded if loaded.contains("mimalloc") => {
            let command = "LD_PRELOAD=libmimalloc.so.2.0 cargo bench -p peers --bench http -- cpu";
            ("mimalloc", "cpu-mimalloc", command, MOST_FIRST)
        }
        _ => ("glibc", "cpu-glibc", "cargo bench -p peers --bench http -- cpu", MOST_FIRST_GLIBC),
    }
}

pub(crate) fn measure(serial: &mut u64) {
    let (allocator, name, command, most_first) = allocator();
    let mut report = Report::new(name, command, "How much CPU time does a request cost beyond the bare server's?");
    for (kind, most) in [(Kind::Replay, MOST_REPLAY), (Kind::First, most_first)] {
        let servers = SERVERS.map(start);
        let mut turns = Vec::new();
        for turn in 0..=pairs() {
            let mut costs = [0.0; SERVERS.len()];
            for place in 0..SERVERS.len() {
                let place = (place + turn) % SERVERS.len();
                costs[place] = cost(&servers[place], kind, serial);
            }
            // The first turn warms up.
            if turn > 0 {
                turns.push(costs);
            }
        }
        let group = format!("{}, {CONNECTIONS} connections, {allocator}", kind.name());
        let of = |what: &dyn Fn(&[f64; SERVERS.len()]) -> f64| Estimate::of(turns.iter().map(what).collect());
        report.row(&group, BARE, "µs/request", of(&|costs| costs[0]));
        let beyond = |place: usize| of(&|costs| costs[place] - costs[0]);
        for (place, name) in SERVERS.iter().enumerate().skip(1) {
            report.row(&group, &format!("{name}, beyond bare"), "µs/request", beyond(place));
        }
        let over = |place: usize| of(&|costs| (costs[1] - costs[0]) / (costs[place] - costs[0]));
        let median = |place: usize| beyond(place).median;
        let leanest = (2..SERVERS.len()).min_by(|one, other| median(*one).total_cmp(&median(*other)));
        let leanest = leanest.expect("there are peers");
        for (place, who) in [(2, ""), (leanest, "the leanest, ")] {
            let name = format!("ours over {who}{}, both beyond bare", SERVERS[place]);
            report.row(&group, &name, "×", over(place));
            // What a peer costs is so little that some of the ratios are far off.
            let medians = Estimate::exact(median(1) / median(place));
            report.row(&group, &format!("{name}, of the medians"), "×", medians);
        }
        report.at_most(&format!("{}/{allocator}", kind.name()), over(2), most);
    }
    report.finish();
}

/// Returns the CPU time of one of a round's requests, in µs.
fn cost(server: &Server, kind: Kind, serial: &mut u64) -> f64 {
    let plan = Plan {
        address: server.address,
        connections: CONNECTIONS,
        requests: REQUESTS,
        // The bare server gets the same requests.
        keys: kind.keys().to_owned(),
        first: *serial,
        session: server.name == "axum-idempotent",
        marks_replays: server.name.starts_with("ours"),
    };
    *serial += REQUESTS as u64;
    let before = server.cpu_time();
    process::load(&plan);
    (server.cpu_time() - before) / REQUESTS as f64
}
