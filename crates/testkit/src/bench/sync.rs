//! The disk alone, whose sync each durable write waits for.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::estimate::{Estimate, micros};
use super::report::Report;

const SYNCS: usize = 200;
/// A part is void if the syncs after it take this many times as long as before it, or as little.
const STEADY: f64 = 1.25;
/// The time in which a store writes what a part has left over.
const SETTLED: Duration = Duration::from_secs(2);

/// The disk of a directory, and how long a sync of it took last.
#[derive(Debug)]
pub struct SyncedDisk {
    directory: PathBuf,
    last: Estimate,
}

impl SyncedDisk {
    /// Measures how long it takes to write a page in this directory and to sync it, before a part of a bench.
    ///
    /// # Panics
    /// If the directory can't be written to.
    pub fn measured(report: &mut Report, directory: &Path, before: &str) -> Self {
        let last = sync(directory);
        report.row("disk", &format!("a page, written and synced, before {before}"), "µs", last);
        Self { directory: directory.to_owned(), last }
    }

    /// Measures it again, after this part. Nothing can be said of the goals of the part if the disk has become another
    /// one: their names have the part's and a slash.
    ///
    /// # Panics
    /// As [`measured`](Self::measured) does.
    pub fn measure_after(&mut self, report: &mut Report, part: &str) {
        std::thread::sleep(SETTLED);
        let after = sync(&self.directory);
        report.row("disk", &format!("the same, after {part}"), "µs", after);
        let ratio = after.median / self.last.median;
        if !(1.0 / STEADY..=STEADY).contains(&ratio) {
            println!("VOID: after {part}, a sync takes {ratio:.2} times as long as before it");
            report.void(&format!("{part}/"));
        }
        self.last = after;
    }
}

fn sync(directory: &Path) -> Estimate {
    let path = directory.join(format!("sync-{}", std::process::id()));
    let mut file = File::create(&path).expect("the directory can be written to");
    let mut times = Vec::new();
    for _ in 0..SYNCS {
        let began = Instant::now();
        file.rewind().and_then(|()| file.write_all(&[7; 8192])).expect("there is room");
        file.sync_data().expect("it is synced");
        times.push(micros(began.elapsed()));
    }
    std::fs::remove_file(path).expect("it is there");
    Estimate::of(times)
}
