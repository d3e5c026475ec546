use std::io::{Error, ErrorKind};

use super::*;
use crate::screen::Screen;

/// What a report has found, and its verdict.
fn reported(add: impl FnOnce(&mut Report) -> Result<(), Failure>) -> String {
    let mut report = Report::new(Screen { is_json: true });
    add(&mut report).unwrap();
    format!("{report:?}")
}

#[test]
fn why_a_directory_is_not_opened_decides_what_is_said_of_it() {
    let (path, reason) = (|| "store".into(), || "why".to_owned());
    let io = |kind| OpenError::Io { action: "reading", path: path(), source: Error::from(kind) };
    for (error, verdict) in [
        (OpenError::Lost { path: path(), last: 1, missing: None, since: None, reason: reason() }, Verdict::Damaged),
        (OpenError::Database { path: path(), reason: reason() }, Verdict::Damaged),
        (OpenError::LockMissing { path: path() }, Verdict::Damaged),
        (OpenError::Format { path: path(), format: 9, known: 1 }, Verdict::OtherRelease),
        (OpenError::Incompatible { path: path(), reason: reason() }, Verdict::OtherRelease),
        (io(ErrorKind::PermissionDenied), Verdict::Refused),
        (io(ErrorKind::NotFound), Verdict::NotTested),
        (OpenError::InUse { path: path() }, Verdict::NotTested),
        (OpenError::NotFound { path: path() }, Verdict::NotTested),
        (OpenError::NotAStore { path: path(), found: reason() }, Verdict::NotTested),
        (OpenError::OtherEngine { path: path(), found: reason(), engine: "sled" }, Verdict::NotTested),
    ] {
        let found = reported(|report| not_opened(&error, report));
        assert!(found.contains(&format!("verdict: {verdict:?} ")), "{error:?}: {found}");
    }
}

#[test]
fn less_than_a_gibibyte_of_free_space_is_to_be_looked_at() {
    let full = "3 records; 1023 MiB of the disk are free, and a full disk refuses new keys";
    for (free, verdict, said) in [
        (Some((1 << 30) - 1), Verdict::Unclear, full),
        (Some(1 << 30), Verdict::Good, "3 records; 1 GiB of the disk are free"),
        (Some(7 << 30), Verdict::Good, "3 records; 7 GiB of the disk are free"),
        (None, Verdict::Good, "3 records"),
    ] {
        let mut gauges = Gauges::default();
        (gauges.records, gauges.free_bytes) = (Some(3), free);
        let found = reported(|report| space(&gauges, report));
        let has = |part: &str| found.contains(part);
        assert!(has(&format!("verdict: {verdict:?} ")) && has(&format!("String({said:?})")), "{free:?}: {found}");
    }
}

#[cfg(unix)]
#[test]
fn a_directory_that_others_may_read_is_said_to_have_been_open() {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    for (mode, said) in [
        (0o700, "the directory belongs to this user, and no other can read it"),
        (0o600, "the directory belongs to this user, and no other can read it"),
        (0o740, "its mode was 740, so"),
        (0o704, "its mode was 704, so"),
        (0o777, "its mode was 777, so"),
    ] {
        set_permissions(directory.path(), Permissions::from_mode(mode)).unwrap();
        let found = reported(|report| rights(directory.path(), report));
        assert!(found.contains(said) && found.contains("verdict: Good "), "{mode:o}: {found}");
    }
    set_permissions(directory.path(), Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_store_that_was_written_to_in_the_future_has_a_wrong_clock() {
    use std::time::Duration;
    let directory = tempfile::tempdir().unwrap();
    let said = || reported(|report| clock(directory.path(), report));
    assert!(said().contains("the store has no checkpoint whose time could be compared"));
    let checkpoint = std::fs::File::create(directory.path().join(CHECKPOINT_FILE)).unwrap();
    for (ahead, verdict) in [(0, Verdict::Good), (5_900, Verdict::Good), (3_600_000, Verdict::Clock)] {
        checkpoint.set_modified(SystemTime::now() + Duration::from_millis(ahead)).unwrap();
        let found = said();
        assert!(found.contains(&format!("verdict: {verdict:?} ")), "{ahead} ms: {found}");
        assert!(verdict == Verdict::Good || found.contains("the store was written to 59m "), "{found}");
    }
}
