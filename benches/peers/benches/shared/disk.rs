//! The disk alone, whose sync each commit waits for.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use testkit::bench::estimate::{Estimate, micros};
use testkit::bench::report::Report;

const SYNCS: usize = 200;

/// Measures how long it takes to write a page in the directory for temporary files and to sync it.
pub(crate) fn measure(report: &mut Report) {
    let path = std::env::temp_dir().join(format!("sync-{}", std::process::id()));
    let file = File::create(&path).expect("the directory for temporary files can be written to");
    let mut times = Vec::new();
    for _ in 0..SYNCS {
        let began = Instant::now();
        file.write_all_at(&[7; 8192], 0).expect("there is room");
        file.sync_data().expect("it is synced");
        times.push(micros(began.elapsed()));
    }
    std::fs::remove_file(path).expect("it is there");
    report.row("disk", "a page, written and synced", "µs", Estimate::of(times));
}
