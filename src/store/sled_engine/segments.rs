//! Prepares a database before sled opens it, so that sled finds the end of its log even if the power is cut while it
//! opens.
//!
//! sled's log is a row of segments. Each begins with a header, which says how far the log was written by then: into the
//! segment before it, as a rule. sled begins to look for the log's end where the last header leads to, or where the
//! snapshot ends, by its name, if that is later. And when it opens a database, it overwrites the segments of which
//! nothing is needed any more, including that one. This does no harm as long as the snapshot is there that the same
//! opening wrote. But sled does not make that snapshot's name durable. If a power cut takes it away, or an operator
//! removes the file, sled finds no end, or a wrong one, **takes the database for an empty or an older one, and
//! overwrites the rest.**
//!
//! So before sled overwrites anything, the header of the segment in which sled's search will end is made to lead to
//! that segment itself, durably. It is the last segment that sled reaches: all segments before it, from the start of
//! the search, can be read to their ends. If a process died while it wrote an atomic batch into two segments, it is the
//! first of them: sled drops the whole batch, and a header of the second segment that leads to itself would make a
//! later opening apply the second half.
//!
//! If a disk has damaged the log, sled's search ends there too, and sled overwrites what follows. So it is noted before
//! whether the log goes on after its end. That alone is no proof of damage: a power cut may take a part of the log that
//! was not synced and leave a later one. Damage in a segment before that one is certain: `skipped.rs` finds it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use super::messages::{HEADER_BYTES, first_unreadable, message, parts};
use crate::store::OpenError;
use crate::store::embedded::FileDamage;
use crate::store::embedded::files::directory::{broken, io_error};

/// In a header, sled stores numbers with these bits inverted, and the checksum with all its bits inverted.
const INVERTED: i64 = i64::MAX;

/// The place in the log where a segment begins, and the end of the log when it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) begins: i64,
    written: i64,
}

#[derive(Debug)]
pub(super) struct Log {
    file: File,
    pub(super) segment_bytes: usize,
    /// The headers of the segments, in their order in the file; `None` if one was erased, never written, or is damaged.
    pub(super) headers: Vec<Option<Header>>,
    /// The place in the file of a damaged header, if sled would read its segment.
    pub(super) damaged_header: Option<u64>,
    /// The position in the log up to which the snapshot goes.
    pub(super) snapshot: Option<i64>,
}

/// The place where sled begins to look for the end of the log.
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

/// Makes sure that sled finds the content of the database. `was_used` says that it cannot be empty. Returns where the
/// log is damaged, if it is.
pub(super) fn mark_the_end(path: &Path, segment_bytes: usize, was_used: bool) -> Result<Option<FileDamage>, OpenError> {
    let failed = || io_error("reading", path);
    let Some(mut log) = Log::read(path, segment_bytes).map_err(failed())? else { return Ok(None) };
    let in_the_middle = |at| FileDamage {
        what: format!("the log in db can't be read at byte {at}, in its middle"),
        is_certain: true,
        last: None,
    };
    let start = match log.start() {
        Start::In(start) => start,
        Start::Missing if was_used => return Err(broken(path, "the end of its log is missing")),
        Start::Missing | Start::Nowhere => return Ok(log.damaged_header.map(in_the_middle)),
    };
    let last = log.last(start).map_err(failed())?;
    let end = log.end(start, last).map_err(failed())?;
    let skipped = match log.damaged_header {
        None => log.skipped(end).map_err(failed())?,
        header => header,
    };
    let damage = match skipped {
        Some(at) => Some(in_the_middle(at)),
        None => log.goes_on_after(last).map_err(failed())?.map(|at| {
            let what = format!("the log in db can't be read from byte {at} on, though it goes on after that");
            FileDamage { what, is_certain: false, last: None }
        }),
    };
    if end.segment != start {
        log.lead_to_itself(end.segment).map_err(io_error("writing", &path.join("db")))?;
    }
    Ok(damage)
}

