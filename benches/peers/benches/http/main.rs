//! Measures the cost of an exchange over real sockets, against other crates.
//!
//! `cargo bench -p peers`, or `cargo bench -p peers -- "ours, sled"` for the lines with such a contender. Servers and
//! load each run in a process of their own, over HTTP/1.1 with keep-alive on loopback. Both sides of a ratio take
//! turns, in one run.
//!
//! `cargo bench -p peers --bench http -- cpu` measures the CPU time beyond the bare server's alone. With
//! `LD_PRELOAD=libjemalloc.so.2` or `libmimalloc.so.2.0`, all servers have that allocator.

mod beyond;
mod contenders;
mod records;

use std::path::Path;

use testkit::bench::estimate::{Pairs, pairs};
use testkit::bench::load::Round;
use testkit::bench::report::Report;
use testkit::bench::wanted;

use peers::load::{self, Plan};
use peers::process::{self, Server};

const LEAST_NO_KEY: f64 = 0.98;
const LEAST_REPLAY: f64 = 0.8;
const LEAST_IN_MEMORY: f64 = 0.65;
const LEAST_RERUN: f64 = 0.88;
const LEAST_REFUSE: f64 = 0.92;
const LEAST_RERUN_ON_FJALL: f64 = 0.85;
const LEAST_REFUSE_ON_FJALL: f64 = 0.88;
/// Of the same on sled.
const LEAST_RERUN_OVER_SLED: f64 = 1.35;
const LEAST_REFUSE_OVER_SLED: f64 = 1.5;
const LEAST_WITH_METRICS: f64 = 0.97;
/// With the event of each request in the log.
const LEAST_WITH_EVENTS: f64 = 0.95;
/// The longest first request on one connection, as a multiple of the minimum.
const MOST_ALONE: f64 = 1.1;
/// The throughput of the hand-written minimum at 64 connections, as a part of the bare server's, where the goals were
/// set, and the distance from it within which a run counts.
const MINIMUM: [(&str, f64); 2] = [("by hand, one write", 0.52), ("by hand, two writes", 0.37)];
const NEAR: f64 = 0.1;

/// The kind of the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    NoKey,
    Replay,
    First,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::NoKey => "no key",
            Self::Replay => "replay",
            Self::First => "first",
        }
    }

    const fn keys(self) -> &'static str {
        match self {
            Self::NoKey => "none",
            Self::Replay => "same",
            Self::First => "new",
        }
    }
}

/// One line of a table: a contender, compared with another.
struct Match {
    kind: Kind,
    ours: &'static str,
    theirs: &'static str,
    goal: Option<f64>,
}

const fn matched(kind: Kind, ours: &'static str, theirs: &'static str, goal: Option<f64>) -> Match {
    Match { kind, ours, theirs, goal }
}

const BARE: &str = "bare axum";
const BARE_PROXY: &str = "proxy, bare";
const MATCHES: [Match; 36] = [
    matched(Kind::NoKey, "ours, memory", BARE, Some(LEAST_NO_KEY)),
    matched(Kind::NoKey, "axum-idempotent", BARE, None),
    matched(Kind::NoKey, "cratestack-axum", BARE, None),
    matched(Kind::NoKey, "moka by hand", BARE, None),
    matched(Kind::Replay, "ours, memory", BARE, Some(LEAST_REPLAY)),
    matched(Kind::Replay, "ours, sled, rerun", BARE, Some(LEAST_REPLAY)),
    matched(Kind::Replay, "axum-idempotent", BARE, None),
    matched(Kind::Replay, "cratestack-axum", BARE, None),
    matched(Kind::Replay, "moka by hand", BARE, None),
    matched(Kind::First, "ours, memory", BARE, Some(LEAST_IN_MEMORY)),
    matched(Kind::First, "axum-idempotent", BARE, None),
    matched(Kind::First, "cratestack-axum", BARE, None),
    matched(Kind::First, "moka by hand", BARE, None),
    matched(Kind::First, "ours, sled, rerun", "by hand, one write", Some(LEAST_RERUN)),
    matched(Kind::First, "ours, sled, refuse", "by hand, two writes", Some(LEAST_REFUSE)),
    matched(Kind::First, "ours, fjall, rerun", "by hand on fjall, one write", Some(LEAST_RERUN_ON_FJALL)),
    matched(Kind::First, "ours, fjall, refuse", "by hand on fjall, two writes", Some(LEAST_REFUSE_ON_FJALL)),
    matched(Kind::First, "ours, fjall, rerun", "ours, sled, rerun", Some(LEAST_RERUN_OVER_SLED)),
    matched(Kind::First, "ours, fjall, refuse", "ours, sled, refuse", Some(LEAST_REFUSE_OVER_SLED)),
    matched(Kind::First, "ours, sled, rerun", BARE, None),
    matched(Kind::First, "ours, sled, refuse", BARE, None),
    matched(Kind::First, "by hand, one write", BARE, None),
    matched(Kind::First, "by hand, two writes", BARE, None),
    matched(Kind::Replay, "ours, memory", "cratestack-axum", Some(1.0)),
    matched(Kind::Replay, "ours, memory", "axum-idempotent", Some(1.0)),
    matched(Kind::First, "ours, memory", "cratestack-axum", Some(1.0)),
    matched(Kind::Replay, "ours, metrics on", "ours, memory", Some(LEAST_WITH_METRICS)),
    matched(Kind::First, "ours, metrics on", "ours, memory", Some(LEAST_WITH_METRICS)),
    matched(Kind::Replay, "ours, events on", "ours, memory", Some(LEAST_WITH_EVENTS)),
    matched(Kind::First, "ours, events on", "ours, memory", Some(LEAST_WITH_EVENTS)),
    matched(Kind::Replay, "ours, events in a file", "ours, memory", None),
    matched(Kind::First, "ours, events in a file", "ours, memory", None),
    matched(Kind::NoKey, "proxy, memory", BARE_PROXY, None),
    matched(Kind::Replay, "proxy, memory", BARE_PROXY, None),
    matched(Kind::First, "proxy, memory", BARE_PROXY, None),
    matched(Kind::First, "proxy, sled", BARE_PROXY, None),
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(place) = arguments.iter().position(|argument| argument == process::SERVE) {
        return contenders::serve(&arguments[place + 1], Path::new(&arguments[place + 2]));
    }
    if let Some(place) = arguments.iter().position(|argument| argument == process::LOAD) {
        return load::generate(&serde_json::from_str(&arguments[place + 1]).expect("a plan"));
    }
    let wanted = wanted();
    if wanted.as_deref() == Some("cpu") {
        return beyond::measure(&mut 0);
    }
    let question = "What does an exchange cost over real sockets, next to what people would use instead?";
    let mut report = Report::new("http", "cargo bench -p peers", question);
    let mut serial = 0;
    for connections in [64, 1] {
        for line in MATCHES.iter().filter(|line| wanted.as_ref().is_none_or(|wanted| line.ours.contains(wanted))) {
            run(&mut report, line, connections, &mut serial);
        }
    }
    report.finish();
}

