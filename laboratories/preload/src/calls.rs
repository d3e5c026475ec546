//! The functions of the C library that this one replaces.
//!
//! Each does its work by a bare system call, so that no function here calls itself: a file function of Rust's standard
//! library would call these functions again.

use std::sync::atomic::{AtomicU64, Ordering};

use libc::{c_char, c_int, c_long, c_uint, c_void, iovec, mode_t, off_t, size_t, ssize_t, syscall};

use crate::fault::{FAILED, Kind};
use crate::lab::{Lab, Turn, lab};
use crate::log::Event;
use crate::system::{end, exists};

/// Changes a file's content by a call that returns `whole` if it does all of its work. `note` records the change. It
/// gets the file's place and the call's result.
fn change(
    descriptor: c_int,
    whole: usize,
    call: impl FnOnce() -> c_long,
    note: impl FnOnce(&mut Turn<'_>, &[u8], u64),
) -> c_long {
    let Some(lab) = lab().filter(|lab| lab.place_of(descriptor).is_some()) else { return call() };
    if let Some(instead) = lab.faults.strike(Kind::Write, whole as c_long) {
        return instead;
    }
    let mut turn = lab.lock();
    let result = call();
    // The place is looked up again: the file may have been renamed before this turn.
    if let (Ok(done), Some(place)) = (u64::try_from(result), lab.place_of(descriptor)) {
        note(&mut turn, &place, done);
    }
    result
}

/// Changes a directory's entries at a path, which begins at the descriptor `from` if it is relative. If `call`
/// succeeds, `event` records the change.
///
/// # Safety
/// `path` is a string of C.
unsafe fn entry(
    from: c_int,
    path: *const c_char,
    call: impl FnOnce() -> c_long,
    event: impl FnOnce(&mut Turn<'_>, &[u8]),
) -> c_long {
    // SAFETY: as the caller promises.
    let place = |lab: &'static Lab| Some((lab, unsafe { lab.place_at(from, path) }?));
    let Some((lab, place)) = lab().and_then(place) else { return call() };
    if let Some(instead) = lab.faults.strike(Kind::Entry, FAILED) {
        return instead;
    }
    let mut turn = lab.lock();
    let result = call();
    if result >= 0 {
        event(&mut turn, &place);
    }
    result
}

/// The bytes that a call has written.
///
/// # Safety
/// `buffer` holds at least `written` bytes.
unsafe fn bytes<'a>(buffer: *const c_void, written: u64) -> &'a [u8] {
    // SAFETY: as the caller promises; no buffer is longer than memory.
    unsafe { std::slice::from_raw_parts(buffer.cast(), written as usize) }
}

/// The position at which a descriptor's next byte is read or written.
fn position(descriptor: c_int) -> u64 {
    // SAFETY: the call changes nothing.
    let position = unsafe { syscall(libc::SYS_lseek, descriptor, 0, libc::SEEK_CUR) };
    position as u64
}

#[unsafe(no_mangle)]
unsafe extern "C" fn write(descriptor: c_int, buffer: *const c_void, count: size_t) -> ssize_t {
    // SAFETY: the arguments are the caller's.
    let call = || unsafe { syscall(libc::SYS_write, descriptor, buffer, count) };
    change(descriptor, count, call, |turn, path, written| {
        let offset = position(descriptor) - written;
        // SAFETY: `written` bytes of the caller's buffer were written.
        turn.write_down(&Event::Write { path, offset, data: unsafe { bytes(buffer, written) } });
    }) as ssize_t
}

#[unsafe(no_mangle)]
unsafe extern "C" fn writev(descriptor: c_int, chunks: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the arguments are the caller's.
    let call = || unsafe { syscall(libc::SYS_writev, descriptor, chunks, count) };
    // SAFETY: the caller's array has `count` chunks.
    let whole = (0..count as usize).map(|index| unsafe { (*chunks.add(index)).iov_len }).sum();
    change(descriptor, whole, call, |turn, path, written| {
        let mut data = Vec::new();
        for index in 0..count as usize {
            // SAFETY: the caller's array has `count` chunks, each with the length that it states.
            let chunk = unsafe { &*chunks.add(index) };
            data.extend_from_slice(unsafe { bytes(chunk.iov_base, chunk.iov_len as u64) });
        }
        data.truncate(written as usize);
        turn.write_down(&Event::Write { path, offset: position(descriptor) - written, data: &data });
    }) as ssize_t
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(descriptor: c_int, buffer: *const c_void, count: size_t, offset: off_t) -> ssize_t {
    // SAFETY: the arguments are the caller's.
    let call = || unsafe { syscall(libc::SYS_pwrite64, descriptor, buffer, count, offset) };
    change(descriptor, count, call, |turn, path, written| {
        // SAFETY: `written` bytes of the caller's buffer were written.
        turn.write_down(&Event::Write { path, offset: offset as u64, data: unsafe { bytes(buffer, written) } });
    }) as ssize_t
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite(descriptor: c_int, buffer: *const c_void, count: size_t, offset: off_t) -> ssize_t {
    // SAFETY: the same function.
    unsafe { pwrite64(descriptor, buffer, count, offset) }
}

/// Reads a file. This changes nothing. It can fail, or hang.
fn reading(descriptor: c_int, call: impl FnOnce() -> c_long) -> ssize_t {
    let lab = lab().filter(|lab| lab.place_of(descriptor).is_some());
    lab.and_then(|lab| lab.faults.strike(Kind::Read, FAILED)).unwrap_or_else(call) as ssize_t
}

#[unsafe(no_mangle)]
unsafe extern "C" fn read(descriptor: c_int, buffer: *mut c_void, count: size_t) -> ssize_t {
    // SAFETY: the arguments are the caller's.
    reading(descriptor, || unsafe { syscall(libc::SYS_read, descriptor, buffer, count) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pread64(descriptor: c_int, buffer: *mut c_void, count: size_t, offset: off_t) -> ssize_t {
    // SAFETY: the arguments are the caller's.
    reading(descriptor, || unsafe { syscall(libc::SYS_pread64, descriptor, buffer, count, offset) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pread(descriptor: c_int, buffer: *mut c_void, count: size_t, offset: off_t) -> ssize_t {
    // SAFETY: the same function.
    unsafe { pread64(descriptor, buffer, count, offset) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn ftruncate64(descriptor: c_int, length: off_t) -> c_int {
    // SAFETY: the arguments are the caller's.
    let call = || unsafe { syscall(libc::SYS_ftruncate, descriptor, length) };
    let note = |turn: &mut Turn<'_>, path: &[u8], _| turn.write_down(&Event::Truncate { path, length: length as u64 });
    change(descriptor, 0, call, note) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn ftruncate(descriptor: c_int, length: off_t) -> c_int {
    // SAFETY: the same function.
    unsafe { ftruncate64(descriptor, length) }
}

/// Syncs a file. A sync that has succeeded covers the writes from before its beginning. Other threads may write
/// meanwhile.
fn sync(descriptor: c_int, is_fsync: bool, call: impl FnOnce() -> c_long) -> c_int {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let Some((lab, path)) = lab().and_then(|lab| Some((lab, lab.place_of(descriptor)?))) else {
        return call() as c_int;
    };
    let is_journal = is_fsync && path.ends_with(b".jnl");
    let is_open = |other| lab.place_of(other).as_deref() == Some(&*path);
    if let Some(instead) = lab.faults.strike_sync(descriptor, &path, is_journal, is_open) {
        return instead as c_int;
    }
    let (number, path) = (NUMBER.fetch_add(1, Ordering::Relaxed), path.as_slice());
    lab.lock().write_down(&Event::SyncBegins { path, number });
    let result = call();
    if result >= 0 {
        lab.lock().write_down(&Event::SyncEnds { path, number });
    }
    result as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fsync(descriptor: c_int) -> c_int {
    // SAFETY: the arguments are the caller's.
    sync(descriptor, true, || unsafe { syscall(libc::SYS_fsync, descriptor) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdatasync(descriptor: c_int) -> c_int {
    if lab().is_some_and(|lab| lab.faults.ignore_fdatasync() && lab.place_of(descriptor).is_some()) {
        return 0;
    }
    // SAFETY: the arguments are the caller's.
    sync(descriptor, false, || unsafe { syscall(libc::SYS_fdatasync, descriptor) })
}

/// This is no sync: it waits for the disk's controller, not for the disk, and leaves out the file's length. It can fail
/// as a sync can.
#[unsafe(no_mangle)]
unsafe extern "C" fn sync_file_range(descriptor: c_int, offset: off_t, count: off_t, flags: c_uint) -> c_int {
    let lab = lab().filter(|lab| lab.place_of(descriptor).is_some());
    if let Some(instead) = lab.and_then(|lab| lab.faults.strike(Kind::Sync, 0)) {
        return instead as c_int;
    }
    // SAFETY: the arguments are the caller's.
    (unsafe { syscall(libc::SYS_sync_file_range, descriptor, offset, count, flags) }) as c_int
}

/// Opens a file. This changes the directory if it makes a file, and the file if it empties it.
#[unsafe(no_mangle)]
unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the arguments are the caller's.
    let call = || unsafe { syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, mode) };
    if flags & (libc::O_CREAT | libc::O_TRUNC) == 0 {
        return call() as c_int;
    }
    // One process at a time is in the laboratory, and sled's threads don't race to make a file.
    // SAFETY: the path is the caller's.
    let existed = unsafe { exists(path) };
    if existed && flags & libc::O_TRUNC == 0 {
        return call() as c_int;
    }
    // SAFETY: the path is the caller's.
    let opened = unsafe {
        entry(libc::AT_FDCWD, path, call, |turn, path| {
            let length = 0;
            turn.write_down(&if existed { Event::Truncate { path, length } } else { Event::Create(path) });
        })
    };
    opened as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the same function.
    unsafe { open64(path, flags, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mkdir(path: *const c_char, mode: mode_t) -> c_int {
    // SAFETY: the arguments are the caller's.
    let call = || unsafe { syscall(libc::SYS_mkdirat, libc::AT_FDCWD, path, mode) };
    // SAFETY: the path is the caller's.
    (unsafe { entry(libc::AT_FDCWD, path, call, |turn, path| turn.write_down(&Event::MakeDirectory(path))) }) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: the arguments are the caller's.
    let call = || unsafe { syscall(libc::SYS_renameat2, libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0) };
    // SAFETY: the paths are the caller's.
    let renamed = unsafe {
        entry(libc::AT_FDCWD, from, call, |turn, from| {
            // A name outside the directory counts as no name.
            let to = lab().and_then(|lab| lab.place_at(libc::AT_FDCWD, to));
            turn.write_down(&to.as_ref().map_or(Event::Remove(from), |to| Event::Rename(from, to)));
        })
    };
    renamed as c_int
}

/// Removes a file, or with `AT_REMOVEDIR` a directory.
#[unsafe(no_mangle)]
unsafe extern "C" fn unlinkat(from: c_int, path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the arguments are the caller's.
    let call = || unsafe { syscall(libc::SYS_unlinkat, from, path, flags) };
    // SAFETY: the path is the caller's.
    (unsafe { entry(from, path, call, |turn, path| turn.write_down(&Event::Remove(path))) }) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: the arguments are the caller's.
    unsafe { unlinkat(libc::AT_FDCWD, path, 0) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rmdir(path: *const c_char) -> c_int {
    // SAFETY: the arguments are the caller's.
    unsafe { unlinkat(libc::AT_FDCWD, path, libc::AT_REMOVEDIR) }
}

/// Ends the process between two events, so that each change that was made is recorded.
#[unsafe(no_mangle)]
extern "C" fn abort() -> ! {
    let _turn = lab().map(Lab::lock);
    end(134)
}
