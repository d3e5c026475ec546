//! Before sled opens a database: whether it will find the end of its log, or take the database for an empty one.
//!
//! sled's log is a row of segments. Each begins with a header, which says how far the log was written by then: into the
//! segment before it, as a rule. Where the last header leads to, or the snapshot's name if that is later, sled begins to look
//! for the log's end. And when it opens a database, it overwrites the segments of which nothing is needed any more, that
//! one too. This does no harm as long as the snapshot is there that the same opening wrote. But sled does not make that
//! one's name durable. Where a power cut takes it away, or somebody removes the file, sled finds no end, **takes the
//! database for an empty one, and overwrites the rest.** So a header that leads to nothing is made to lead to its own segment.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use super::directory::io_error;
use crate::store::OpenError;

const HEADER_BYTES: usize = 20;
/// In a header, sled stores numbers with these bits inverted, and the checksum with all.
const INVERTED: i64 = i64::MAX;

/// Where in the log a segment begins, and how far the log was written by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    begins: i64,
    written: i64,
}

/// What is at the beginning of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Header(Header),
    /// Overwritten, or never written.
    Blank,
    Damaged,
}

#[derive(Debug)]
struct Log {
    file: File,
    starts: Vec<Start>,
    /// How far into the log the snapshot goes.
    snapshot: Option<i64>,
}

/// What sled will do.
#[derive(Debug, PartialEq, Eq)]
enum Prospect {
    FindsTheEnd,
    /// It would, if the header of this segment led to itself.
    MissesOneBefore(usize),
    FindsNothing,
}

/// Sees to it that sled finds what is in the database. `was_used`: that can't be nothing.
pub(super) fn mend(path: &Path, segment_bytes: usize, was_used: bool) -> Result<(), OpenError> {
    let lost = |reason: &str| Err(OpenError::Database { path: path.into(), reason: reason.to_owned() });
    let read = read(path, segment_bytes).map_err(io_error("reading", path))?;
    let Some(Log { mut file, starts, snapshot }) = read else { return Ok(()) };
    match prospect(&starts, snapshot, segment_bytes) {
        Prospect::FindsTheEnd => Ok(()),
        Prospect::FindsNothing if was_used => lost("the end of its log is missing"),
        Prospect::FindsNothing => Ok(()),
        Prospect::MissesOneBefore(_) if starts.contains(&Start::Damaged) => lost("the end of its log is damaged"),
        Prospect::MissesOneBefore(index) => {
            tracing::warn!(
                target: "tower_idempotency", path = %path.display(),
                "its snapshot is missing, as an opening was cut short, or it was removed; it is done without"
            );
            let led = lead_to_itself(&mut file, &starts, index, segment_bytes);
            led.map_err(io_error("writing", &path.join("db")))
        }
    }
}

/// `None`: there is no log with segments of this size; sled will say what it thinks of it.
fn read(path: &Path, segment_bytes: usize) -> io::Result<Option<Log>> {
    let settings = match fs::read(path.join("conf")) {
        // sled makes it anew.
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
    let length = file.metadata()?.len();
    let mut starts = Vec::new();
    for at in (0..length.saturating_sub(HEADER_BYTES as u64 - 1)).step_by(segment_bytes) {
        let mut bytes = [0; HEADER_BYTES];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut bytes)?;
        starts.push(Start::of(&bytes));
    }
    Ok(Some(Log { file, starts, snapshot: snapshot(path)? }))
}

/// How far the snapshot goes that sled will read: the last one, by its name.
fn snapshot(path: &Path) -> io::Result<Option<i64>> {
    let mut last = None;
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("snap."));
        last = last.max(number.and_then(|number| i64::from_str_radix(number, 16).ok()));
    }
    Ok(last)
}

fn prospect(starts: &[Start], snapshot: Option<i64>, segment_bytes: usize) -> Prospect {
    let size = i64::try_from(segment_bytes).unwrap_or(i64::MAX);
    let segment_of = |place: i64| place.max(0) / size * size;
    let first = segment_of(snapshot.unwrap_or(0));
    let headers: Vec<_> =
        starts.iter().enumerate().filter_map(|(index, start)| Some((index, start.header()?))).collect();
    let headers = || headers.iter().filter(|(_, header)| header.begins >= first);
    let leads_to = segment_of(headers().map(|(_, header)| header.written).fold(first, i64::max));
    if headers().any(|(_, header)| header.begins == leads_to) {
        return Prospect::FindsTheEnd;
    }
    let later = headers().filter(|(_, header)| header.begins > leads_to).min_by_key(|(_, header)| header.begins);
    match later {
        Some((index, _)) => Prospect::MissesOneBefore(*index),
        // The snapshot has all there is, up to the end of a segment.
        None if snapshot.is_some_and(|until| until % size == 0) => Prospect::FindsTheEnd,
        None => Prospect::FindsNothing,
    }
}

