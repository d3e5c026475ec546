//! Tests the directory of an embedded store.

use std::path::Path;
use std::time::SystemTime;

use tower_idempotency::internals::MAX_DEFAULT_FREE;
use tower_idempotency::store::{Gauges, OpenError, Store as _};

use super::claims::Fault;
use super::grade::Grade;
use super::report::Report;
use super::{file_system, records, syncs};
use crate::address::Directory;
use crate::failure::Failure;
use crate::open::{opened, owner_is_other, reason};

/// The files by which a directory is known as a store's, and its time.
const LOCK_FILE: &str = "tower-idempotency.lock";
const CHECKPOINT_FILE: &str = "tower-idempotency.checkpoint";

pub(super) async fn test(directory: &Directory, report: &mut Report) -> Result<(), Failure> {
    let path = directory.path.as_path();
    // Nothing is written to a directory that is not a store's.
    if path.join(LOCK_FILE).exists() {
        if let Some(other) = owner_is_other(path) {
            return report.found("rights", Grade::NotTested, other);
        }
        rights(path, report)?;
        let canonical = std::fs::canonicalize(path).map_err(|error| Failure::Store(error.to_string()))?;
        file_system::test(&canonical, report)?;
        syncs::test(&canonical, report)?;
        clock(path, report)?;
    }
    report.found("copies", Grade::OneCopy, "its disk is the only copy, but for backups")?;
    let store = match opened(directory).await {
        Ok(store) => store,
        Err(error) => return not_opened(&error, report),
    };
    report.good("open", "no record is missing, and the format is this release's")?;
    space(&store.gauges(), report)?;
    match records::test(store, directory).await {
        Ok(seen) => report.all_good(seen),
        Err(Fault::Broken(check, fault)) => report.found(check, Grade::ClaimIgnored, fault),
        Err(Fault::Failed(why)) => report.found("claim twice", Grade::Damaged, why),
    }
}

fn not_opened(error: &OpenError, report: &mut Report) -> Result<(), Failure> {
    let grade = match error {
        OpenError::Lost { .. } | OpenError::Database { .. } | OpenError::LockMissing { .. } => Grade::Damaged,
        OpenError::Format { .. } | OpenError::Incompatible { .. } => Grade::OtherRelease,
        OpenError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => Grade::Refused,
        _ => Grade::NotTested,
    };
    report.found("open", grade, reason(error))
}

/// Answers may have personal data.
#[cfg(unix)]
fn rights(path: &Path, report: &mut Report) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(path).map_or(0o700, |directory| directory.permissions().mode() & 0o777);
    match mode & 0o077 {
        0 => report.good("rights", "the directory belongs to this user, and no other can read it"),
        _ => report
            .note("rights", format!("its mode was {mode:o}, so other users may have read it; each opening closes it")),
    }
}

#[cfg(not(unix))]
fn rights(_: &Path, report: &mut Report) -> Result<(), Failure> {
    report.unclear("rights", "they are not known on this system")
}

/// The checkpoint was written by an earlier process, so by a clock that was right then.
fn clock(path: &Path, report: &mut Report) -> Result<(), Failure> {
    let checked = std::fs::metadata(path.join(CHECKPOINT_FILE)).and_then(|file| file.modified());
    match checked.map(|checked| checked.duration_since(SystemTime::now()).unwrap_or_default()) {
        Ok(ahead) if ahead.as_secs() > 5 => {
            let ahead = humantime::format_duration(std::time::Duration::from_secs(ahead.as_secs()));
            report.found(
                "clock",
                Grade::Clock,
                format!("the store was written to {ahead} from now, by this machine's clock"),
            )
        }
        Ok(_) => report.good("clock", "the store was last written to in the past"),
        Err(_) => report.note("clock", "the store has no checkpoint whose time could be compared"),
    }
}

fn space(gauges: &Gauges, report: &mut Report) -> Result<(), Failure> {
    let (records, free) = (gauges.records.unwrap_or_default(), gauges.free_bytes);
    match free {
        // The default of `min_free_space` is no more.
        Some(free) if free < MAX_DEFAULT_FREE => report.unclear(
            "space",
            format!("{records} records; {} MiB of the disk are free, and a full disk refuses new keys", free >> 20),
        ),
        Some(free) => report.good("space", format!("{records} records; {} GiB of the disk are free", free >> 30)),
        None => report.note("space", format!("{records} records")),
    }
}

#[cfg(test)]
mod tests;
