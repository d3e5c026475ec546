//! Prepares a database before sled opens it, so that sled finds the end of its log even if the power is cut while it
//! opens.
//!
//! sled's log is a row of segments. Each begins with a header, which says how far the log was written by then: into the
//! segment before it, as a rule. sled begins to look for the log's end where the last header leads to, or where the
//! snapshot ends, by its name, if that is later. And when it opens a database, it overwrites the segments of which
//! nothing is needed any more, including that one. This does no harm as long as the snapshot is there that the same
//! opening wrote. But sled does not make that snapshot's name durable. If a power cut takes it away, or somebody
//! removes the file, sled finds no end, or a wrong one, **takes the database for an empty or an older one, and
//! overwrites the rest.**
//!
//! So before sled overwrites anything, the header of the segment in which sled's search will end is made to lead to
//! that segment itself, durably. It is the last segment that sled reaches: all segments before it, from the start of
//! the search, can be read to their ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use crate::store::OpenError;
use crate::store::embedded::directory::{broken, io_error};

const HEADER_BYTES: usize = 20;
/// In a header, sled stores numbers with these bits inverted, and the checksum with all its bits inverted.
const INVERTED: i64 = i64::MAX;
/// The longest header of a message. If no more than this is left of a segment, there is no further message.
const MESSAGE_HEADER_BYTES: usize = 32;
/// The kind of a message that says that the rest of the segment is empty, and the last kind there is. Overwritten bytes
/// are of kind 0.
const CAP: u8 = 2;
const LAST_KIND: u8 = 11;

/// Where in the log a segment begins, and how far the log was written by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    begins: i64,
    written: i64,
}

#[derive(Debug)]
struct Log {
    file: File,
    segment_bytes: usize,
    /// The headers of the segments, in their order in the file; `None` if one was overwritten, never written, or is
    /// damaged.
    headers: Vec<Option<Header>>,
    /// How far into the log the snapshot goes.
    snapshot: Option<i64>,
}

/// Where sled begins to look for the end of the log.
#[derive(Debug, PartialEq, Eq)]
enum Start {
    /// It begins in this segment.
    In(Header),
    /// It has nowhere to begin: the snapshot has everything, up to the end of a segment, and the next one has not
    /// begun.
    Nowhere,
    /// It begins in a segment that is missing.
    Missing,
}

/// Makes sure that sled finds the content of the database. `was_used` says that it cannot be empty.
pub(super) fn mark_the_end(path: &Path, segment_bytes: usize, was_used: bool) -> Result<(), OpenError> {
    let failed = || io_error("reading", path);
    let Some(mut log) = Log::read(path, segment_bytes).map_err(failed())? else { return Ok(()) };
    let start = match log.start() {
        Start::In(start) => start,
        Start::Missing if was_used => return Err(broken(path, "the end of its log is missing")),
        Start::Missing | Start::Nowhere => return Ok(()),
    };
    let end = log.end(start).map_err(failed())?;
    if end == start { Ok(()) } else { log.lead_to_itself(end).map_err(io_error("writing", &path.join("db"))) }
}

impl Log {
    /// Reads the log. Returns `None` if there is no log with segments of this size, or another process has it; sled
    /// will then report what is wrong.
    fn read(path: &Path, segment_bytes: usize) -> io::Result<Option<Self>> {
        let settings = match fs::read(path.join("conf")) {
            // sled makes this file anew.
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            settings => Some(settings?),
        };
        let expected = format!("segment_size: {segment_bytes}\n");
        if settings.is_some_and(|text| !text.windows(expected.len()).any(|line| line == expected.as_bytes())) {
            return Ok(None);
        }
        let mut file = match OpenOptions::new().read(true).write(true).open(path.join("db")) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(None),
            // The lock is released explicitly: a process that is just being started could inherit the descriptor and
            // hold the lock a little longer.
            _ => file.unlock()?,
        }
        let length = file.metadata()?.len();
        let mut headers = Vec::new();
        for at in (0..length.saturating_sub(HEADER_BYTES as u64 - 1)).step_by(segment_bytes) {
            let mut bytes = [0; HEADER_BYTES];
            file.seek(SeekFrom::Start(at))?;
            file.read_exact(&mut bytes)?;
            headers.push(Header::of(&bytes));
        }
        Ok(Some(Self { file, segment_bytes, headers, snapshot: snapshot(path)? }))
    }

    fn size(&self) -> i64 {
        i64::try_from(self.segment_bytes).unwrap_or(i64::MAX)
    }

    /// Returns where sled begins, by sled's own rules.
    fn start(&self) -> Start {
        let segment_of = |place: i64| place.max(0) / self.size() * self.size();
        let first = segment_of(self.snapshot.unwrap_or(0));
        let headers = || self.headers.iter().flatten().filter(|header| header.begins >= first);
        let leads_to = segment_of(headers().map(|header| header.written).fold(first, i64::max));
        match headers().find(|header| header.begins == leads_to) {
            Some(header) => Start::In(*header),
            None if headers().next().is_none() && self.snapshot.is_some_and(|until| until % self.size() == 0) => {
                Start::Nowhere
            }
            None => Start::Missing,
        }
    }

    /// Returns the segment in which sled will find the end of the log: the last one in a row, all of which but itself
    /// are read to their ends.
    fn end(&mut self, start: Header) -> io::Result<Header> {
        let mut end = start;
        while let Some(next) = self.at(end.begins + self.size()) {
            if !self.is_read_to_its_end(end)? {
                break;
            }
            end = next;
        }
        Ok(end)
    }

    fn at(&self, begins: i64) -> Option<Header> {
        self.headers.iter().flatten().find(|header| header.begins == begins).copied()
    }

    /// Moves to the place of a segment in the file.
    fn seek(&mut self, segment: Header) -> io::Result<u64> {
        let index = self.headers.iter().position(|header| *header == Some(segment)).unwrap_or(self.headers.len());
        self.file.seek(SeekFrom::Start(index as u64 * self.segment_bytes as u64))
    }

    fn is_read_to_its_end(&mut self, segment: Header) -> io::Result<bool> {
        self.seek(segment)?;
        let mut bytes = Vec::with_capacity(self.segment_bytes);
        (&self.file).take(self.segment_bytes as u64).read_to_end(&mut bytes)?;
        let number = u64::try_from(segment.begins / self.size()).unwrap_or(0);
        Ok(is_whole(&bytes, self.segment_bytes, number))
    }

    fn lead_to_itself(&mut self, segment: Header) -> io::Result<()> {
        self.seek(segment)?;
        self.file.write_all(&Header { begins: segment.begins, written: segment.begins }.to_bytes())?;
        self.file.sync_data()
    }
}