impl Log {
    /// Reads the log. Returns `None` if there is no log with segments of this size, or another process has it; sled
    /// will then report what is wrong.
    pub(super) fn read(path: &Path, segment_bytes: usize) -> io::Result<Option<Self>> {
        let settings = match fs::read(path.join("conf")) {
            // sled makes this file anew.
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            settings => Some(settings?),
        };
        let expected = format!("segment_size: {segment_bytes}\n");
        if settings.is_some_and(|text| !text.windows(expected.len()).any(|line| line == expected.as_bytes())) {
            return Ok(None);
        }
        let file = match OpenOptions::new().read(true).write(true).open(path.join("db")) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(None),
            // The file was locked, or cannot be locked here.
            // The lock is released explicitly: a process that is just being started could inherit the descriptor and
            // hold the lock a little longer.
            _ => file.unlock()?,
        }
        Ok(Some(Self::of(file, segment_bytes, snapshot(path)?)?))
    }

    fn of(mut file: File, segment_bytes: usize, snapshot: Option<i64>) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let (mut headers, mut damaged_header) = (Vec::new(), None);
        for at in (0..length.saturating_sub(HEADER_BYTES as u64 - 1)).step_by(segment_bytes) {
            let mut bytes = [0; HEADER_BYTES];
            file.seek(SeekFrom::Start(at))?;
            file.read_exact(&mut bytes)?;
            let header = Header::of(&bytes);
            // sled writes a header at once, and erases it with zeros.
            if header.is_none() && bytes != [0; HEADER_BYTES] {
                damaged_header.get_or_insert(at);
            }
            headers.push(header);
        }
        let mut log = Self { file, segment_bytes, headers, damaged_header, snapshot };
        if let Some(at) = damaged_header {
            log.damaged_header = log.is_behind_the_snapshot(at)?.then_some(at);
        }
        Ok(log)
    }

    pub(super) fn size(&self) -> i64 {
        i64::try_from(self.segment_bytes).unwrap_or(i64::MAX)
    }

    /// Returns whether sled would read the segment at this place of the file if its header were whole: its messages say
    /// which segment it is. sled reads no header of a segment that the snapshot has.
    fn is_behind_the_snapshot(&mut self, at: u64) -> io::Result<bool> {
        let mut bytes = Vec::with_capacity(self.segment_bytes);
        self.file.seek(SeekFrom::Start(at))?;
        (&self.file).take(self.segment_bytes as u64).read_to_end(&mut bytes)?;
        let first = bytes.get(HEADER_BYTES..).and_then(|rest| Some((rest, parts(rest)?)));
        let number = first.and_then(|(rest, parts)| message(rest, parts.segment).map(|_| parts.segment));
        let begins = number.and_then(|number| i64::try_from(number).ok()?.checked_mul(self.size()));
        Ok(begins.is_some_and(|begins| begins >= self.segment_of(self.snapshot.unwrap_or(0))))
    }

    /// Returns where the segment begins that a place in the log is in.
    pub(super) fn segment_of(&self, place: i64) -> i64 {
        place.max(0) / self.size() * self.size()
    }

    /// Returns where sled begins, by sled's own rules.
    fn start(&self) -> Start {
        let first = self.segment_of(self.snapshot.unwrap_or(0));
        let headers = || self.headers.iter().flatten().filter(|header| header.begins >= first);
        let leads_to = self.segment_of(headers().map(|header| header.written).fold(first, i64::max));
        match headers().find(|header| header.begins == leads_to) {
            Some(header) => Start::In(*header),
            None if headers().next().is_none() && self.snapshot.is_some_and(|until| until % self.size() == 0) => {
                Start::Nowhere
            }
            None => Start::Missing,
        }
    }

    pub(super) fn at(&self, begins: i64) -> Option<Header> {
        self.headers.iter().flatten().find(|header| header.begins == begins).copied()
    }

    /// Moves to the place of a segment in the file.
    fn seek(&mut self, segment: Header) -> io::Result<u64> {
        let index = self.headers.iter().position(|header| *header == Some(segment)).unwrap_or(self.headers.len());
        self.file.seek(SeekFrom::Start(index as u64 * self.segment_bytes as u64))
    }

    /// Returns whether one message follows another up to the end of a segment, so that sled goes on to the next one.
    pub(super) fn is_read_to_its_end(&mut self, segment: Header) -> io::Result<bool> {
        let (_, bytes) = self.bytes_of(segment)?;
        Ok(first_unreadable(&bytes, self.segment_bytes, self.number(segment)).is_none())
    }

    /// Returns the place in the file at which the log ends in the segment `last`, if a message or a segment follows.
    fn goes_on_after(&mut self, last: Header) -> io::Result<Option<u64>> {
        let (place, bytes) = self.bytes_of(last)?;
        let number = self.number(last);
        let Some(at) = first_unreadable(&bytes, self.segment_bytes, number) else { return Ok(None) };
        // The unreadable message may say how long it is. Then the message after it is looked for.
        let next = bytes.get(at..).and_then(parts).and_then(|parts| bytes.get(at.checked_add(parts.bytes())?..));
        let goes_on = next.is_some_and(|rest| message(rest, number).is_some())
            || self.headers.iter().flatten().any(|header| header.begins > last.begins);
        Ok(goes_on.then_some(place + at as u64))
    }

    /// Returns the place of a segment in the file, and its content.
    pub(super) fn bytes_of(&mut self, segment: Header) -> io::Result<(u64, Vec<u8>)> {
        let place = self.seek(segment)?;
        let mut bytes = Vec::with_capacity(self.segment_bytes);
        (&self.file).take(self.segment_bytes as u64).read_to_end(&mut bytes)?;
        Ok((place, bytes))
    }

    /// Returns the number of a segment, which sled writes into each of its messages.
    pub(super) fn number(&self, segment: Header) -> u64 {
        u64::try_from(segment.begins / self.size()).unwrap_or(0)
    }

    /// Writes a header by which sled begins its search in this segment, and makes it durable.
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
        // sled writes the position into the name, in hexadecimal. Other names are not of snapshots.
        last = last.max(number.and_then(|number| i64::from_str_radix(number, 16).ok()));
    }
    Ok(last)
}

