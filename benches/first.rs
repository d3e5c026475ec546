//! Measures the price of running and recording the first request with a key.
//!
//! `cargo bench --features fjall --bench first`, or with `-- fjall` for the groups with such a name. It measures
//! claim, run and record in process, per store and policy, and compares them with as many durable writes by hand
//! (`testkit::bench::minimum`), and the embedded stores with each other. All sides of a group take turns, in one run.
//! Goals on a disk that becomes another one meanwhile are void.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a bench reports to its terminal")]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use axum::Router;
use tempfile::TempDir;
use testkit::bench::estimate::{Estimate, Pairs, pairs};
use testkit::bench::exchange::{SMALL, protected};
use testkit::bench::load::{Round, round};
use testkit::bench::minimum::{Engine, Minimum, Writes, durable, on_fjall, on_sled, volatile};
use testkit::bench::report::Report;
use testkit::bench::sync::SyncedDisk;
use testkit::bench::wanted;
use testkit::lab::disk::Disk;
use tower_idempotency::store::Gauges;
use tower_idempotency::{FjallStore, MemoryStore, OnInterrupted, SledStore};

/// The numbers of requests at once, each with the number of requests in a round.
const LOADS: [(usize, usize); 4] = [(1, 200), (8, 1_600), (64, 6_400), (512, 10_240)];
/// The number of requests at once, and of all requests, in the count of syncs.
const COUNTED: usize = 64;
const COUNTED_REQUESTS: usize = 64_000;
/// The argument with which this bench starts itself to count syncs.
const CHILD: &str = "--count";

/// By store and policy, of the hand-written minimum over the same engine, at 64.
const LEAST_THROUGHPUT: [(&str, f64); 4] =
    [("sled, rerun", 0.88), ("sled, refuse", 0.92), ("fjall, rerun", 0.85), ("fjall, refuse", 0.88)];
/// By policy, of the store on sled, at 64.
const LEAST_OVER_SLED: [(&str, f64); 2] = [("fjall, rerun", 1.35), ("fjall, refuse", 1.5)];
const MOST_P99_OVER_SLED: f64 = 1.2;
const MOST_P50: f64 = 1.1;
const MOST_P99: f64 = 1.5;
const MOST_SYNCS: f64 = 0.1;

/// The layer over a store, and hand-written code that is as durable.
struct Pair {
    name: String,
    ours: Router,
    theirs: Router,
    /// The numbers of our store.
    gauges: Box<dyn Fn() -> Gauges + Send + Sync>,
    _directories: Vec<TempDir>,
}

/// What the sides of a group did in one turn: ours and theirs of each pair.
type Turn = Vec<[Round; 2]>;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(place) = arguments.iter().position(|argument| argument == CHILD) {
        let counted = embedded(OnInterrupted::Rerun).into_iter().chain(embedded(OnInterrupted::Refuse));
        let counted = counted.into_iter().find(|pair| pair.name == arguments[place + 1]).unwrap();
        runtime.block_on(round(&counted.ours, COUNTED, COUNTED_REQUESTS, &mut 0));
        return;
    }
    let wanted = wanted();
    let question = "What does the first request with a key pay for being run once, and recorded?";
    let mut report = Report::new("first", "cargo bench --features fjall --bench first", question);
    let groups: [fn() -> Vec<Pair>; 3] =
        [|| vec![in_memory()], || embedded(OnInterrupted::Rerun), || embedded(OnInterrupted::Refuse)];
    for group in groups {
        let pairs = group();
        if !pairs.iter().any(|pair| wanted.as_ref().is_none_or(|wanted| pair.name.contains(wanted))) {
            continue;
        }
        let policy = pairs[0].name.split_once(", ").map(|(_, policy)| policy);
        let mut disk = policy.map(|policy| SyncedDisk::measured(&mut report, target(), policy));
        for (clients, requests) in LOADS {
            let before: Vec<_> = pairs.iter().map(|pair| (pair.gauges)()).collect();
            let turns = runtime.block_on(measure(&pairs, clients, requests));
            for (place, pair) in pairs.iter().enumerate() {
                let rounds: Vec<_> = turns.iter().map(|turn| turn[place]).collect();
                tell(&mut report, &pair.name, clients, &rounds);
                if clients == COUNTED {
                    tell_volume(&mut report, &pair.name, requests, [before[place], (pair.gauges)()]);
                }
            }
            if let [sled, fjall] = &*pairs {
                compare(&mut report, [&sled.name, &fjall.name], clients, &turns);
            }
            if let (Some(disk), Some(policy)) = (&mut disk, policy) {
                disk.measure_after(&mut report, &format!("{policy}/{clients}"));
            }
        }
        pairs.iter().filter(|pair| pair.name != MEMORY).for_each(|pair| count_syncs(&mut report, &pair.name));
    }
    report.finish();
}

const MEMORY: &str = "memory";

fn in_memory() -> Pair {
    let store = MemoryStore::builder().max_records(10_000_000).max_bytes(8 << 30).build();
    let ours = protected(SMALL, store, OnInterrupted::Rerun);
    let gauges = Box::new(Gauges::default);
    Pair { name: MEMORY.to_owned(), ours, theirs: volatile(SMALL), gauges, _directories: Vec::new() }
}

/// The stores on sled and on fjall, in this order.
fn embedded(policy: OnInterrupted) -> Vec<Pair> {
    vec![on_disk::<SledStore>(on_sled, policy), on_disk::<FjallStore>(on_fjall, policy)]
}