/// Returns how far the snapshot goes that sled will read: the last one, by its name.
fn snapshot(path: &Path) -> io::Result<Option<i64>> {
    let mut last = None;
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("snap."));
        last = last.max(number.and_then(|number| i64::from_str_radix(number, 16).ok()));
    }
    Ok(last)
}

/// Returns whether one message follows another up to the end of the segment with this number.
fn is_whole(segment: &[u8], segment_bytes: usize, number: u64) -> bool {
    let mut at = HEADER_BYTES;
    while at + MESSAGE_HEADER_BYTES <= segment_bytes {
        match segment.get(at..).and_then(|rest| message(rest, number)) {
            Some((CAP, _)) => return true,
            Some((_, length)) => at += length,
            None => return false,
        }
    }
    true
}

/// Returns the kind of the message that `bytes` begin with, and its length; `None` if it is not a message of this
/// segment.
///
/// A message is a checksum over everything that follows it, a byte for the kind, the length of the content, the number
/// of the segment, that of the page, and the content.
fn message(bytes: &[u8], number: u64) -> Option<(u8, usize)> {
    let (checksum, rest) = bytes.split_first_chunk::<4>()?;
    let (kind, rest) = rest.split_first()?;
    let (length, rest) = varint(rest)?;
    let (segment, rest) = varint(rest)?;
    let (_page, rest) = varint(rest)?;
    let header = bytes.get(4..bytes.len() - rest.len())?;
    let content = rest.get(..usize::try_from(length).ok()?)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(content);
    hasher.update(header);
    let fits = u32::from_le_bytes(*checksum) == !hasher.finalize();
    let is_of_this_segment = segment == number && (1..=LAST_KIND).contains(kind);
    (fits && is_of_this_segment).then_some((*kind, 4 + header.len() + content.len()))
}

/// Reads a number as sled writes it: a small one in a byte, a larger one after a byte that says how many follow.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let byte = |index: usize| rest.get(index).copied().map(u64::from);
    let (number, more) = match u64::from(*first) {
        first @ 0..=240 => (first, 0),
        first @ 241..=248 => (240 + 256 * (first - 241) + byte(0)?, 1),
        249 => (2_288 + 256 * byte(0)? + byte(1)?, 2),
        _ => {
            let count = usize::from(*first) - 247;
            let mut number = [0; 8];
            number.get_mut(..count)?.copy_from_slice(rest.get(..count)?);
            (u64::from_le_bytes(number), count)
        }
    };
    Some((number, &rest[more..]))
}

impl Header {
    /// Reads a header. Returns `None` if there is none, or its checksum does not fit.
    fn of(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let number = |at: usize| i64::from_le_bytes(std::array::from_fn(|index| bytes[at + index])) ^ INVERTED;
        let header = Self { begins: number(4), written: number(12) };
        (header.to_bytes() == *bytes).then_some(header)
    }

    fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let numbers = [self.begins, self.written].map(|number| (number ^ INVERTED).to_le_bytes()).concat();
        let checksum = !crc32fast::hash(&numbers);
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        bytes[4..].copy_from_slice(&numbers);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 1_000;

    fn header(begins: i64, written: i64) -> Option<Header> {
        Some(Header { begins, written })
    }

