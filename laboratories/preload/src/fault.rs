//! Faults: the n-th call of some kinds fails, or never returns.
//!
//! `DISK_PRELOAD_FAULT` is `KINDS N WHAT`, such as `write,entry 17 always:28` or `sync 3 hang`:
//! - KINDS, with commas: `write` (bytes written, a file cut), `entry` (something made, renamed or removed), `sync`
//!   (`fsync`, `fdatasync`, and `sync_file_range`, which reports failed writes too), `read` (`read` and `pread64`),
//!   `journal` (`fsync`, and no other sync, of a file whose name ends in `.jnl`; if it fails, the next sync of the
//!   file by each other descriptor that is open then fails too, as the kernel reports a failed write to each once);
//! - N, from 1, counts the calls of these kinds;
//! - WHAT: `once:ERRNO`, that call fails; `always:ERRNO`, it and all that follow; `hang`, it never returns;
//!   `hang-while:PATH`, it and all that follow return once there is no such file.
//!
//! `DISK_PRELOAD_COUNT` names a file that holds five numbers of 8 bytes in little-endian order, up to date with every
//! call: the numbers of calls of the kinds `write`, `entry` and `sync`, the number of calls of all kinds that failed or
//! hung on command, and the number of calls of the kind `read`.
//!
//! `DISK_PRELOAD_LIE` is for the controls. In them the disk is worse than any disk for which the store makes a promise:
//! - `fdatasync`: each one succeeds, and no data becomes durable;
//! - `faults`: a call of the kind `write` or `sync` that is to fail is left out and succeeds. A change of a name can't
//!   be left out that way, because the process that makes a file then writes to it.

use std::ffi::{CStr, CString, OsString};
use std::sync::{Mutex, PoisonError};

use libc::{c_int, c_long};

use crate::system::{die, exists, fail_with, open};

/// A kind of call that can fail.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Write,
    Entry,
    Sync,
    Read,
    Journal,
}

impl Kind {
    /// Returns whether the caller may find out only later that nothing was done.
    fn can_be_left_out(self) -> bool {
        matches!(self, Self::Write | Self::Sync)
    }
}

/// The return value of a call that has failed.
pub(crate) const FAILED: c_long = -1;

const KINDS: [(&str, Kind); 5] = [
    ("write", Kind::Write),
    ("entry", Kind::Entry),
    ("sync", Kind::Sync),
    ("read", Kind::Read),
    ("journal", Kind::Journal),
];
/// More than the number of any descriptor of a program in a laboratory.
const DESCRIPTORS: c_int = 1_024;
/// The time between two checks whether calls still hang, in milliseconds.
const LOOK_EVERY: c_int = 2;

#[derive(Clone, Copy)]
enum What {
    Once(c_int),
    Always(c_int),
    Hang,
    HangWhile(&'static CStr),
}

struct Fault {
    kinds: Vec<Kind>,
    n: u64,
    what: What,
}

#[derive(Default)]
struct Counts {
    of_kind: [u64; KINDS.len()],
    // The calls of the fault's kinds.
    seen: u64,
    struck: u64,
}

/// The fault to come, and the calls so far.
pub(crate) struct Faults {
    fault: Option<Fault>,
    lie: Option<Lie>,
    counts: Mutex<Counts>,
    file: Option<c_int>,
    // The descriptors that have not reported a failed sync of their file yet, with its place.
    owing: Mutex<Vec<(c_int, Vec<u8>)>>,
}

/// The calls that succeed without doing their work.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lie {
    Fdatasync,
    Faults,
}

impl Faults {
    pub(crate) fn from_environment() -> Self {
        let fault = std::env::var("DISK_PRELOAD_FAULT")
            .ok()
            .map(|text| parse(&text).unwrap_or_else(|| die("DISK_PRELOAD_FAULT is not KINDS N WHAT")));
        let file = std::env::var_os("DISK_PRELOAD_COUNT").map(|path: OsString| open(path, libc::O_WRONLY));
        let lie = std::env::var("DISK_PRELOAD_LIE").ok().map(|text| match text.as_str() {
            "fdatasync" => Lie::Fdatasync,
            "faults" => Lie::Faults,
            _ => die("DISK_PRELOAD_LIE is neither fdatasync nor faults"),
        });
        Self { fault, lie, counts: Mutex::default(), file, owing: Mutex::default() }
    }