/// Starts a server whose directory is on the disk of the target directory: temporary files may not be on a disk.
fn start(name: &'static str) -> Server {
    Server::start(name, Path::new(env!("CARGO_TARGET_TMPDIR")))
}

/// The figures of a round.
struct Measured {
    round: Round,
    /// The CPU time of the server, in µs for each request. It includes the connecting and, in replays, a first request
    /// for each connection.
    cpu: f64,
}

fn run(report: &mut Report, line: &Match, connections: usize, serial: &mut u64) {
    let Match { kind, ours, theirs, goal } = *line;
    let servers = [ours, theirs].map(start);
    let requests = if connections == 1 { 3_000 } else { 25_600 };
    let mut measure = |server: &Server| {
        let plan = Plan {
            address: server.address,
            connections,
            requests,
            keys: if [BARE, BARE_PROXY].contains(&server.name) { "none" } else { kind.keys() }.to_owned(),
            first: *serial,
            session: server.name == "axum-idempotent",
            marks_replays: server.name.starts_with("ours"),
        };
        *serial += requests as u64;
        let before = server.cpu_time();
        let round = process::load(&plan);
        Measured { round, cpu: (server.cpu_time() - before) / requests as f64 }
    };
    let mut rounds = Vec::new();
    for turn in 0..=pairs() {
        let both = if turn % 2 == 0 {
            let one = measure(&servers[0]);
            [one, measure(&servers[1])]
        } else {
            let other = measure(&servers[1]);
            [measure(&servers[0]), other]
        };
        // The first round warms up.
        if turn > 0 {
            rounds.push(both);
        }
    }
    let of = |what: fn(&Measured) -> f64| Pairs {
        ours: rounds.iter().map(|[ours, _]| what(ours)).collect(),
        theirs: rounds.iter().map(|[_, theirs]| what(theirs)).collect(),
    };
    let plural = if connections == 1 { "" } else { "s" };
    let group = format!("{}, {connections} connection{plural}", kind.name());
    let (throughput, p50) = (of(|measured| measured.round.throughput), of(|measured| measured.round.p50));
    let cpu = of(|measured| measured.cpu);
    report.row(&group, &format!("{ours}, throughput"), "requests/s", throughput.ours());
    report.row(&group, &format!("{ours}, p50"), "µs", p50.ours());
    report.row(&group, &format!("{ours}, CPU time of the server"), "µs/request", cpu.ours());
    report.row(&group, &format!("{theirs}, throughput"), "requests/s", throughput.theirs());
    report.row(&group, &format!("{theirs}, CPU time of the server"), "µs/request", cpu.theirs());
    report.row(&group, &format!("{ours}, over {theirs}"), "×", throughput.ratio());
    if connections == 1 && goal.is_some() && theirs.starts_with("by hand") {
        report.row(&group, &format!("{ours}, p50 over {theirs}"), "×", p50.ratio());
        report.at_most(&format!("{}/1/p50/{ours}/{theirs}", kind.name()), p50.ratio(), MOST_ALONE);
    }
    let name = format!("{}/{connections}/{ours}/{theirs}", kind.name());
    if let Some(goal) = goal {
        report.at_least(&name, throughput.ratio(), goal);
    }
    let ratio = throughput.ratio().median;
    for (minimum, expected) in MINIMUM {
        if ours == minimum && connections == 64 && (ratio / expected - 1.0).abs() > NEAR {
            println!("VOID: {minimum} is at {ratio:.2} of {BARE}, and not at {expected}");
            report.void(minimum);
        }
    }
}
