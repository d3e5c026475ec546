//! What the calls share: which directory is looked at, the order of its changes, and the little that is asked of the
//! system.

use std::ffi::{CStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use libc::{c_char, c_int, c_long};

use crate::fault::Faults;
use crate::log::{Event, Log};

/// The laboratory of this process.
pub(crate) struct Lab {
    directory: Vec<u8>,
    // Held from before a change is made until it is written down, so that the log's order is the directory's.
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
    /// Keeps everybody else from changing the directory.
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

    /// Where a path leads, below the directory.
    ///
    /// # Safety
    /// `path` is a string of C.
    pub(crate) unsafe fn place_at(&self, path: *const c_char) -> Option<Vec<u8>> {
        // SAFETY: as the caller promises.
        self.below(unsafe { CStr::from_ptr(path) }.to_bytes())
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

/// Makes `errno` the reason of a failure.
pub(crate) fn fail_with(errno: c_int) {
    // SAFETY: the thread's own number of its last error.
    unsafe { *libc::__errno_location() = errno };
}

/// Whether there is something at `path`.
///
/// # Safety
/// `path` is a string of C.
pub(crate) unsafe fn exists(path: *const c_char) -> bool {
    // SAFETY: as the caller promises.
    unsafe { libc::syscall(libc::SYS_faccessat, libc::AT_FDCWD, path, libc::F_OK) == 0 }
}

/// Opens a file of our own.
pub(crate) fn open(path: OsString, flags: c_int) -> c_int {
    let mut bytes = path.as_bytes().to_vec();
    bytes.push(0);
    let flags = flags | libc::O_CREAT | libc::O_CLOEXEC;
    // SAFETY: the path ends with a zero.
    let opened = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, bytes.as_ptr(), flags, 0o600) };
    match c_int::try_from(opened) {
        Ok(descriptor @ 0..) => descriptor,
        _ => die("a file of its own can't be opened"),
    }
}

/// Ends the process: a laboratory that goes on without its log shows nothing.
pub(crate) fn die(why: &str) -> ! {
    let line = format!("disk-preload: {why}\n");
    // SAFETY: the bytes are there.
    unsafe { libc::syscall(libc::SYS_write, 2, line.as_ptr(), line.len()) };
    end(70)
}

/// Ends the process now, and all its threads.
pub(crate) fn end(status: c_long) -> ! {
    loop {
        // SAFETY: it does not return.
        unsafe { libc::syscall(libc::SYS_exit_group, status) };
    }
}
