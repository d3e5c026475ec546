//! The state that the calls share: the directory that is recorded, and the order of its changes.

use std::ffi::CStr;
use std::os::unix::ffi::OsStringExt as _;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use libc::{c_char, c_int};

use crate::fault::Faults;
use crate::log::{Event, Log};
use crate::system::fail_with;

/// The laboratory of this process.
pub(crate) struct Lab {
    directory: Vec<u8>,
    // The lock is held from before a change is made until it is recorded, so that the log has the directory's order.
    log: Mutex<Option<Log>>,
    pub(crate) faults: Faults,
}

/// The laboratory, if this process is in one.
pub(crate) fn lab() -> Option<&'static Lab> {
    static LAB: OnceLock<Option<Lab>> = OnceLock::new();
    LAB.get_or_init(|| {
        let directory = std::env::var_os("DISK_PRELOAD_DIRECTORY")?.into_vec();
        let log = std::env::var_os("DISK_PRELOAD_LOG").map(Log::open);
        Some(Lab { directory, log: Mutex::new(log), faults: Faults::from_environment() })
    })
    .as_ref()
}

impl Lab {
    /// Keeps other threads from changing the directory.
    pub(crate) fn lock(&self) -> Turn<'_> {
        Turn { log: self.log.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// The current path of a descriptor's file, below the directory; `None` if it is somewhere else.
    pub(crate) fn place_of(&self, descriptor: c_int) -> Option<Vec<u8>> {
        let link = format!("/proc/self/fd/{descriptor}\0");
        let mut path = [0_u8; libc::PATH_MAX as usize];
        let link = link.as_ptr().cast::<c_char>();
        // SAFETY: the link ends with a zero, and no more is written than there is room for.
        let length =
            unsafe { libc::syscall(libc::SYS_readlinkat, libc::AT_FDCWD, link, path.as_mut_ptr(), path.len()) };
        self.below(path.get(..usize::try_from(length).ok()?)?)
    }

    /// The place of a path, below the directory. `None` if it is somewhere else. A relative path begins at `from`, a
    /// descriptor.
    ///
    /// # Safety
    /// `path` is a string of C.
    pub(crate) unsafe fn place_at(&self, from: c_int, path: *const c_char) -> Option<Vec<u8>> {
        // SAFETY: as the caller promises.
        let path = unsafe { CStr::from_ptr(path) }.to_bytes();
        if from == libc::AT_FDCWD || path.starts_with(b"/") {
            return self.below(path);
        }
        let from = self.place_of(from)?;
        Some(if from.is_empty() { path.to_vec() } else { [from.as_slice(), path].join(&b'/') })
    }

    fn below(&self, path: &[u8]) -> Option<Vec<u8>> {
        let rest = path.strip_prefix(self.directory.as_slice())?;
        match rest {
            [] => Some(Vec::new()),
            [b'/', below @ ..] => Some(below.to_vec()),
            _ => None,
        }
    }
}

/// The right to change the directory.
pub(crate) struct Turn<'a> {
    log: MutexGuard<'a, Option<Log>>,
}

impl Turn<'_> {
    pub(crate) fn write_down(&mut self, event: &Event<'_>) {
        if let Some(log) = self.log.as_mut() {
            // SAFETY: the thread's own number of its last error.
            let errno = unsafe { *libc::__errno_location() };
            log.append(event);
            fail_with(errno);
        }
    }
}
