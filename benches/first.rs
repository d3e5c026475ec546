//! Measures the price of running and recording the first request with a key.
//!
//! `cargo bench --bench first`. It measures claim, run and record in process, per policy and store, and compares them
//! with as many durable writes by hand (`testkit::bench::minimum`). Both sides take turns, in one run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a bench reports to its terminal")]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use axum::Router;
use tempfile::TempDir;
use testkit::bench::estimate::{Estimate, Pairs, pairs};
use testkit::bench::exchange::{SMALL, protected};
use testkit::bench::load::{Round, round};
use testkit::bench::minimum::{Minimum, Writes, durable, volatile};
use testkit::bench::report::Report;
use tower_idempotency::{MemoryStore, OnInterrupted, SledStore};

/// The numbers of requests at once, each with the number of requests in a round.
const LOADS: [(usize, usize); 4] = [(1, 200), (8, 1_600), (64, 6_400), (512, 10_240)];
/// The number of requests at once, and of all requests, in the count of syncs.
const COUNTED: usize = 64;
const COUNTED_REQUESTS: usize = 64_000;
/// The argument with which this bench starts itself to count syncs.
const CHILD: &str = "--policy";

/// By policy, of the hand-written minimum.
const LEAST_THROUGHPUT: [(&str, f64); 2] = [("rerun", 0.88), ("refuse", 0.92)];
const MOST_P50: f64 = 1.1;
const MOST_P99: f64 = 1.5;
const MOST_SYNCS: f64 = 0.1;

/// The layer, and hand-written code that is as durable.
struct Case {
    name: &'static str,
    ours: Router,
    theirs: Router,
    is_durable: bool,
    _directories: Vec<TempDir>,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let Some(policy) = std::env::args().skip_while(|argument| argument != CHILD).nth(1) {
        let case = Case::on_sled(if policy == "refuse" { "refuse" } else { "rerun" });
        runtime.block_on(round(&case.ours, COUNTED, COUNTED_REQUESTS, &mut 0));
        return;
    }
    let question = "What does the first request with a key pay for being run once, and recorded?";
    let mut report = Report::new("first", "cargo bench --bench first", question);
    for case in [Case::in_memory(), Case::on_sled("rerun"), Case::on_sled("refuse")] {
        for (clients, requests) in LOADS {
            let rounds = runtime.block_on(measure(&case, clients, requests));
            tell(&mut report, &case, clients, &rounds);
        }
    }
    for policy in ["rerun", "refuse"] {
        count_syncs(&mut report, policy);
    }
    report.finish();
}

impl Case {
    fn in_memory() -> Self {
        let store = MemoryStore::builder().max_records(10_000_000).max_bytes(8 << 30).build();
        Self {
            name: "memory",
            ours: protected(SMALL, store, OnInterrupted::Rerun),
            theirs: volatile(SMALL),
            is_durable: false,
            _directories: Vec::new(),
        }
    }

    fn on_sled(name: &'static str) -> Self {
        let (ours, theirs) = (directory(), directory());
        let (policy, writes) = match name {
            "refuse" => (OnInterrupted::Refuse, Writes::Two),
            _ => (OnInterrupted::Rerun, Writes::One),
        };
        Self {
            name,
            ours: protected(SMALL, SledStore::open(ours.path()).unwrap(), policy),
            theirs: durable(SMALL, Arc::new(Minimum::open(theirs.path())), writes),
            is_durable: true,
            _directories: vec![ours, theirs],
        }
    }
}

/// Returns a directory on the disk of the target directory: temporary files may not be on a disk.
fn directory() -> TempDir {
    tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap()
}

/// Measures rounds of ours and of theirs in turns. The side that begins changes.
async fn measure(case: &Case, clients: usize, requests: usize) -> Vec<[Round; 2]> {
    let mut serial = u64::try_from(clients).unwrap() << 32;
    let mut rounds = Vec::new();
    for turn in 0..=pairs() {
        let both = if turn % 2 == 0 {
            let ours = round(&case.ours, clients, requests, &mut serial).await;
            [ours, round(&case.theirs, clients, requests, &mut serial).await]
        } else {
            let theirs = round(&case.theirs, clients, requests, &mut serial).await;
            [round(&case.ours, clients, requests, &mut serial).await, theirs]
        };
        // The first round warms up.
        if turn > 0 {
            rounds.push(both);
        }
    }
    rounds
}

fn tell(report: &mut Report, case: &Case, clients: usize, rounds: &[[Round; 2]]) {
    let of = |what: fn(&Round) -> f64| Pairs {
        ours: rounds.iter().map(|[ours, _]| what(ours)).collect(),
        theirs: rounds.iter().map(|[_, theirs]| what(theirs)).collect(),
    };
    let group = format!("{}, {clients} at once", case.name);
    let (throughput, p50, p99) = (of(|round| round.throughput), of(|round| round.p50), of(|round| round.p99));
    for (name, unit, pairs) in [("throughput", "requests/s", &throughput), ("p50", "µs", &p50), ("p99", "µs", &p99)] {
        report.row(&group, &format!("{name}, ours"), unit, pairs.ours());
        report.row(&group, &format!("{name}, by hand"), unit, pairs.theirs());
        report.row(&group, &format!("{name}, ratio"), "×", pairs.ratio());
    }
    let name = |what: &str| format!("{}/{clients}/{what}", case.name);
    let least = LEAST_THROUGHPUT.iter().find(|(policy, _)| *policy == case.name);
    if let (Some((_, least)), COUNTED) = (least, clients) {
        report.at_least(&name("throughput"), throughput.ratio(), *least);
        report.at_most(&name("p99"), p99.ratio(), MOST_P99);
    }
    if case.is_durable && clients == 1 {
        report.at_most(&name("p50"), p50.ratio(), MOST_P50);
    }
}

/// Counts the calls that make something durable, those of sled's own flusher too, in a process of its own. The count
/// takes time, in which more requests come together.
fn count_syncs(report: &mut Report, policy: &str) {
    let this = std::env::current_exe().unwrap();
    let traced = ["-f", "-c", "--seccomp-bpf", "-e", "trace=fdatasync,fsync"];
    let strace = Command::new("strace").args(traced).arg(this).args([CHILD, policy]).output();
    let Ok(output) = strace else {
        println!("SKIPPED: syncs are counted by strace, which is not installed");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let calls = |line: &str| line.split_whitespace().nth(3)?.parse::<f64>().ok();
    let syncs: f64 = said.lines().filter(|line| line.ends_with("sync")).filter_map(calls).sum();
    let each = Estimate::exact(syncs / COUNTED_REQUESTS as f64);
    report.row(&format!("{policy}, {COUNTED} at once"), "syncs", "per request", each);
    report.at_most(&format!("{policy}/{COUNTED}/syncs"), each, MOST_SYNCS);
}
