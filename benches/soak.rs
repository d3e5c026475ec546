//! Measures a store over an hour in which new keys come and go.
//!
//! `cargo bench --features fjall --bench soak -- fjall`, or `-- sled`: 10,000 new keys a second, each kept for a
//! minute, under `Refuse`. `SOAK=60` takes a quick look of so many seconds, whose figures are not kept. A request is
//! timed from the moment at which it is due, so that a stall delays all that are due meanwhile; the load's own clock
//! adds up to 2 ms.
//!
//! fjall syncs its journal, and begins another one, while all writes wait (fjall-rs/fjall#282). So the p99 of the
//! seconds in which it does is compared with that of the others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a bench reports to its terminal")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use testkit::bench::disk;
use testkit::bench::estimate::Estimate;
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

/// In the place of the time of a request that was refused.
const REFUSED: u32 = u32::MAX;
/// In ms.
const LONGEST_STALL: f64 = 100.0;
/// Of the last third, of the first one.
const MOST_GROWTH: f64 = 1.1;

/// What was seen in a second: how long each request took in µs, or [`REFUSED`], and whether the journal became another
/// one. It is small, because the memory of the process is measured.
struct Second {
    requests: Vec<u32>,
    is_rotated: bool,
}

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
    /// The p99 of each second, and whether the journal was rotated in it.
    seconds: Vec<(f64, bool)>,
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
    let command = if D::NAME == SledStore::NAME {
        "cargo bench --features fjall --bench soak -- sled"
    } else {
        "cargo bench --features fjall --bench soak"
    };
    let mut report = Report::new(name, command, question);
    let directory = tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap();
    let store = D::open(directory.path()).unwrap();
    let layer = layer(store.clone(), OnInterrupted::Refuse).retention(RETENTION);
    let app = bare(SMALL).layer(layer).with_state(());
    let times = Arc::new(Mutex::new(Vec::new()));
    let mut ticks = tokio::time::interval(TICK);
    let (began, mut minutes, mut minute, mut evaluated) = (Instant::now(), Vec::new(), Vec::new(), None);
    let mut journal = newest_journal(directory.path());
    for tick in 0..seconds * 1_000 {
        ticks.tick().await;
        let due = began + TICK * u32::try_from(tick).unwrap();
        for number in 0..AT_ONCE {
            let (app, times) = (app.clone(), Arc::clone(&times));
            tokio::spawn(async move {
                let Ok(answer) = app.oneshot(request(Some(&key(tick * AT_ONCE + number)))).await;
                let took = u32::try_from(due.elapsed().as_micros()).unwrap();
                times.lock().unwrap().push(if answer.status() == 200 { took } else { REFUSED });
            });
        }
        if !(tick + 1).is_multiple_of(1_000) {
            continue;
        }
        let now = newest_journal(directory.path());
        let is_rotated = std::mem::replace(&mut journal, now) != now;
        minute.push(Second { requests: std::mem::take(&mut *times.lock().unwrap()), is_rotated });
        if minute.len() == 60 {
            let (seconds, files, records) = (std::mem::take(&mut minute), directory.path().to_owned(), store.len());
            // No request is sent while this waits, so it waits for the minute before.
            let next = tokio::task::spawn_blocking(move || Minute::of(seconds, &files, records));
            if let Some(evaluated) = evaluated.replace(next) {
                add(&mut report, &mut minutes, evaluated.await.unwrap());
            }
        }
    }
    if let Some(evaluated) = evaluated {
        add(&mut report, &mut minutes, evaluated.await.unwrap());
    }
    judge(&mut report, &minutes);
    if seconds < HOUR {
        report.say();
    } else {
        report.finish();
    }
    store.close().await.unwrap();
}

/// Returns the number of the journal that fjall writes to. sled has none.
fn newest_journal(directory: &Path) -> Option<u64> {
    let names = directory.read_dir().unwrap().map(|entry| entry.unwrap().file_name());
    names.filter_map(|name| name.to_str()?.strip_suffix(".jnl")?.parse().ok()).max()
}

impl Minute {
    fn of(seconds: Vec<Second>, files: &Path, records: u64) -> Self {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let (mut all, mut sent, mut each) = (Vec::new(), 0, Vec::new());
        for Second { mut requests, is_rotated } in seconds {
            sent += requests.len();
            requests.retain(|took| *took != REFUSED);
            if !requests.is_empty() {
                each.push((millis(&mut requests, 0.99), is_rotated));
            }
            all.append(&mut requests);
        }
        Self {
            p50: millis(&mut all, 0.5),
            p99: millis(&mut all, 0.99),
            longest: millis(&mut all, 1.0),
            answered: all.len(),
            refused: sent - all.len(),
            resident: mebibytes(memory(std::process::id(), "VmRSS:")),
            disk: mebibytes(disk::size(files)),
            records,
            seconds: each,
        }
    }
}

/// Returns this share's quantile of the times, in ms. It takes little time, because the store needs the processors.
fn millis(times: &mut [u32], share: f64) -> f64 {
    // There are none if all requests were refused.
    let Some(last) = times.len().checked_sub(1) else { return f64::NAN };
    let (_, took, _) = times.select_nth_unstable((last as f64 * share).round() as usize);
    f64::from(*took) / 1e3
}

fn add(report: &mut Report, minutes: &mut Vec<Minute>, minute: Minute) {
    tell(report, minutes.len() + 1, &minute);
    minutes.push(minute);
}

fn tell(report: &mut Report, number: usize, minute: &Minute) {
    let Minute { p50, p99, longest, answered, refused, resident, disk, records, .. } = *minute;
    let name = format!("minute {number}");
    let mut row = |group: &str, unit, value| report.row(group, &name, unit, Estimate::exact(value));
    row("requests a second", "requests/s", answered as f64 / MINUTE.as_secs_f64());
    row("refused", "requests", refused as f64);
    if answered > 0 {
        row("p50", "ms", p50);
        row("p99", "ms", p99);
        row("longest", "ms", longest);
    }
    row("memory", "MiB", resident);
    row("disk", "MiB", disk);
    row("records", "records", records as f64);
}

fn judge(report: &mut Report, minutes: &[Minute]) {
    let seconds: Vec<_> = minutes.iter().flat_map(|minute| &minute.seconds).collect();
    for (name, rotated) in [("p99 of a second with a rotation", true), ("p99 of a second without", false)] {
        let p99: Vec<_> = seconds.iter().filter(|(_, is)| *is == rotated).map(|(p99, _)| *p99).collect();
        if !p99.is_empty() {
            let name = format!("{name}, of {}", p99.len());
            report.row("the journal's rotation (fjall)", &name, "ms", Estimate::of(p99));
        }
    }
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