    /// Returns whether `fdatasync` does nothing.
    pub(crate) fn ignore_fdatasync(&self) -> bool {
        self.lie == Some(Lie::Fdatasync)
    }

    /// Counts a call on the directory that returns `whole` if it does all of its work. If the call is struck, its work
    /// is not done: returns its return value, with `errno` set if it fails. May never return.
    pub(crate) fn strike(&self, kind: Kind, whole: c_long) -> Option<c_long> {
        match self.count(kind)? {
            What::Once(_) | What::Always(_) if self.lie == Some(Lie::Faults) && kind.can_be_left_out() => Some(whole),
            What::Once(errno) | What::Always(errno) => {
                fail_with(errno);
                Some(FAILED)
            }
            What::Hang => loop {
                // SAFETY: the call waits for no descriptor, for ever.
                unsafe { libc::poll(std::ptr::null_mut(), 0, -1) };
            },
            What::HangWhile(path) => {
                // SAFETY: `path` is a string of C.
                while unsafe { exists(path.as_ptr()) } {
                    // SAFETY: the call waits for no descriptor.
                    unsafe { libc::poll(std::ptr::null_mut(), 0, LOOK_EVERY) };
                }
                None
            }
        }
    }

    /// The same for a sync by `descriptor`, of the kind `journal` or not. `is_open` says whether another descriptor is
    /// of the same file, which is at `place`.
    pub(crate) fn strike_sync(
        &self,
        descriptor: c_int,
        place: &[u8],
        is_journal: bool,
        is_open: impl Fn(c_int) -> bool,
    ) -> Option<c_long> {
        let mut owing = self.owing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = owing.iter().position(|(owes, of)| *owes == descriptor && of == place) {
            owing.swap_remove(index);
            fail_with(libc::EIO);
            return Some(FAILED);
        }
        if is_journal && let Some(instead) = self.strike(Kind::Journal, 0) {
            let others = (0..DESCRIPTORS).filter(|other| *other != descriptor);
            owing.extend(others.filter(|other| is_open(*other)).map(|other| (other, place.to_vec())));
            // The search has changed it.
            fail_with(libc::EIO);
            return Some(instead);
        }
        drop(owing);
        self.strike(Kind::Sync, 0)
    }

    fn count(&self, kind: Kind) -> Option<What> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.of_kind[kind as usize] += 1;
        let mut struck = None;
        if let Some(fault) = self.fault.as_ref().filter(|fault| fault.kinds.contains(&kind)) {
            counts.seen += 1;
            let goes_on = matches!(fault.what, What::Always(_) | What::HangWhile(_));
            let strikes = counts.seen == fault.n || (counts.seen > fault.n && goes_on);
            struck = strikes.then_some(fault.what);
        }
        counts.struck += u64::from(struck.is_some());
        self.report(&counts);
        struck
    }

    fn report(&self, counts: &Counts) {
        let Some(file) = self.file else { return };
        let [writes, entries, syncs, reads, _] = counts.of_kind;
        let bytes = [writes, entries, syncs, counts.struck, reads].map(u64::to_le_bytes).concat();
        // SAFETY: the bytes are there.
        let written = unsafe { libc::syscall(libc::SYS_pwrite64, file, bytes.as_ptr(), bytes.len(), 0) };
        if usize::try_from(written) != Ok(bytes.len()) {
            die("the counts can't be written");
        }
    }
}

fn parse(text: &str) -> Option<Fault> {
    let mut words = text.split(' ');
    let (kinds, n, what) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
    let kind = |name: &str| KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind);
    let kinds = kinds.split(',').map(kind).collect::<Option<_>>()?;
    let what = match what.split_once(':') {
        None if what == "hang" => What::Hang,
        Some(("once", errno)) => What::Once(errno.parse().ok()?),
        Some(("always", errno)) => What::Always(errno.parse().ok()?),
        Some(("hang-while", path)) => What::HangWhile(Box::leak(CString::new(path).ok()?.into_boxed_c_str())),
        _ => return None,
    };
    Some(Fault { kinds, n, what })
}
