//! The disk while a day's records come and go. The bench sets the clock.

use std::time::Duration;

use testkit::bench::disk;
use testkit::bench::estimate::Estimate;
use testkit::bench::exchange::{SMALL, protected};
use testkit::bench::report::Report;
use testkit::lab::disk::{Disk, DiskBuilder as _, Table as _};
use tower_idempotency::OnInterrupted;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::test_util::ManualClock;

use crate::filled::{directory, send_all};

/// The number of records that come in an hour, and the hours for which each is kept.
const HOURLY: u64 = 8_000;
const DAY: u64 = 24;
const DAYS: u64 = 3;
const HOUR: Duration = Duration::from_secs(3_600);
const MOST_DISK: f64 = 4.0;

pub(crate) async fn tell<D: Disk>(report: &mut Report) {
    let directory = directory();
    let clock = ManualClock::new(Timestamp::from_millis(1_800_000_000_000));
    let store = D::builder().clock(clock.clone()).open(directory.path()).unwrap();
    let app = protected(SMALL, store.clone(), OnInterrupted::Refuse);
    let (mut next, mut ratios) = (0, Vec::new());
    for hour in 0..DAYS * DAY {
        send_all(&app, 64, (next..next + HOURLY).collect()).await;
        next += HOURLY;
        clock.advance(HOUR);
        // The writer looks once a second, and some of these hours pass in that time.
        assert!(store.len() <= DAY * HOURLY * 5 / 4, "sweeping keeps up: {} records", store.len());
        if hour > DAY {
            ratios.push(disk::size(directory.path()) as f64 / live(&store));
        }
    }
    let group = format!("{}, {} records live, {HOURLY} an hour come and go", D::NAME, DAY * HOURLY);
    report.row(&group, "live data", "MiB", Estimate::exact(live(&store) / f64::from(1 << 20)));
    let most = Estimate::exact(ratios.iter().copied().fold(0.0, f64::max));
    report.row(&group, "disk, of live data", "×", Estimate::of(ratios));
    report.row(&group, "disk, of live data, at most", "×", most);
    report.at_most(&format!("{}/churn/disk", D::NAME), most, MOST_DISK);
}

/// Returns the number of bytes of all keys and values in the store.
fn live<D: Disk>(store: &D) -> f64 {
    store.records().scan("").iter().map(|(key, value)| (key.len() + value.len()) as f64).sum()
}
