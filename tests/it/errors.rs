//! The texts of a store's errors.

use std::io::ErrorKind;

use tower_idempotency::store::{OpenError, StoreError};

#[test]
fn what_to_do_about_an_error_of_the_operating_system_is_what_helps() {
    let text = |source| OpenError::Io { action: "opening", path: "a".into(), source }.to_string();
    for (kind, advice) in [
        (ErrorKind::StorageFull, "has space"),
        (ErrorKind::Other, "has space"),
        (ErrorKind::PermissionDenied, "belongs to the user"),
        (ErrorKind::NotFound, "path is right"),
        (ErrorKind::WouldBlock, "no more threads"),
    ] {
        let text = text(kind.into());
        assert!(text.contains(advice), "{kind}: {text}");
    }
    // EMFILE, ENFILE and ENOMEM, on all systems that have them.
    #[cfg(all(unix, feature = "sled"))]
    for number in [24, 23, 12] {
        assert!(text(std::io::Error::from_raw_os_error(number)).contains("ulimit -n"), "{number}");
    }
}

#[test]
fn what_main_prints_of_an_error_is_its_text_and_its_source_s() {
    let source = std::io::Error::other("no space");
    let error = OpenError::Io { action: "writing", path: "a/b".into(), source };
    let printed = format!("{error:?}");
    assert!(printed.contains(&error.to_string()) && printed.ends_with("writable: no space)"), "{printed}");
    let error = StoreError::Unavailable { reason: "it was closed".into(), source: None };
    assert_eq!(format!("{error:?}"), format!("StoreError({error})"));
}
