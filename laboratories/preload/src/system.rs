//! The few functions that this library needs of the system, by bare system calls.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

use libc::{c_char, c_int, c_long};

/// Makes `errno` the reason of a failure.
pub(crate) fn fail_with(errno: c_int) {
    // SAFETY: the thread's own number of its last error.
    unsafe { *libc::__errno_location() = errno };
}

/// Returns whether there is a file or a directory at `path`.
///
/// # Safety
/// `path` is a string of C.
pub(crate) unsafe fn exists(path: *const c_char) -> bool {
    // SAFETY: as the caller promises.
    unsafe { libc::syscall(libc::SYS_faccessat, libc::AT_FDCWD, path, libc::F_OK) == 0 }
}

/// Opens a file of this library's own.
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
        // SAFETY: the call does not return.
        unsafe { libc::syscall(libc::SYS_exit_group, status) };
    }
}
