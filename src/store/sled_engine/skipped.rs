//! Finds damage in the log that sled skips in silence, before the segment in which the log ends.
//!
//! When sled opens a database, it reads all segments after its snapshot. Where it can't read a message, it skips the
//! rest of that segment and goes on with the next one. That is right for one kind of segment: one that was freed and in
//! part overwritten when the process died. Before sled frees a segment, it writes each of its pages anew, as a whole,
//! into later ones. So where a segment can't be read to its end, and later ones do not have all of its pages anew, a
//! disk has damaged it. sled would open the database without the changes of those pages, and the store without their
//! records: their requests would run again.

use std::collections::HashSet;
use std::io;

use super::log_end::LogEnd;
use super::messages::{MESSAGE_HEADER_BYTES, each_message, message, parts};
use super::segments::Log;

/// The content of a segment.
#[derive(Debug, Default)]
struct Content {
    /// The place of the first message that can't be read, unless sled has erased what follows.
    unreadable: Option<usize>,
    /// The pages that the messages before that place write anew, as a whole.
    anew: Vec<u64>,
    /// The pages that all these messages change, and those that sled skips, as far as they can be read.
    changed: Vec<u64>,
}

impl Content {
    fn of(bytes: &[u8], segment_bytes: usize, number: u64) -> Self {
        let (mut anew, mut changed) = (Vec::new(), Vec::new());
        let read = each_message(bytes, segment_bytes, number, |_, parts| {
            if let Some((page, is_whole)) = parts.change() {
                changed.push(page);
                anew.extend(is_whole.then_some(page));
            }
        });
        let unreadable = read.err();
        // Only the content of the unreadable message may be damaged. Then its own length leads to the next one. A
        // search at every byte could find what looks like a message within an outcome.
        let first = unreadable.and_then(|at| bytes.get(at..)).and_then(parts).filter(|parts| parts.is_of(number));
        let (mut at, mut next) = (unreadable.unwrap_or(0), first);
        while let Some(parts) = next {
            changed.extend(parts.change().map(|(page, _)| page));
            at = at.saturating_add(parts.bytes());
            next = bytes.get(at..).and_then(|rest| message(rest, number));
        }
        let unreadable = unreadable.filter(|at| !is_erased(bytes, *at, segment_bytes));
        Self { unreadable, anew, changed }
    }
}

/// Returns whether a segment has zeros from this place to its end. When sled opens a database, it writes them over what
/// follows the end of the log, or a batch that is torn in the next segment. It leaves the last byte as it is.
fn is_erased(bytes: &[u8], at: usize, segment_bytes: usize) -> bool {
    bytes.len() == segment_bytes && bytes[at..segment_bytes - 1].iter().all(|byte| *byte == 0)
}