fn on_disk<D: Disk>(engine: Engine, policy: OnInterrupted) -> Pair {
    let (ours, theirs) = (directory(), directory());
    let (name, writes) = match policy {
        OnInterrupted::Rerun => ("rerun", Writes::One),
        _ => ("refuse", Writes::Two),
    };
    let store = D::open(ours.path()).unwrap();
    Pair {
        name: format!("{}, {name}", D::NAME),
        ours: protected(SMALL, store.clone(), policy),
        theirs: durable(SMALL, Arc::new(Minimum::open(engine, theirs.path())), writes),
        gauges: Box::new(move || store.gauges()),
        _directories: vec![ours, theirs],
    }
}

/// Returns a place on the disk of the target directory: temporary files may not be on a disk.
fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

fn directory() -> TempDir {
    tempfile::tempdir_in(target()).unwrap()
}

/// Measures rounds of all sides in turns. The side that begins changes.
async fn measure(sides: &[Pair], clients: usize, requests: usize) -> Vec<Turn> {
    let mut serial = u64::try_from(clients).unwrap() << 32;
    let mut turns = Vec::new();
    for turn in 0..=pairs() {
        let mut rounds: Vec<[Option<Round>; 2]> = vec![[None; 2]; sides.len()];
        for side in 0..2 * sides.len() {
            let side = (side + turn) % (2 * sides.len());
            let Pair { ours, theirs, .. } = &sides[side / 2];
            let app = if side.is_multiple_of(2) { ours } else { theirs };
            rounds[side / 2][side % 2] = Some(round(app, clients, requests, &mut serial).await);
        }
        // The first turn warms up.
        if turn > 0 {
            turns.push(rounds.into_iter().map(|pair| pair.map(Option::unwrap)).collect());
        }
    }
    turns
}

fn tell(report: &mut Report, name: &str, clients: usize, rounds: &[[Round; 2]]) {
    let of = |what: fn(&Round) -> f64| Pairs {
        ours: rounds.iter().map(|[ours, _]| what(ours)).collect(),
        theirs: rounds.iter().map(|[_, theirs]| what(theirs)).collect(),
    };
    let group = format!("{name}, {clients} at once");
    let (throughput, p50, p99) = (of(|round| round.throughput), of(|round| round.p50), of(|round| round.p99));
    for (what, unit, pairs) in [("throughput", "requests/s", &throughput), ("p50", "µs", &p50), ("p99", "µs", &p99)] {
        report.row(&group, &format!("{what}, ours"), unit, pairs.ours());
        report.row(&group, &format!("{what}, by hand"), unit, pairs.theirs());
        report.row(&group, &format!("{what}, ratio"), "×", pairs.ratio());
    }
    let goal = |what: &str| format!("{name}/{clients}/{what}");
    let least = LEAST_THROUGHPUT.iter().find(|(of, _)| *of == name);
    if let (Some((_, least)), COUNTED) = (least, clients) {
        report.at_least(&goal("throughput"), throughput.ratio(), *least);
        report.at_most(&goal("p99"), p99.ratio(), MOST_P99);
    }
    if name != MEMORY && clients == 1 {
        report.at_most(&goal("p50"), p50.ratio(), MOST_P50);
    }
}

/// Compares ours on fjall with ours on sled.
fn compare(report: &mut Report, [sled, fjall]: [&str; 2], clients: usize, turns: &[Turn]) {
    let ratio = |what: fn(&Round) -> f64| {
        let ours = |place: usize| turns.iter().map(|turn| what(&turn[place][0])).collect();
        Pairs { ours: ours(1), theirs: ours(0) }.ratio()
    };
    let (throughput, p99) = (ratio(|round| round.throughput), ratio(|round| round.p99));
    let group = format!("{fjall}, {clients} at once");
    report.row(&group, &format!("throughput, over {sled}"), "×", throughput);
    report.row(&group, &format!("p99, over {sled}"), "×", p99);
    if let (Some((_, least)), COUNTED) = (LEAST_OVER_SLED.iter().find(|(of, _)| *of == fjall), clients) {
        report.at_least(&format!("{fjall}/{clients}/over {sled}"), throughput, *least);
        report.at_most(&format!("{fjall}/{clients}/p99, over {sled}"), p99, MOST_P99_OVER_SLED);
    }
}

/// Says what our store has written for each request of a load, those of the first turn included. fjall counts it.
fn tell_volume(report: &mut Report, name: &str, requests: usize, [before, after]: [Gauges; 2]) {
    let count = (requests * (pairs() + 1)) as f64;
    let each = |of: fn(&Gauges) -> Option<u64>| Some((of(&after)? - of(&before)?) as f64 / count);
    for (what, each) in [("written", each(|gauges| gauges.written)), ("merged", each(|gauges| gauges.merged))] {
        if let Some(each) = each {
            let name = format!("{name}, {COUNTED} at once");
            report.row(&name, &format!("bytes {what}, ours"), "B/request", Estimate::exact(each));
        }
    }
}

/// Counts the calls that make something durable, those of the engine's own threads too, in a process of its own. The
/// count takes time, in which more requests come together.
fn count_syncs(report: &mut Report, name: &str) {
    let this = std::env::current_exe().unwrap();
    let traced = ["-f", "-c", "--seccomp-bpf", "-e", "trace=fdatasync,fsync"];
    let strace = Command::new("strace").args(traced).arg(this).args([CHILD, name]).output();
    let Ok(output) = strace else {
        println!("SKIPPED: syncs are counted by strace, which is not installed");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let calls = |line: &str| line.split_whitespace().nth(3)?.parse::<f64>().ok();
    let syncs: f64 = said.lines().filter(|line| line.ends_with("sync")).filter_map(calls).sum();
    let each = Estimate::exact(syncs / COUNTED_REQUESTS as f64);
    report.row(&format!("{name}, {COUNTED} at once"), "syncs", "per request", each);
    report.at_most(&format!("{name}/{COUNTED}/syncs"), each, MOST_SYNCS);
}
