use std::io::{Error, ErrorKind};

use super::*;
use crate::screen::Screen;

/// What a report has found, and its grade.
fn reported(add: impl FnOnce(&mut Report) -> Result<(), Failure>) -> String {
    let mut report = Report::new(Screen { is_json: true });
    add(&mut report).unwrap();
    format!("{report:?}")
}

#[test]
fn why_a_directory_is_not_opened_decides_what_is_said_of_it() {
    let (path, reason) = (|| "store".into(), || "why".to_owned());
    let io = |kind| OpenError::Io { action: "reading", path: path(), source: Error::from(kind) };
    for (error, grade) in [
        (OpenError::Lost { path: path(), last: 1, missing: None, since: None, reason: reason() }, Grade::Damaged),
        (OpenError::Database { path: path(), reason: reason() }, Grade::Damaged),
        (OpenError::LockMissing { path: path() }, Grade::Damaged),
        (OpenError::Format { path: path(), format: 9, known: 1 }, Grade::OtherRelease),
        (OpenError::Incompatible { path: path(), reason: reason() }, Grade::OtherRelease),
        (io(ErrorKind::PermissionDenied), Grade::Refused),
        (io(ErrorKind::NotFound), Grade::NotTested),
        (OpenError::InUse { path: path() }, Grade::NotTested),
        (OpenError::NotFound { path: path() }, Grade::NotTested),
        (OpenError::NotAStore { path: path(), found: reason() }, Grade::NotTested),
        (OpenError::OtherEngine { path: path(), found: reason(), engine: "sled" }, Grade::NotTested),
    ] {
        let found = reported(|report| not_opened(&error, report));
        assert!(found.contains(&format!("grade: {grade:?} ")), "{error:?}: {found}");
    }
}

#[test]
fn less_than_a_gibibyte_of_free_space_is_to_be_looked_at() {
    let full = "3 records; 1023 MiB of the disk are free, and a full disk refuses new keys";
    for (free, grade, said) in [
        (Some((1 << 30) - 1), Grade::Unclear, full),
        (Some(1 << 30), Grade::Good, "3 records; 1 GiB of the disk are free"),
        (Some(7 << 30), Grade::Good, "3 records; 7 GiB of the disk are free"),
        (None, Grade::Good, "3 records"),
    ] {
        let mut gauges = Gauges::default();
        (gauges.records, gauges.free_bytes) = (Some(3), free);
        let found = reported(|report| space(&gauges, report));
        let has = |part: &str| found.contains(part);
        assert!(has(&format!("grade: {grade:?} ")) && has(&format!("String({said:?})")), "{free:?}: {found}");
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
        assert!(found.contains(said) && found.contains("grade: Good "), "{mode:o}: {found}");
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
    for (ahead, grade) in [(0, Grade::Good), (5_900, Grade::Good), (3_600_000, Grade::Clock)] {
        checkpoint.set_modified(SystemTime::now() + Duration::from_millis(ahead)).unwrap();
        let found = said();
        assert!(found.contains(&format!("grade: {grade:?} ")), "{ahead} ms: {found}");
        assert!(grade == Grade::Good || found.contains("the store was written to 59m "), "{found}");
    }
}
