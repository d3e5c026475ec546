use std::io::{Error, ErrorKind};

use super::*;
use crate::screen::Screen;

/// What a report has found, and its verdict.
fn reported(add: impl FnOnce(&mut Report) -> Result<(), Failure>) -> String {
    let mut report = Report::new(Screen::new(true));
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
