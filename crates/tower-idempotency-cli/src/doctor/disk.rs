//! What the kernel counts of the disk of a directory.

use std::path::Path;

/// A disk whose writes the kernel counts.
#[derive(Debug)]
pub(super) struct Disk {
    /// The file with its counts.
    counts: String,
}

impl Disk {
    /// Returns the disk of a directory. `None` if the kernel does not count its writes, as on a file system of a
    /// network, or over several disks.
    #[cfg(target_os = "linux")]
    pub(super) fn of(directory: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let device = std::fs::metadata(directory).ok()?.dev();
        // The C library's `major` and `minor`.
        let major = (device >> 8 & 0xfff) | (device >> 32 & !0xfff);
        let minor = (device & 0xff) | (device >> 12 & !0xff);
        let disk = Self { counts: format!("/sys/dev/block/{major}:{minor}/stat") };
        disk.written().map(|_| disk)
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn of(_: &Path) -> Option<Self> {
        None
    }

    /// Returns the bytes that were written to it since the machine started.
    pub(super) fn written(&self) -> Option<u64> {
        let counts = std::fs::read_to_string(&self.counts).ok()?;
        // The kernel's documentation of block devices numbers them: the seventh is of sectors, which have 512 bytes.
        counts.split_whitespace().nth(6)?.parse::<u64>().ok()?.checked_mul(512)
    }
}