fn lead_to_itself(file: &mut File, starts: &[Start], index: usize, segment_bytes: usize) -> io::Result<()> {
    let Some(Header { begins, .. }) = starts[index].header() else { return Ok(()) };
    file.seek(SeekFrom::Start(index as u64 * segment_bytes as u64))?;
    file.write_all(&Header { begins, written: begins }.to_bytes())?;
    file.sync_data()
}

impl Start {
    fn of(bytes: &[u8; HEADER_BYTES]) -> Self {
        let header = Header {
            begins: i64::from_le_bytes(field(bytes, 4)) ^ INVERTED,
            written: i64::from_le_bytes(field(bytes, 12)) ^ INVERTED,
        };
        match bytes {
            [0, ..] if bytes.iter().all(|byte| *byte == 0) => Self::Blank,
            bytes if header.to_bytes() == *bytes => Self::Header(header),
            _ => Self::Damaged,
        }
    }

    fn header(self) -> Option<Header> {
        if let Self::Header(header) = self { Some(header) } else { None }
    }
}

impl Header {
    fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let numbers = [self.begins, self.written].map(|number| (number ^ INVERTED).to_le_bytes()).concat();
        let checksum = !crc32fast::hash(&numbers);
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        bytes[4..].copy_from_slice(&numbers);
        bytes
    }
}

fn field<const LENGTH: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; LENGTH] {
    std::array::from_fn(|index| bytes[at + index])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 1_000;

    fn header(begins: i64, written: i64) -> Start {
        Start::Header(Header { begins, written })
    }

    fn told(starts: &[Start], snapshot: Option<i64>) -> Prospect {
        prospect(starts, snapshot, SIZE)
    }

    #[test]
    fn a_header_is_what_it_was_written_as() {
        let header = Header { begins: 3 << 24, written: (3 << 24) - 7 };
        let mut bytes = header.to_bytes();
        assert_eq!(Start::of(&bytes), Start::Header(header));
        bytes[5] ^= 1;
        assert_eq!(Start::of(&bytes), Start::Damaged);
        assert_eq!(Start::of(&[0; HEADER_BYTES]), Start::Blank);
    }

    #[test]
    fn the_end_is_found_from_where_the_last_header_leads_to_or_the_snapshot() {
        assert_eq!(told(&[header(0, -1)], None), Prospect::FindsTheEnd);
        assert_eq!(told(&[header(0, -1), header(1_000, 990)], None), Prospect::FindsTheEnd);
        let (blank, rest) = (Start::Blank, header(5_000, 4_990));
        assert_eq!(told(&[blank, header(4_000, 3_990), rest], Some(3_500)), Prospect::FindsTheEnd);
        assert_eq!(told(&[blank, rest], Some(5_100)), Prospect::FindsTheEnd);
        // All of it is in the snapshot, and the next segment has not begun.
        assert_eq!(told(&[header(4_000, 3_990)], Some(5_000)), Prospect::FindsTheEnd);
    }

    #[test]
    fn a_header_that_leads_to_a_segment_that_is_gone_is_named() {
        let starts = [Start::Blank, header(5_000, 4_990)];
        assert_eq!(told(&starts, None), Prospect::MissesOneBefore(1));
        assert_eq!(told(&starts, Some(4_100)), Prospect::MissesOneBefore(1));
        let two = [header(6_000, 4_995), Start::Blank, header(5_000, 4_990)];
        assert_eq!(told(&two, Some(3_000)), Prospect::MissesOneBefore(2));
        let mended = [Start::Blank, header(5_000, 5_000)];
        assert_eq!(told(&mended, None), Prospect::FindsTheEnd);
    }

    #[test]
    fn what_the_snapshot_leads_to_is_missed() {
        assert_eq!(told(&[], None), Prospect::FindsNothing);
        assert_eq!(told(&[Start::Blank, Start::Damaged], None), Prospect::FindsNothing);
        assert_eq!(told(&[header(4_000, 3_990)], Some(5_100)), Prospect::FindsNothing);
    }
}
