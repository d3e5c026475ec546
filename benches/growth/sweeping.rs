//! Requests while expired records are deleted.

use std::time::{Duration, Instant};

use testkit::bench::estimate::{Estimate, Pairs, pairs};
use testkit::bench::exchange::{SMALL, bare, layer};
use testkit::bench::load::round;
use testkit::bench::report::Report;
use testkit::lab::disk::{Disk, DiskBuilder as _};
use tower_idempotency::OnInterrupted;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::test_util::ManualClock;

use crate::filled::{directory, send_all};

const CLIENTS: usize = 64;
const REQUESTS: usize = 6_400;
/// The number of records that expire at once.
const EXPIRE: u64 = 60_000;
const SOON: Duration = Duration::from_secs(3_600);
const LATER: Duration = Duration::from_secs(365 * 86_400);
const LEAST_SWEPT: f64 = 20_000.0;
const MOST_P99: f64 = 1.25;

pub(crate) async fn tell<D: Disk>(report: &mut Report) {
    let directory = directory();
    let clock = ManualClock::new(Timestamp::from_millis(1_800_000_000_000));
    let store = D::builder().clock(clock.clone()).open(directory.path()).unwrap();
    let over = |retention| {
        let layer = layer(store.clone(), OnInterrupted::Refuse).retention(retention);
        bare(SMALL).layer(layer).with_state(())
    };
    let (expiring, staying) = (over(SOON), over(LATER));
    let (mut next, mut serial) = (0, 1 << 40);
    let (mut p99, mut rates) = (Pairs { ours: Vec::new(), theirs: Vec::new() }, Vec::new());
    for _ in 0..pairs() {
        send_all(&expiring, 512, (next..next + EXPIRE).collect()).await;
        next += EXPIRE;
        p99.theirs.push(round(&staying, CLIENTS, REQUESTS, &mut serial).await.p99);
        clock.advance(SOON * 2);
        let mut before = store.len();
        // The loop ends once the first of the records are gone, which may take a second.
        while store.len() >= before {
            before = store.len();
            let mut few = serial;
            round(&staying, CLIENTS, CLIENTS, &mut few).await;
            serial = few;
        }
        let (began, before, first) = (Instant::now(), store.len(), serial);
        p99.ours.push(round(&staying, CLIENTS, REQUESTS, &mut serial).await.p99);
        let swept = before + (serial - first) - store.len();
        assert!(store.len() > before - EXPIRE, "there is more to be swept to the end");
        rates.push(swept as f64 / began.elapsed().as_secs_f64());
        while tower_idempotency::internals::Records::sweep(&store, 10_000).await.unwrap() > 0 {}
    }
    let group = format!("{}, {CLIENTS} at once, while {EXPIRE} records are swept", D::NAME);
    report.row(&group, "p99 without", "µs", p99.theirs());
    report.row(&group, "p99 meanwhile", "µs", p99.ours());
    report.row(&group, "ratio", "×", p99.ratio());
    let rates = Estimate::of(rates);
    report.row(&group, "swept", "records/s", rates);
    report.at_least(&format!("{}/sweeping/rate", D::NAME), rates, LEAST_SWEPT);
    report.at_most(&format!("{}/sweeping/p99", D::NAME), p99.ratio(), MOST_P99);
}
