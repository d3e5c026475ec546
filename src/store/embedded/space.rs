//! The limits of a store, and the free space of its disk.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The limits of a store. If one is reached, new keys are refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Expired records that are not swept yet count too.
    pub(crate) max_records: u64,
    /// The bytes of all outcomes.
    pub(crate) max_bytes: u64,
    /// The bytes of the disk that are left free; `None` for a part of the disk.
    pub(crate) min_free: Option<u64>,
}

impl Limits {
    /// Logs a WARN if a limit is zero, so that no record fits.
    pub(super) fn warn(self, path: &Path) {
        let Self { max_records, max_bytes, .. } = self;
        if max_records == 0 || max_bytes == 0 {
            let path = path.display();
            tracing::warn!(target: "tower_idempotency", %path, max_records, max_bytes, "a limit is zero: every new key is refused");
        }
    }
}

/// The most bytes of the disk that are left free by default.
pub const MAX_DEFAULT_FREE: u64 = 1 << 30;
/// By default, one part in this many of the disk is left free.
const PARTS: u64 = 10;

/// The bytes of a disk.
struct Bytes {
    total: u64,
    free: u64,
    /// Those that users may still use.
    available: u64,
}

#[cfg(unix)]
fn bytes_of_disk(path: &Path) -> Option<Bytes> {
    let stats = rustix::fs::statvfs(path).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(stats.f_frsize);
    Some(Bytes { total: bytes(stats.f_blocks), free: bytes(stats.f_bfree), available: bytes(stats.f_bavail) })
}

#[cfg(not(unix))]
fn bytes_of_disk(path: &Path) -> Option<Bytes> {
    let stats = fs4::statvfs(path).ok()?;
    Some(Bytes { total: stats.total_space(), free: stats.free_space(), available: stats.available_space() })
}

/// Knows whether the disk has too little free space. The writer checks this, because it waits for the disk anyway when
/// the disk hangs.
#[derive(Debug, Default)]
pub(super) struct Space {
    is_low: AtomicBool,
    /// The free bytes of the disk, and one more; 0 if they are not known.
    free: AtomicU64,
}

impl Space {
    pub(super) fn is_low(&self) -> bool {
        self.is_low.load(Ordering::Relaxed)
    }

    /// Returns the bytes of the disk that users may still use, as of the last look.
    pub(super) fn free(&self) -> Option<u64> {
        self.free.load(Ordering::Relaxed).checked_sub(1)
    }

    /// Asks the operating system. If it does not say, or the limit is 0, nothing is refused.
    pub(super) fn look(&self, path: &Path, limits: Limits) {
        let bytes = bytes_of_disk(path);
        let known = bytes.as_ref().map_or(0, |bytes| bytes.available.saturating_add(1));
        self.free.store(known, Ordering::Relaxed);
        let is_low = bytes.is_some_and(|Bytes { total, free, available }| {
            // Space that is free but not available is reserved for the system, not for users.
            let usable = total.saturating_sub(free.saturating_sub(available));
            available < limits.min_free.unwrap_or_else(|| by_default(usable))
        });
        if self.is_low.swap(is_low, Ordering::Relaxed) != is_low {
            let path = path.display();
            if is_low {
                tracing::error!(
                    target: "tower_idempotency", %path,
                    "the disk has less free than min_free_space: no new key is taken until it has more"
                );
            } else {
                tracing::info!(target: "tower_idempotency", %path, "the disk has room again");
            }
        }
    }
}

/// Returns how many bytes are left free of a disk of which users may use `usable` bytes.
fn by_default(usable: u64) -> u64 {
    (usable / PARTS).min(MAX_DEFAULT_FREE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_low(min_free: Option<u64>, path: &Path) -> bool {
        let space = Space::default();
        space.look(path, Limits { max_records: 1, max_bytes: 1, min_free });
        space.is_low()
    }

    #[test]
    fn a_tenth_of_the_disk_is_left_and_at_most_1_gib() {
        assert_eq!(by_default(640), 64);
        assert_eq!(by_default(1 << 50), 1 << 30);
    }

    #[test]
    fn what_is_free_is_compared_and_what_nobody_says_refuses_nothing() {
        let directory = tempfile::tempdir().unwrap();
        assert!(is_low(Some(u64::MAX), directory.path()));
        assert!(!is_low(Some(1), directory.path()));
        assert!(!is_low(Some(0), directory.path()));
        assert!(!is_low(Some(u64::MAX), &directory.path().join("nothing")));
    }
}
