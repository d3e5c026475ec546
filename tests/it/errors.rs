//! The texts of a store's errors.

use tower_idempotency::store::{OpenError, StoreError};

#[test]
fn what_main_prints_of_an_error_is_its_text_and_its_source_s() {
    let source = std::io::Error::other("no space");
    let error = OpenError::Io { action: "writing", path: "a/b".into(), source };
    let printed = format!("{error:?}");
    assert!(printed.contains(&error.to_string()) && printed.ends_with("writable: no space)"), "{printed}");
    let error = StoreError::Unavailable { reason: "it was closed".into(), source: None };
    assert_eq!(format!("{error:?}"), format!("StoreError({error})"));
}
