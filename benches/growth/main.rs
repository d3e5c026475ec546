//! Measures the costs in a store that has grown.
//!
//! `cargo bench --features fjall --bench growth`, or with `-- fjall` for one engine: 10 k, 100 k and 1 M records;
//! `GROWTH=5000000` adds as many more. `-- lists` measures the first page of each list among 1 M records, alone, in a
//! report of its own. It measures claims, replays of recent and of old keys, and opening again, by the number of
//! records, and memory, in a process for each number. Then it measures the disk under the churn of three days, and
//! requests while expired records are swept; the bench sets the clock.
//!
//! `-- volume` prints the bytes that fjall writes for each of the first 300,000 requests to a store, or of `GROWTH`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a bench reports to its terminal")]

mod churn;
mod filled;
mod memory;
mod sweeping;
mod volume;

use testkit::bench::estimate::{Estimate, Pairs, pairs};
use testkit::bench::lists;
use testkit::bench::report::Report;
use testkit::bench::wanted;
use testkit::lab::disk::Disk;
use tokio::runtime::Runtime;
use tower_idempotency::{FjallStore, SledStore};

use filled::{Filled, Kind};

const FEW: usize = 10_000;
const SIZES: [usize; 3] = [FEW, 100_000, MANY];
/// The number of records for which the goals are.
const MANY: usize = 1_000_000;

const INTERRUPTED: usize = 10_000;

const MOST_SLOWER: [(&str, f64); 2] = [(SledStore::NAME, 1.5), (FjallStore::NAME, 1.3)];
const MOST_REOPENING: f64 = 1.0;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let Some((engine, records)) = memory::counted() {
        return match &*engine {
            FjallStore::NAME => runtime.block_on(memory::count::<FjallStore>(records)),
            _ => runtime.block_on(memory::count::<SledStore>(records)),
        };
    }
    let wanted = wanted();
    if wanted.as_deref() == Some("volume") {
        let records = std::env::var("GROWTH").map_or(300_000, |records| records.parse().expect("GROWTH is a number"));
        return runtime.block_on(volume::say(records));
    }
    let is_wanted = |name: &str| wanted.as_ref().is_none_or(|wanted| wanted == name);
    if wanted.as_deref() != Some("lists") {
        costs(&runtime, is_wanted);
    }
    if is_wanted("lists") {
        let question = "How long does the first page of each list take?";
        let mut report = Report::new("lists", "cargo bench --features fjall --bench growth -- lists", question);
        runtime.block_on(first_pages::<SledStore>(&mut report));
        runtime.block_on(first_pages::<FjallStore>(&mut report));
        report.finish();
    }
}

/// Measures everything but the lists, on each engine that is wanted.
fn costs(runtime: &Runtime, is_wanted: impl Fn(&str) -> bool) {
    let question = "What becomes of all this when the store has grown?";
    let mut report = Report::new("growth", "cargo bench --features fjall --bench growth", question);
    let more = std::env::var("GROWTH").map(|records| records.parse().expect("GROWTH is a number"));
    let sizes: Vec<_> = SIZES.into_iter().chain(more.ok()).collect();
    if is_wanted(SledStore::NAME) {
        measure::<SledStore>(runtime, &mut report, &sizes);
    }
    if is_wanted(FjallStore::NAME) {
        measure::<FjallStore>(runtime, &mut report, &sizes);
    }
    report.finish();
}

fn measure<D: Disk>(runtime: &Runtime, report: &mut Report, sizes: &[usize]) {
    runtime.block_on(async {
        reopen(report, Filled::<D>::new(FEW).await).await;
        for records in &sizes[1..] {
            let mut many = Filled::<D>::new(*records).await;
            compare(report, &mut Filled::new(FEW).await, &mut many).await;
            reopen(report, many).await;
        }
    });
    for records in sizes {
        memory::tell::<D>(report, *records);
    }
    runtime.block_on(churn::tell::<D>(report));
    runtime.block_on(sweeping::tell::<D>(report));
}

/// Measures lists in a store with many records, of which some are interrupted.
async fn first_pages<D: Disk>(report: &mut Report) {
    let many = Filled::<D>::new(MANY).await;
    many.interrupt(INTERRUPTED).await;
    lists::measure(report, &format!("lists, {}, {MANY} records", D::NAME), many.store.clone()).await;
}

/// Compares a store with few records and one with many, in turns. New keys come last, because they make the store grow.
async fn compare<D: Disk>(report: &mut Report, few: &mut Filled<D>, many: &mut Filled<D>) {
    let group = format!("{}, {} records", D::NAME, many.records);
    for kind in [Kind::Recent, Kind::Old, Kind::First] {
        let mut both = Pairs { ours: Vec::new(), theirs: Vec::new() };
        for turn in 0..=pairs() {
            let (one, other) = if turn % 2 == 0 {
                (few.each(kind).await, many.each(kind).await)
            } else {
                let other = many.each(kind).await;
                (few.each(kind).await, other)
            };
            // The first round warms up.
            if turn > 0 {
                both.theirs.push(one);
                both.ours.push(other);
            }
        }
        let name = kind.name();
        report.row(&group, &format!("{name}, with {} records", few.records), "µs", both.theirs());
        report.row(&group, name, "µs", both.ours());
        report.row(&group, &format!("{name}, over {} records", few.records), "×", both.ratio());
        let most = MOST_SLOWER.iter().find(|(engine, _)| *engine == D::NAME);
        if let (Some((_, most)), MANY) = (most, many.records)
            && kind != Kind::Old
        {
            report.at_most(&format!("{}/{MANY}/{name}", D::NAME), both.ratio(), *most);
        }
    }
}

async fn reopen<D: Disk>(report: &mut Report, mut store: Filled<D>) {
    let mut times = Vec::new();
    for _ in 0..pairs() {
        times.push(store.reopen().await);
    }
    let (records, times) = (store.records, Estimate::of(times));
    let group = format!("{}, {records} records", D::NAME);
    report.row(&group, "opening again", "s", times);
    if records == MANY {
        report.at_most(&format!("{}/{MANY}/opening again", D::NAME), times, MOST_REOPENING);
    }
    let read = Estimate::exact(store.read_all().await);
    report.row(&group, "reading all, without lists and totals", "s", read);
}