impl Log {
    /// Returns the place in the file at which such damage begins, before the segment in which the log ends.
    pub(super) fn skipped(&mut self, LogEnd { segment: end, torn }: LogEnd) -> io::Result<Option<u64>> {
        let first = self.segment_of(self.snapshot.unwrap_or(0));
        let mut row: Vec<_> = self.headers.iter().flatten().copied().collect();
        row.retain(|header| (first..end.begins).contains(&header.begins));
        // As a rule, all of them can be read, and no pages need to be remembered.
        let mut can_be_read = true;
        for segment in &row {
            can_be_read &= self.is_read_to_its_end(*segment)?;
        }
        if can_be_read {
            return Ok(None);
        }
        row.push(end);
        row.sort_unstable_by_key(|segment| -segment.begins);
        let mut anew_later = HashSet::new();
        for segment in row {
            let (place, mut bytes) = self.bytes_of(segment)?;
            if segment == end
                && let Some(torn) = torn
            {
                bytes.truncate(torn);
            }
            let content = Content::of(&bytes, self.segment_bytes, self.number(segment));
            // sled can end a segment where just a header would fit.
            let is_torn = |at: &usize| segment != end && at + MESSAGE_HEADER_BYTES < self.segment_bytes;
            if let Some(at) = content.unreadable.filter(is_torn)
                && content.changed.iter().any(|page| !anew_later.contains(page))
            {
                return Ok(Some(place + at as u64));
            }
            anew_later.extend(content.anew);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use crate::store::sled_engine::log_end::LogEnd;
    use crate::store::sled_engine::messages::tests::change;
    use crate::store::sled_engine::messages::{BATCH, CAP, HEADER_BYTES};
    use crate::store::sled_engine::segments::tests::{log_of, segments};

    /// The kinds of a page as a whole and of an addition to one.
    const WHOLE: u8 = 8;
    const LINK: u8 = 10;
    /// The length of each message here.
    const LENGTH: usize = 69;

    /// Returns the messages of the segment with this number: these changes of pages, and a cap.
    fn messages(number: u8, changes: &[(u8, u8)]) -> Vec<u8> {
        let changes = changes.iter().chain(&[(CAP, 0)]);
        changes.flat_map(|(kind, page)| change(*kind, number, *page, &[number; 60])).collect()
    }

    fn flipped(mut messages: Vec<u8>, at: usize) -> Vec<u8> {
        messages[at] ^= 1;
        messages
    }

    /// Returns the place of the damage in a log of segments 7 to 9, of which 9 is the end.
    fn skipped(contents: [Vec<u8>; 3], snapshot: i64) -> Option<u64> {
        let mut log = log_of(&segments(7, &contents), Some(snapshot));
        let end = LogEnd { segment: log.headers[2].unwrap(), torn: None };
        log.skipped(end).unwrap()
    }

    #[test]
    fn an_unreadable_message_is_damage_unless_later_segments_have_all_pages_of_its_segment_anew() {
        let first = messages(7, &[(WHOLE, 1), (LINK, 1), (LINK, 2), (LINK, 3)]);
        let all = [(WHOLE, 1), (LINK, 9), (WHOLE, 2), (WHOLE, 3)];
        // A damaged header may name another page, or hide what follows. Then only the messages before it count.
        for at in (0..4 * LENGTH).filter(|at| !(4..9).contains(&(at % LENGTH))) {
            let skipped = |second: &[(u8, u8)], third: &[(u8, u8)]| {
                skipped([flipped(first.clone(), at), messages(8, second), messages(9, third)], 7_300)
            };
            let damage = Some((at / LENGTH * LENGTH + HEADER_BYTES) as u64);
            assert_eq!(skipped(&all, &[]), None, "it was freed");
            assert_eq!(skipped(&all[..2], &all[2..]), None, "it was freed");
            assert_eq!(skipped(&all[..2], &all[3..]), damage, "page 2 is not there");
            if at / LENGTH != 0 && at / LENGTH != 3 {
                assert_eq!(skipped(&all[..3], &[(LINK, 3)]), damage, "an addition is no page");
            }
            assert_eq!(skipped(&[], &all[1..]), damage, "what comes before shows that it was not freed");
        }
        assert_eq!(skipped([first, messages(8, &[]), messages(9, &[])], 7_300), None, "it can be read");
    }

    #[test]
    fn damage_that_the_snapshot_covers_or_at_the_end_of_the_log_is_not_meant() {
        let changes = [(LINK, 1), (LINK, 2)];
        let [first, second, end] = [7, 8, 9].map(|number| messages(number, &changes));
        assert_eq!(skipped([flipped(first.clone(), 50), second.clone(), end.clone()], 8_000), None);
        assert_eq!(skipped([first.clone(), second.clone(), flipped(end.clone(), 50)], 7_000), None);
        assert!(skipped([first, flipped(second, 50), end], 8_000).is_some());
    }

    #[test]
    fn a_page_that_is_anew_only_in_what_is_skipped_is_not_there() {
        let first = flipped(messages(7, &[(LINK, 2)]), 50);
        let second = flipped(messages(8, &[(WHOLE, 1), (WHOLE, 2)]), 50);
        let anew = |pages: &[(u8, u8)]| messages(9, pages);
        assert_eq!(skipped([first.clone(), second.clone(), anew(&[(WHOLE, 1), (WHOLE, 2)])], 7_000), None);
        assert!(skipped([first, second, anew(&[(WHOLE, 1)])], 7_000).is_some());
    }

    #[test]
    fn a_page_that_is_anew_only_in_a_torn_batch_is_not_there() {
        let first = flipped(messages(7, &[(LINK, 1)]), 50);
        let end = [(WHOLE, 2), (BATCH, 0), (WHOLE, 1)];
        let mut log = log_of(&segments(7, &[first, messages(8, &end)]), None);
        let segment = log.headers[1].unwrap();
        assert_eq!(log.skipped(LogEnd { segment, torn: None }).unwrap(), None);
        assert!(log.skipped(LogEnd { segment, torn: Some(HEADER_BYTES + LENGTH) }).unwrap().is_some());
    }

    // A process that died while sled cut a torn batch off leaves this. Refusing it would refuse a sound store.
    #[test]
    fn a_segment_that_sled_has_erased_from_a_place_on_is_not_damaged() {
        let mut bytes = segments(7, &[7, 8, 9].map(|number| messages(number, &[(LINK, 1), (LINK, 2)])));
        let skipped = |bytes: &[u8]| {
            let mut log = log_of(bytes, None);
            let end = LogEnd { segment: log.headers[2].unwrap(), torn: None };
            log.skipped(end).unwrap()
        };
        bytes[HEADER_BYTES + LENGTH..999].fill(0);
        assert_eq!(skipped(&bytes), None);
        bytes[900] = 1;
        assert_eq!(skipped(&bytes), Some((HEADER_BYTES + LENGTH) as u64));
    }

    #[test]
    fn a_header_that_can_not_be_read_is_damage_unless_it_was_erased_or_the_snapshot_has_its_segment() {
        let mut bytes = segments(7, &[7, 8, 9].map(|number| messages(number, &[(LINK, 1)])));
        let damaged = |bytes: &[u8], snapshot| log_of(bytes, Some(snapshot)).damaged_header;
        bytes[1_007] ^= 1;
        assert_eq!(damaged(&bytes, 8_300), Some(1_000));
        assert_eq!(damaged(&bytes, 9_000), None);
        bytes[1_000..1_000 + HEADER_BYTES].fill(0);
        assert_eq!(damaged(&bytes, 7_000), None);
    }
}
