//! The space that files take.

use std::fs::{DirEntry, Metadata, read_dir};
use std::path::Path;

/// Returns the bytes that a directory takes on disk, with those below it.
///
/// # Panics
/// If it is not there.
pub fn size(directory: &Path) -> u64 {
    let entries = read_dir(directory).expect("it is there").map(|entry| entry.expect("it can be read"));
    let size = |entry: DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size(&entry.path()),
        Ok(metadata) => blocks(&metadata),
        // The file was removed meanwhile.
        Err(_) => 0,
    };
    entries.map(size).sum()
}

#[cfg(unix)]
fn blocks(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(metadata) * 512
}

#[cfg(not(unix))]
fn blocks(metadata: &Metadata) -> u64 {
    metadata.len()
}
