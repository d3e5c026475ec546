//! The bytes that fjall writes for each first request to a young store: those that it counts, those that get to the
//! disk, and those that the system counts for this process (`write_bytes`). The latter are of whole parts of the cache:
//! a part may be far larger than what was changed in it.

use std::fs::read_to_string;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Instant;

use testkit::bench::exchange::{SMALL, protected};
use tower_idempotency::store::Store as _;
use tower_idempotency::{FjallStore, OnInterrupted};

use crate::filled::{FILLERS, directory, send_all};

/// The number of new keys for which a line is printed.
const WINDOW: u64 = 25_000;

/// Prints a line for each window of the first `records` new keys.
pub(crate) async fn say(records: u64) {
    let directory = directory();
    let store = FjallStore::builder().max_records(u64::MAX).open(directory.path()).unwrap();
    let app = protected(SMALL, store.clone(), OnInterrupted::Rerun);
    println!("KB/request:   the process's   the disk's   counted as written   as merged   (requests/s)");
    let now = || {
        let gauges = store.gauges();
        [of_this_process(), of_the_disk(directory.path()), gauges.written.unwrap(), gauges.merged.unwrap()]
    };
    let mut before = now();
    for window in 0..records / WINDOW {
        let began = Instant::now();
        send_all(&app, FILLERS, (window * WINDOW..(window + 1) * WINDOW).collect()).await;
        let (rate, after) = (WINDOW as f64 / began.elapsed().as_secs_f64(), now());
        let [process, disk, written, merged] =
            [0, 1, 2, 3].map(|place| (after[place] - before[place]) as f64 / 1_000.0 / WINDOW as f64);
        let until = (window + 1) * WINDOW;
        println!("{until:>11} {process:>15.1} {disk:>12.1} {written:>20.1} {merged:>11.1}   {rate:>12.0}");
        before = after;
    }
    drop(app);
    store.close().await.unwrap();
}

/// The bytes that the system counts as written by this process.
fn of_this_process() -> u64 {
    let io = read_to_string("/proc/self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok()).unwrap()
}

/// The bytes that were written to the disk of this directory, by any process.
fn of_the_disk(directory: &Path) -> u64 {
    let device = directory.metadata().unwrap().dev();
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00));
    let stat = read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).expect("a directory on a disk");
    let sectors: u64 = stat.split_whitespace().nth(6).unwrap().parse().unwrap();
    sectors * 512
}
