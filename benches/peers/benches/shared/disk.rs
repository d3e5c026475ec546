//! The disk alone, whose sync each commit waits for.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use testkit::bench::estimate::{Estimate, micros};
use testkit::bench::report::Report;

const SYNCS: usize = 200;

/// A part is void if the syncs after it take this many times as long as before it, or as little.
const STEADY: f64 = 1.25;

/// Measures how long it takes to write a page in the directory for temporary files and to sync it.
pub(crate) fn measure(report: &mut Report) -> Estimate {
    let time = sync();
    report.row("disk", "a page, written and synced", "µs", time);
    time
}

/// Measures it again, after this part. Nothing can be said of the part if the disk has become another one.
pub(crate) fn measure_after(report: &mut Report, part: &str, before: Estimate) -> Estimate {
    let after = sync();
    report.row("disk", &format!("the same, after {part}"), "µs", after);
    let ratio = after.median / before.median;
    if !(1.0 / STEADY..=STEADY).contains(&ratio) {
        println!("VOID: after {part}, a sync takes {ratio:.2} times as long as before it");
        report.void(&format!("{part}/"));
    }
    after
}

fn sync() -> Estimate {
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
    Estimate::of(times)
}