impl Header {
    /// Reads a header. Returns `None` if there is none, or its checksum does not fit.
    fn of(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| i64::from_le_bytes(std::array::from_fn(|index| bytes[at + index])) ^ INVERTED;
        let header = Self { begins: number(4), written: number(12) };
        (header.to_bytes() == bytes).then_some(header)
    }

    fn to_bytes(self) -> Vec<u8> {
        let numbers = [self.begins, self.written].map(|number| (number ^ INVERTED).to_le_bytes()).concat();
        [&(!crc32fast::hash(&numbers)).to_le_bytes()[..], &numbers].concat()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::store::sled_engine::messages::tests::message_of;

    const SIZE: usize = 1_000;

    /// Returns the bytes of segments in a row with these contents, from the one with the number `first` on.
    pub(in crate::store::sled_engine) fn segments(first: i64, contents: &[Vec<u8>]) -> Vec<u8> {
        let segment = |(begins, contents): (i64, &Vec<u8>)| {
            let mut bytes = [&Header { begins, written: begins - 1 }.to_bytes()[..], contents].concat();
            bytes.resize(SIZE, 0);
            bytes
        };
        (first..).map(|number| number * 1_000).zip(contents).flat_map(segment).collect()
    }

    /// Returns the log in a file with these bytes.
    pub(in crate::store::sled_engine) fn log_of(bytes: &[u8], snapshot: Option<i64>) -> Log {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Log::of(file, SIZE, snapshot).unwrap()
    }

    fn header(begins: i64, written: i64) -> Option<Header> {
        Some(Header { begins, written })
    }

    fn start(headers: &[Option<Header>], snapshot: Option<i64>) -> Start {
        Log { headers: headers.to_vec(), ..log_of(&[], snapshot) }.start()
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

    #[test]
    fn where_the_log_goes_on_after_its_end_the_place_of_the_damage_is_known() {
        let messages: Vec<_> = (0..5).map(|number| message_of(8, &[number; 60])).collect();
        let first = messages.concat();
        let damage_in = |first: &[u8], other: Option<i64>| {
            let other = other.map(|number| segments(number, &[vec![]])).unwrap_or_default();
            let mut log = log_of(&[segments(7, &[first.to_vec()]), other].concat(), None);
            let end = log.headers[0].unwrap();
            log.goes_on_after(end).unwrap()
        };
        assert_eq!(damage_in(&first, None), None, "that is its end");
        let third = 2 * messages[0].len();
        let at = (HEADER_BYTES + third) as u64;
        let mut flipped = first.clone();
        flipped[third + 20] ^= 1;
        assert_eq!(damage_in(&flipped, None), Some(at));
        let torn = &first[..third + 20];
        assert_eq!(damage_in(torn, None), None, "the end of a process that was killed");
        assert_eq!(damage_in(torn, Some(8)), Some(at));
        assert_eq!(damage_in(torn, Some(6)), None);
    }
}
