//! The memory and the disk space of a record, measured in a process of its own.

use std::process::Command;

use testkit::bench::disk;
use testkit::bench::estimate::Estimate;
use testkit::bench::exchange::{SMALL, protected, send};
use testkit::bench::report::Report;
use testkit::lab::disk::Disk;
use testkit::process::memory;
use tower_idempotency::{FjallStore, OnInterrupted, SledStore};

use crate::MANY;
use crate::filled::{directory, send_all};

/// The argument with which the bench starts itself.
const CHILD: &str = "--memory";
const MOST_RESIDENT: [(&str, f64); 2] = [(SledStore::NAME, 300.0), (FjallStore::NAME, 150.0)];
/// The bytes that the store keeps in memory by default: the engine's pages, and recent outcomes.
const CACHES: f64 = ((64 + 16) << 20) as f64;

/// Returns the engine and the number of records that this process is to hold, if it was started for that.
pub(crate) fn counted() -> Option<(String, usize)> {
    let mut arguments = std::env::args().skip_while(|argument| argument != CHILD).skip(1);
    Some((arguments.next()?, arguments.next()?.parse().ok()?))
}

/// Prints the memory and the disk space of `records` written records.
pub(crate) async fn count<D: Disk>(records: usize) {
    let directory = directory();
    let store = D::open(directory.path()).unwrap();
    let app = protected(SMALL, store.clone(), OnInterrupted::Rerun);
    // The store needs this memory for any number of records.
    send(&app, Some("one")).await;
    let before = resident();
    // The replays fill the caches.
    for _ in 0..2 {
        send_all(&app, 512, (0..records as u64).collect()).await;
    }
    println!("resident {}", resident() - before);
    drop(app);
    store.close().await.unwrap();
    println!("disk {}", disk::size(directory.path()));
}

pub(crate) fn tell<D: Disk>(report: &mut Report, records: usize) {
    let this = std::env::current_exe().unwrap();
    let output = Command::new(this).args([CHILD, D::NAME, &records.to_string()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    let figure =
        |name: &str| -> f64 { said.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap() };
    let (resident, disk, group) = (figure("resident"), figure("disk"), format!("{}, {records} records", D::NAME));
    report.row(&group, "resident", "MiB", Estimate::exact(resident / f64::from(1 << 20)));
    report.row(&group, "disk, a record", "B", Estimate::exact(disk / records as f64));
    // Fewer records leave room in the caches.
    if records >= MANY {
        assert!(resident > CACHES, "the caches are not full");
        let beyond = Estimate::exact((resident - CACHES) / records as f64);
        report.row(&group, "resident beyond the caches, a record", "B", beyond);
        let most = MOST_RESIDENT.iter().find(|(engine, _)| *engine == D::NAME && records == MANY);
        if let Some((_, most)) = most {
            report.at_most(&format!("{}/{MANY}/resident", D::NAME), beyond, *most);
        }
    }
}

/// Returns the bytes of this process that are in memory.
fn resident() -> i64 {
    i64::try_from(memory(std::process::id(), "VmRSS:")).unwrap()
}
