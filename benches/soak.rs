//! Measures a store over an hour in which new keys come and go.
//!
//! `cargo bench --bench soak -- fjall`, or `-- sled`: 10,000 new keys a second, each kept for a minute, under `Refuse`.
//! `SOAK=60` takes a quick look of so many seconds, whose figures are not kept. A request is timed from the moment at
//! which it is due, so that a stall delays all that are due meanwhile; the load's own clock adds up to 2 ms.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a bench reports to its terminal")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use testkit::bench::disk;
use testkit::bench::estimate::{Estimate, micros, quantile};
use testkit::bench::exchange::{SMALL, bare, layer, request};
use testkit::bench::load::key;
use testkit::bench::report::Report;
use testkit::bench::wanted;
use testkit::lab::disk::Disk;
use testkit::process::memory;
use tower::ServiceExt as _;
use tower_idempotency::{FjallStore, OnInterrupted, SledStore};

const HOUR: u64 = 3_600;
/// The number of requests that are due at once, a thousand times a second.
const AT_ONCE: u64 = 10;
const TICK: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const RETENTION: Duration = MINUTE;
/// The minutes after which a store has as many records as it will have, and its files are merged.
const WARM: usize = 10;

/// In ms.
const LONGEST_STALL: f64 = 100.0;
/// Of the last third, of the first one.
const MOST_GROWTH: f64 = 1.1;

/// What was seen in a minute.
struct Minute {
    /// In ms.
    p50: f64,
    p99: f64,
    longest: f64,
    answered: usize,
    refused: usize,
    /// In MiB.
    resident: f64,
    disk: f64,
    records: u64,
}

fn main() {
    let seconds = std::env::var("SOAK").map_or(HOUR, |seconds| seconds.parse().expect("SOAK is a number of seconds"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match wanted().as_deref() {
        Some(SledStore::NAME) => runtime.block_on(soak::<SledStore>("soak-sled", seconds)),
        Some(FjallStore::NAME) | None => runtime.block_on(soak::<FjallStore>("soak-fjall", seconds)),
        Some(other) => panic!("there is no engine {other}"),
    }
}

async fn soak<D: Disk>(name: &'static str, seconds: u64) {
    let question = "Does a store stay as it is while new keys come and go for an hour?";
    let command =
        if D::NAME == SledStore::NAME { "cargo bench --bench soak -- sled" } else { "cargo bench --bench soak" };
    let mut report = Report::new(name, command, question);
    let directory = tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap();
    let store = D::open(directory.path()).unwrap();
    let layer = layer(store.clone(), OnInterrupted::Refuse).retention(RETENTION);
    let app = bare(SMALL).layer(layer).with_state(());
    let times = Arc::new(Mutex::new(Vec::new()));
    let mut ticks = tokio::time::interval(TICK);
    let (began, mut minutes) = (Instant::now(), Vec::new());
    for tick in 0..seconds * 1_000 {
        ticks.tick().await;
        let due = began + TICK * u32::try_from(tick).unwrap();
        for number in 0..AT_ONCE {
            let (app, times) = (app.clone(), Arc::clone(&times));
            tokio::spawn(async move {
                let Ok(answer) = app.oneshot(request(Some(&key(tick * AT_ONCE + number)))).await;
                times.lock().unwrap().push((due.elapsed(), answer.status() == 200));
            });
        }
        if (tick + 1).is_multiple_of(60_000) {
            let (times, files) = (std::mem::take(&mut *times.lock().unwrap()), directory.path().to_owned());
            // It looks at a few hundred files.
            let (times, disk) = tokio::task::spawn_blocking(move || (sorted(times), disk::size(&files))).await.unwrap();
            let minute = Minute::of(&times, disk, store.len());
            tell(&mut report, minutes.len() + 1, &minute);
            minutes.push(minute);
        }
    }
    judge(&mut report, &minutes);
    if seconds < HOUR {
        report.say();
    } else {
        report.finish();
    }
    store.close().await.unwrap();
}

fn sorted(mut times: Vec<(Duration, bool)>) -> Vec<(Duration, bool)> {
    times.sort();
    times
}

impl Minute {
    /// `times` are those of the requests, and whether they were answered.
    fn of(times: &[(Duration, bool)], disk: u64, records: u64) -> Self {
        let (answered, refused): (Vec<_>, Vec<_>) = times.iter().partition(|(_, is_answered)| *is_answered);
        let times: Vec<_> = answered.iter().map(|(time, _)| *time).collect();
        let millis = |share| micros(quantile(&times, share)) / 1e3;
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        Self {
            p50: millis(0.5),
            p99: millis(0.99),
            longest: millis(1.0),
            answered: answered.len(),
            refused: refused.len(),
            resident: mebibytes(memory(std::process::id(), "VmRSS:")),
            disk: mebibytes(disk),
            records,
        }
    }
}

fn tell(report: &mut Report, number: usize, minute: &Minute) {
    let Minute { p50, p99, longest, answered, refused, resident, disk, records } = *minute;
    let name = format!("minute {number}");
    let mut row = |group: &str, unit, value| report.row(group, &name, unit, Estimate::exact(value));
    row("requests a second", "requests/s", answered as f64 / MINUTE.as_secs_f64());
    row("refused", "requests", refused as f64);
    row("p50", "ms", p50);
    row("p99", "ms", p99);
    row("longest", "ms", longest);
    row("memory", "MiB", resident);
    row("disk", "MiB", disk);
    row("records", "records", records as f64);
}

fn judge(report: &mut Report, minutes: &[Minute]) {
    let longest = minutes.iter().map(|minute| minute.longest).fold(0.0, f64::max);
    let refused = minutes.iter().map(|minute| minute.refused).sum::<usize>() as f64;
    report.at_most("refused requests", Estimate::exact(refused), 0.0);
    report.at_most("longest stall, ms", Estimate::exact(longest), LONGEST_STALL);
    let warm = minutes.get(WARM..).unwrap_or_default();
    let third = warm.len() / 3;
    if third == 0 {
        return;
    }
    let median = |part: &[Minute], of: fn(&Minute) -> f64| Estimate::of(part.iter().map(of).collect()).median;
    let growth = |of| Estimate::exact(median(&warm[warm.len() - third..], of) / median(&warm[..third], of));
    report.at_most("memory, last third over first", growth(|minute| minute.resident), MOST_GROWTH);
    report.at_most("disk, last third over first", growth(|minute| minute.disk), MOST_GROWTH);
}
