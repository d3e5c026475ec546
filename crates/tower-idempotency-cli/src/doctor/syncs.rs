//! Whether syncs do anything.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::claims::random;
use super::disk::Disk;
use super::file_system;
use super::grade::Grade;
use super::report::Report;
use crate::failure::Failure;

/// The file that is written and synced.
const PROBE: &str = "idem-doctor.probe";
/// The number of syncs, and the bytes before each.
const SYNCS: usize = 16;
const BYTES: usize = 64 * 1024;
/// No sync of so many bytes comes back from any disk sooner.
const IMPOSSIBLE: Duration = Duration::from_micros(5);
/// What is loaded before the C library may replace its calls.
const PRELOAD: &str = "LD_PRELOAD";
const PRELOAD_FILE: &str = "/etc/ld.so.preload";

/// Writes and syncs a file in the directory, and looks at what the disk does.
pub(super) fn test(directory: &Path, report: &mut Report) -> Result<(), Failure> {
    let disk = Disk::of(directory).filter(|_| !file_system::is_direct(directory));
    match measured(directory, disk.as_ref()) {
        Ok((median, reached)) => {
            let (grade, found) = judge(median, reached);
            report.found("syncs", grade, found)?;
        }
        Err(error) => report.unclear("syncs", format!("they could not be tried: {error}"))?,
    }
    let preloaded = std::env::var(PRELOAD).ok().or_else(|| std::fs::read_to_string(PRELOAD_FILE).ok());
    match preloaded.as_deref().map(str::trim).filter(|preloaded| !preloaded.is_empty()) {
        Some(preloaded) => {
            report.unclear("syncs", format!("{preloaded} is loaded before the C library, and may replace its syncs"))
        }
        None => report.note("syncs", "those of this process; a service with another environment may have others"),
    }
}

/// Judges syncs of which half took longer than `median`, by how many the disk has written as many bytes for; `None` if
/// its writes are not counted.
fn judge(median: Duration, reached: Option<usize>) -> (Grade, String) {
    let longest = Duration::from_micros(u64::try_from(median.as_micros()).unwrap_or(u64::MAX - 1) + 1);
    let longest = humantime::format_duration(longest);
    let each = format!("of {SYNCS} syncs of {} KiB, half took less than {longest}", BYTES / 1024);
    match reached {
        // While others write, some may look as if they had.
        Some(reached) if reached <= SYNCS / 2 => (
            Grade::NotDurable,
            format!("syncs do nothing: {each}, and the disk has written the data before {reached} of them returned"),
        ),
        _ if median < IMPOSSIBLE => (Grade::NotDurable, format!("syncs do nothing: {each}, and no disk is so fast")),
        Some(_) => (Grade::Good, format!("{each}, and the disk had written the data when they returned")),
        None => (Grade::Unclear, format!("{each}; the writes of this file system's disk can't be counted")),
    }
}

/// Returns the median of the times of syncs, and for how many the disk has written the data.
fn measured(directory: &Path, disk: Option<&Disk>) -> io::Result<(Duration, Option<usize>)> {
    let probe = Probe::new(directory)?;
    let (mut times, mut reached) = (Vec::with_capacity(SYNCS), 0);
    for _ in 0..SYNCS {
        // A file system may leave out or compress what is not random.
        let data: Vec<u8> = (0..BYTES / 32).flat_map(|_| random::<32>()).collect();
        (&probe.file).write_all(&data)?;
        let before = disk.and_then(Disk::written);
        let begin = Instant::now();
        probe.file.sync_data()?;
        times.push(begin.elapsed());
        let written = disk.and_then(Disk::written).zip(before).map(|(after, before)| after.saturating_sub(before));
        reached += usize::from(written.is_some_and(|written| written >= BYTES as u64));
    }
    times.sort();
    Ok((times[SYNCS / 2], disk.map(|_| reached)))
}

/// A file that goes when this is dropped.
struct Probe {
    path: PathBuf,
    file: File,
}

impl Probe {
    fn new(directory: &Path) -> io::Result<Self> {
        let path = directory.join(PROBE);
        // One of a test that was killed is replaced.
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
        Ok(Self { path, file })
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_that_leave_the_disk_alone_do_nothing() {
        let slow = Duration::from_millis(2);
        for (median, reached, grade) in [
            (slow, Some(SYNCS), Grade::Good),
            // Others have written meanwhile.
            (slow, Some(SYNCS - 1), Grade::Good),
            (slow, Some(0), Grade::NotDurable),
            (slow, Some(2), Grade::NotDurable),
            (slow, Some(SYNCS / 2), Grade::NotDurable),
            (slow, Some(SYNCS / 2 + 1), Grade::Good),
            (Duration::from_nanos(300), Some(SYNCS), Grade::NotDurable),
            (Duration::from_nanos(300), None, Grade::NotDurable),
            (slow, None, Grade::Unclear),
        ] {
            assert_eq!(judge(median, reached).0, grade, "{median:?} {reached:?}");
        }
    }
}
