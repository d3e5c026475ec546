//! Finds where sled will end the log: after its last message, or before an atomic batch that is not there as a whole.

use std::io;

use super::messages::each_message;
use super::segments::{Header, Log};

/// The place where sled ends the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogEnd {
    /// The segment in which it ends.
    pub(super) segment: Header,
    /// The place in that segment at which a batch begins that is not there as a whole: sled reads nothing from there
    /// on.
    pub(super) torn: Option<usize>,
}

impl Log {
    /// Returns the segment with the last message that sled can read: the last one in a row, all of which but itself are
    /// read to their ends.
    pub(super) fn last(&mut self, start: Header) -> io::Result<Header> {
        let mut last = start;
        while let Some(next) = self.at(last.begins + self.size()) {
            if !self.is_read_to_its_end(last)? {
                break;
            }
            last = next;
        }
        Ok(last)
    }

    /// Returns where sled will end the log, if it begins in `start` and the last message is in `last`. All of a batch
    /// that is stable lies before the place to which a header leads, so a torn one begins in `start` or later.
    pub(super) fn end(&mut self, start: Header, last: Header) -> io::Result<LogEnd> {
        let (_, bytes) = self.bytes_of(last)?;
        let (Ok(stop) | Err(stop)) = each_message(&bytes, self.segment_bytes, self.number(last), |_, _| {});
        let tip = last.begins + i64::try_from(stop).unwrap_or(i64::MAX) - 1;
        let mut next = Some(start);
        while let Some(segment) = next.filter(|segment| segment.begins <= last.begins) {
            let (_, bytes) = self.bytes_of(segment)?;
            let mut torn = None;
            let _ = each_message(&bytes, self.segment_bytes, self.number(segment), |at, parts| {
                if torn.is_none() && bytes.get(at..).and_then(|bytes| parts.batch(bytes)).is_some_and(|last| last > tip)
                {
                    torn = Some(at);
                }
            });
            if torn.is_some() {
                return Ok(LogEnd { segment, torn });
            }
            next = self.at(segment.begins + self.size());
        }
        Ok(LogEnd { segment: last, torn: None })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;
    use crate::store::embedded::files::directory::is_unlocked;
    use crate::store::sled_engine::messages::tests::{change, message_of};
    use crate::store::sled_engine::messages::{BATCH, CAP, HEADER_BYTES};
    use crate::store::sled_engine::segments::mark_the_end;
    use crate::store::sled_engine::segments::tests::{log_of, segments};

    #[test]
    fn the_last_message_is_in_the_last_segment_before_which_all_is_whole() {
        let capped = || message_of(CAP, b"");
        let ends = |first: i64, contents: &[Vec<u8>], later: &[u8]| {
            let mut log = log_of(&[later, &segments(first, contents)].concat(), None);
            let first = log.at(first * 1_000).unwrap();
            log.last(first).unwrap().begins
        };
        assert_eq!(ends(7, &[capped()], &segments(8, &[vec![]])), 8_000);
        assert_eq!(ends(7, &[capped()], &segments(9, &[vec![]])), 7_000, "the next one is missing");
        assert_eq!(ends(7, &[vec![]], &segments(8, &[vec![]])), 7_000, "torn");
    }

    #[test]
    fn the_log_ends_before_a_batch_that_is_not_there_as_a_whole() {
        // A batch of three changes over the end of a segment: in 7 after one change, and on in 8.
        let change_of = |number, kind, content: &[u8]| change(kind, number, 1, content);
        let whole = |number| change_of(number, 8, &[1; 60]);
        let length = i64::try_from(whole(7).len()).unwrap();
        let last = 8_000 + i64::try_from(HEADER_BYTES).unwrap() + 2 * length - 1;
        let first = [whole(7), change_of(7, BATCH, &last.to_le_bytes()), whole(7), change_of(7, CAP, b"")].concat();
        let ends = |second: &[u8]| {
            let mut log = log_of(&segments(7, &[first.clone(), second.to_vec()]), None);
            let [start, second] = [7_000, 8_000].map(|begins| log.at(begins).unwrap());
            assert_eq!(log.last(start).unwrap(), second);
            let end = log.end(start, second).unwrap();
            (end.segment.begins, end.torn)
        };
        let second = [whole(8), whole(8)].concat();
        assert_eq!(ends(&second), (8_000, None));
        for torn in [0, 1, whole(8).len(), second.len() - 1] {
            assert_eq!(ends(&second[..torn]), (7_000, Some(HEADER_BYTES + whole(7).len())), "{torn}");
        }
    }

    // What is left if a process dies while it writes a batch into two segments, and the next one while sled drops the
    // first half of it: sled has not yet erased the second segment.
    #[test]
    fn trap_122_a_batch_that_is_torn_over_two_segments_stays_dropped_after_a_second_kill() {
        const SEGMENT: usize = 4_096;
        let directory = tempfile::tempdir().unwrap();
        let open = || sled::Config::new().path(directory.path()).segment_size(SEGMENT).open().unwrap();
        let db = open();
        let mut batch = sled::Batch::default();
        (0_u8..60).for_each(|number| batch.insert(&[number], vec![number; 100]));
        db.insert(b"before", b"").unwrap();
        db.apply_batch(batch).unwrap();
        db.flush().unwrap();
        drop(db);
        // A thread of sled's may still have the log, and lock it, for a moment.
        while !is_unlocked(&directory.path().join("db")) {
            std::thread::yield_now();
        }
        let mut log = Log::read(directory.path(), SEGMENT).unwrap().unwrap();
        let mut batches = Vec::new();
        for segment in log.headers.clone().into_iter().flatten() {
            let (place, bytes) = log.bytes_of(segment).unwrap();
            let _ = each_message(&bytes, SEGMENT, log.number(segment), |at, parts| {
                batches.extend(parts.batch(&bytes[at..]).map(|last| (place + at as u64, segment, last)));
            });
        }
        let segment_bytes = i64::try_from(SEGMENT).unwrap();
        batches.retain(|(_, segment, last)| *last >= segment.begins + segment_bytes);
        let &[(manifest, _, last)] = &batches[..] else { panic!("one batch over two segments: {batches:?}") };
        // The first kill: the last byte of the batch was not written, nor what follows it.
        let end = log.at(last / segment_bytes * segment_bytes).unwrap();
        let (place, _) = log.bytes_of(end).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(directory.path().join("db")).unwrap();
        file.set_len(place + u64::try_from(last % segment_bytes).unwrap()).unwrap();
        mark_the_end(directory.path(), SEGMENT, true).unwrap();
        // The second kill: sled has erased the first segment from the batch on.
        let segment = usize::try_from(manifest).unwrap() / SEGMENT;
        let erased = (segment + 1) * SEGMENT - 1 - usize::try_from(manifest).unwrap();
        file.write_all_at(&vec![0; erased], manifest).unwrap();
        mark_the_end(directory.path(), SEGMENT, true).unwrap();
        let keys: Vec<_> = open().iter().keys().map(Result::unwrap).collect();
        assert_eq!(keys, ["before"]);
    }
}
