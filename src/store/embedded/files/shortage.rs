//! A shortage of descriptors or memory: how it differs from other failures, and how it is seen before it is met.

#[cfg(feature = "fjall")]
use std::fs::File;
use std::io;

/// The number of descriptors that have to be left. To write a table takes fewer than ten, and to merge some about 30.
#[cfg(feature = "fjall")]
const NEEDED: usize = 32;

/// Returns whether the process, or the system, had no descriptor or memory left. The operation has then changed
/// nothing, and may be tried again.
pub(in crate::store) fn is_shortage(error: &io::Error) -> bool {
    #[cfg(unix)]
    {
        use rustix::io::Errno;
        matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
    }
    #[cfg(not(unix))]
    {
        error.kind() == io::ErrorKind::OutOfMemory
    }
}

/// Says whether descriptors are left. None are kept in reserve: as soon as they were free, waiting connections would
/// take them before an engine's thread does.
#[cfg(feature = "fjall")]
#[derive(Debug)]
pub(in crate::store) struct Descriptors(File);

#[cfg(feature = "fjall")]
impl Descriptors {
    /// `file` is what they are tried with.
    pub(in crate::store) fn new(file: File) -> Self {
        Self(file)
    }

    /// Returns whether as many descriptors are left as an engine's thread needs.
    pub(in crate::store) fn are_left(&self) -> bool {
        let files: io::Result<Vec<File>> = (0..NEEDED).map(|_| self.0.try_clone()).collect();
        files.is_ok()
    }
}
