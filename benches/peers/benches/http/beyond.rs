//! Measures the CPU time that a server spends on a request beyond the bare server's: the steadiest figure of all on a
//! machine that others use too.

use peers::load::Plan;
use peers::process::{self, Server};
use testkit::bench::estimate::{Estimate, pairs};
use testkit::bench::report::Report;

use super::{BARE, Kind, start};

const CONNECTIONS: usize = 64;
const REQUESTS: usize = 25_600;

/// The servers: the bare one, ours, and the one that ours is compared with, first.
const SERVERS: [&str; 5] = [BARE, "ours, memory", "cratestack-axum", "axum-idempotent", "moka by hand"];

/// The allocator that this program was built with, and the most that a first request may cost here, as a multiple of
/// what it costs the peer.
const ALLOCATOR: (&str, f64) = if cfg!(feature = "jemalloc") {
    ("jemalloc", 1.1)
} else if cfg!(feature = "mimalloc") {
    ("mimalloc", 1.1)
} else {
    ("glibc", 1.3)
};
const MOST_REPLAY: f64 = 1.0;

pub(crate) fn measure(serial: &mut u64) {
    let (allocator, most_first) = ALLOCATOR;
    let (name, command) = match allocator {
        "jemalloc" => ("cpu-jemalloc", "cargo bench -p peers --bench http --features jemalloc -- cpu"),
        "mimalloc" => ("cpu-mimalloc", "cargo bench -p peers --bench http --features mimalloc -- cpu"),
        _ => ("cpu-glibc", "cargo bench -p peers --bench http -- cpu"),
    };
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
        for (place, name) in SERVERS.iter().enumerate().skip(1) {
            report.row(&group, &format!("{name}, beyond bare"), "µs/request", of(&|costs| costs[place] - costs[0]));
        }
        let ratio = of(&|costs| (costs[1] - costs[0]) / (costs[2] - costs[0]));
        report.row(&group, "ours over cratestack-axum, both beyond bare", "×", ratio);
        report.at_most(&format!("{}/{allocator}", kind.name()), ratio, most);
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
