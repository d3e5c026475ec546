//! The embedded stores, as far as tests use what they have in common. So one test runs on each of them:
//!
//! ```ignore
//! on_both!(a_record_is_there_after_a_restart);
//! async fn a_record_is_there_after_a_restart<D: Disk>() {
//!     let (_directory, store) = on_disk(D::builder());
//! ```

use std::path::Path;
use std::{fs, io};

mod forward;
mod on_both;
mod on_sled;
mod traits;

tower_idempotency::with_fjall! {
    mod on_fjall;
}

pub use traits::{Disk, DiskBuilder, Sent, Table, View};

/// Reads a file of a store without the zeros at its end, of which a journal of fjall's has up to 64 MiB.
///
/// # Errors
/// Those of reading.
pub fn written(file: &Path) -> io::Result<Vec<u8>> {
    const ZEROS: [u8; 4_096] = [0; 4_096];
    let mut bytes = fs::read(file)?;
    while bytes.ends_with(&ZEROS) {
        bytes.truncate(bytes.len() - ZEROS.len());
    }
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    Ok(bytes)
}
