//! A shortage of descriptors, and how it is seen before it is met.

use std::fs::File;
use std::io;

/// The number of descriptors that have to be left. To write a table takes fewer than ten, and to merge some about 30.
const NEEDED: usize = 32;

/// Says whether descriptors are left. None are kept in reserve: as soon as they were free, waiting connections would
/// take them before an engine's thread does. The file is what they are tried with.
#[derive(Debug)]
pub(in crate::store) struct Descriptors(pub(in crate::store) File);

impl Descriptors {
    /// Returns whether as many descriptors are left as an engine's thread needs.
    pub(in crate::store) fn are_left(&self) -> bool {
        let files: io::Result<Vec<File>> = (0..NEEDED).map(|_| self.0.try_clone()).collect();
        files.is_ok()
    }
}