    fn start(headers: &[Option<Header>], snapshot: Option<i64>) -> Start {
        let file = tempfile::tempfile().unwrap();
        Log { file, segment_bytes: SIZE, headers: headers.to_vec(), snapshot }.start()
    }

    fn at(begins: i64, written: i64) -> Start {
        Start::In(Header { begins, written })
    }

    #[test]
    fn a_header_is_what_it_was_written_as() {
        let header = Header { begins: 3 << 24, written: (3 << 24) - 7 };
        let mut bytes = header.to_bytes();
        assert_eq!(Header::of(&bytes), Some(header));
        bytes[5] ^= 1;
        assert_eq!(Header::of(&bytes), None);
        assert_eq!(Header::of(&[0; HEADER_BYTES]), None);
    }

    #[test]
    fn sled_begins_where_the_last_header_leads_to_or_the_snapshot() {
        assert_eq!(start(&[header(0, -1)], None), at(0, -1));
        assert_eq!(start(&[header(0, -1), header(1_000, 990)], None), at(0, -1));
        let rest = header(5_000, 4_990);
        assert_eq!(start(&[None, header(4_000, 3_990), rest], Some(3_500)), at(4_000, 3_990));
        assert_eq!(start(&[None, rest], Some(5_100)), at(5_000, 4_990));
        assert_eq!(start(&[None, header(5_000, 5_000)], None), at(5_000, 5_000));
        assert_eq!(start(&[header(4_000, 3_990)], Some(5_000)), Start::Nowhere);
        assert_eq!(start(&[None, rest], None), Start::Missing);
        assert_eq!(start(&[None, rest], Some(4_100)), Start::Missing);
        assert_eq!(start(&[header(4_000, 3_990)], Some(5_100)), Start::Missing);
        assert_eq!(start(&[], None), Start::Missing);
    }

    /// Returns a message of segment 7.
    fn message_of(kind: u8, content: &[u8]) -> Vec<u8> {
        // The number 300 takes two bytes.
        let header = [&[kind, u8::try_from(content.len()).unwrap(), 7, 241, 60][..]].concat();
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(content);
        hasher.update(&header);
        [&(!hasher.finalize()).to_le_bytes()[..], &header, content].concat()
    }

    #[test]
    fn a_segment_is_whole_if_its_messages_lead_to_a_cap_or_to_its_end() {
        let head = [0; HEADER_BYTES];
        let two = [&head[..], &message_of(8, b"page"), &message_of(10, &[3; 200])].concat();
        let capped = [&two[..], &message_of(CAP, &[0; 9])].concat();
        assert!(is_whole(&capped, SIZE, 7));
        assert!(is_whole(&two, two.len() + MESSAGE_HEADER_BYTES - 1, 7));
        assert!(!is_whole(&two, SIZE, 7), "it goes on, with nothing");
        assert!(!is_whole(&[&two[..], &[0; 300]].concat(), SIZE, 7), "overwritten");
        assert!(!is_whole(&capped, SIZE, 8), "of another time");
        for torn in HEADER_BYTES..capped.len() {
            let mut bytes = capped.clone();
            bytes[torn] ^= 1;
            assert!(!is_whole(&bytes, SIZE, 7), "a flipped bit at {torn} went unseen");
        }
    }

    #[test]
    fn the_end_is_in_the_last_segment_before_which_all_is_whole() {
        let segment = |begins, contents: &[u8]| {
            let mut bytes = [&Header { begins, written: begins - 1 }.to_bytes()[..], contents].concat();
            bytes.resize(SIZE, 0);
            bytes
        };
        let capped = segment(7_000, &message_of(CAP, b""));
        let ends = |first: &[u8], second: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&[second, first].concat()).unwrap();
            let headers = [second, first].map(|bytes| Header::of(bytes.first_chunk().unwrap()));
            let mut log = Log { file, segment_bytes: SIZE, headers: headers.to_vec(), snapshot: None };
            log.end(headers[1].unwrap()).unwrap().begins
        };
        assert_eq!(ends(&capped, &segment(8_000, &[])), 8_000);
        assert_eq!(ends(&capped, &segment(9_000, &[])), 7_000, "the next one is missing");
        assert_eq!(ends(&segment(7_000, &[]), &segment(8_000, &[])), 7_000, "torn");
    }

    #[test]
    fn numbers_are_read_as_sled_writes_them() {
        let read = |bytes: &[u8]| varint(bytes).map(|(number, rest)| (number, rest.len()));
        assert_eq!(read(&[240, 9]), Some((240, 1)));
        assert_eq!(read(&[241, 1, 9]), Some((241, 1)));
        assert_eq!(read(&[249, 0, 1]), Some((2_289, 0)));
        assert_eq!(read(&[250, 1, 2, 3]), Some((0x03_0201, 0)));
        assert_eq!(read(&[255, 1, 0, 0, 0, 0, 0, 0, 1, 5]), Some((1 << 56 | 1, 1)));
        assert_eq!(read(&[250, 1, 2]), None);
        assert_eq!(read(&[]), None);
    }
}
