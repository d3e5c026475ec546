//! A shortage of descriptors or memory: how it is told from other failures, and the descriptors that are kept for it.

use std::fs::File;
use std::io;

use parking_lot::Mutex;

/// The number of descriptors that are kept. To write a table takes fewer than ten, and to merge some tables about 30.
const KEPT: usize = 32;

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

/// Descriptors that are kept open, so that an engine that has to write a file finds some when connections have taken
/// all others.
#[derive(Debug)]
pub(in crate::store) struct Reserve {
    /// The file of which they are copies.
    of: File,
    kept: Mutex<Vec<File>>,
}

impl Reserve {
    /// Returns a reserve that is full, if so many descriptors are left. They are copies of `of`.
    pub(in crate::store) fn new(of: File) -> Self {
        let reserve = Self { of, kept: Mutex::default() };
        reserve.fill();
        reserve
    }

    /// Fills the reserve. Returns whether it is full.
    pub(in crate::store) fn fill(&self) -> bool {
        self.open_into(&mut self.kept.lock())
    }

    /// Returns whether as many descriptors are left as the reserve has when it is full.
    pub(in crate::store) fn has_more(&self) -> bool {
        self.open_into(&mut Vec::new())
    }

    /// Closes what it holds, so that other threads can open files.
    pub(in crate::store) fn lend(&self) {
        self.kept.lock().clear();
    }

    /// Calls `open`. If it fails for want of a descriptor, lends the reserve, and calls it again.
    pub(in crate::store) fn open<T>(&self, mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match open() {
            Err(error) if is_shortage(&error) => {
                self.lend();
                open()
            }
            opened => opened,
        }
    }

    fn open_into(&self, files: &mut Vec<File>) -> bool {
        while files.len() < KEPT {
            match self.of.try_clone() {
                Ok(file) => files.push(file),
                Err(_) => return false,
            }
        }
        true
    }
}
