//! The log. Each event has these parts, with numbers in little-endian order: its kind in one byte; the length of its
//! path in 4 bytes; the length of its data in 4; a number in 8; the path; the data. Paths are relative to the
//! directory, whose own path is empty.
//!
//! | kind | event | number | data |
//! |---|---|---|---|
//! | 0 | a process begins; it has no path | its id | |
//! | 1 | a file was made | | |
//! | 2 | a directory was made | | |
//! | 3 | a file or a directory was renamed | | the new name |
//! | 4 | a name was removed | | |
//! | 5 | bytes were written | their offset | the bytes |
//! | 6 | a file was cut or made longer | its new length | |
//! | 7 | a sync begins | | the sync's number |
//! | 8 | a sync has succeeded | | the sync's number |
//!
//! A file that was removed and is still open has a path that ends with ` (deleted)`.

use std::ffi::OsString;

use libc::c_int;

use crate::system::{die, open};

/// An event to record.
pub(crate) enum Event<'a> {
    Create(&'a [u8]),
    MakeDirectory(&'a [u8]),
    Rename(&'a [u8], &'a [u8]),
    Remove(&'a [u8]),
    Write { path: &'a [u8], offset: u64, data: &'a [u8] },
    Truncate { path: &'a [u8], length: u64 },
    SyncBegins { path: &'a [u8], number: u64 },
    SyncEnds { path: &'a [u8], number: u64 },
}

/// An open log. Several processes, one after the other, write to the same file.
pub(crate) struct Log(c_int);

impl Log {
    pub(crate) fn open(path: OsString) -> Self {
        let log = Self(open(path, libc::O_WRONLY | libc::O_APPEND));
        log.put(0, u64::from(std::process::id()), &[], &[]);
        log
    }

    pub(crate) fn append(&self, event: &Event<'_>) {
        match event {
            Event::Create(path) => self.put(1, 0, path, &[]),
            Event::MakeDirectory(path) => self.put(2, 0, path, &[]),
            Event::Rename(from, to) => self.put(3, 0, from, to),
            Event::Remove(path) => self.put(4, 0, path, &[]),
            Event::Write { path, offset, data } => self.put(5, *offset, path, data),
            Event::Truncate { path, length } => self.put(6, *length, path, &[]),
            Event::SyncBegins { path, number } => self.put(7, *number, path, &[]),
            Event::SyncEnds { path, number } => self.put(8, *number, path, &[]),
        }
    }

    fn put(&self, kind: u8, number: u64, path: &[u8], data: &[u8]) {
        let mut bytes = Vec::with_capacity(17 + path.len() + data.len());
        bytes.push(kind);
        for length in [path.len(), data.len()] {
            let Ok(length) = u32::try_from(length) else { die("over 4 GiB in one call") };
            bytes.extend_from_slice(&length.to_le_bytes());
        }
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(path);
        bytes.extend_from_slice(data);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            // SAFETY: the bytes are there.
            let written = unsafe { libc::syscall(libc::SYS_write, self.0, rest.as_ptr(), rest.len()) };
            match usize::try_from(written).ok().and_then(|written| rest.get(written..)) {
                Some(left) => rest = left,
                None => die("the log can't be written"),
            }
        }
    }
}
