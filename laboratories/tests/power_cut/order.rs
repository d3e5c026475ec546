//! The order in which sled uses its space again, from a recording.
//!
//! Before sled uses a segment again, it moves the data that is still needed there to the end of its log, and then
//! begins two more segments. The moved data is in neither of these two. So if only these two are unsynced when the
//! space is written to again, no power cut finds the old place overwritten and the new one empty. sled itself does not
//! ensure this.

use std::collections::HashMap;

use laboratories::disk::log::Event;
use laboratories::disk::rebuild::says_something;

/// sled's unit of space.
const SEGMENT: u64 = 8 * 1024 * 1024;
/// The number of segments that sled begins between moving data and writing to its old place.
const BETWEEN: usize = 2;

/// The use of segments in a recording.
#[derive(Debug, Default)]
pub(crate) struct Order {
    /// The number of times that the space of a segment was used again.
    pub(crate) used_again: usize,
    /// The segments that were used again before the data moved from there was durable.
    pub(crate) violations: Vec<String>,
    /// The segments, by their place, in the order in which they were begun.
    begun: Vec<u64>,
    /// The number of segments that were there before.
    before: u64,
    /// The writes since the last sync: the number of the event, and the segment.
    unsynced: Vec<(usize, u64)>,
    /// The syncs under way, and the event that began each.
    syncs: HashMap<u64, usize>,
}

impl Order {
    /// Returns the order in a recording that began with a database of `length` bytes, all durable.
    pub(crate) fn of(events: &[Event], length: u64) -> Self {
        let mut order = Self { before: length.div_ceil(SEGMENT), ..Self::default() };
        for (at, event) in events.iter().enumerate() {
            order.happens(at, event);
        }
        order
    }

    fn happens(&mut self, at: usize, event: &Event) {
        match event {
            Event::Write { path, offset, data } if is_database(path) && says_something(data) => {
                let segment = offset / SEGMENT;
                if offset % SEGMENT == 0 {
                    self.begins(segment);
                } else if !self.begun.contains(&segment) {
                    // sled began this segment before the recording.
                    self.begun.push(segment);
                }
                self.unsynced.push((at, segment));
            }
            Event::SyncBegins { path, number } if is_database(path) => drop(self.syncs.insert(*number, at)),
            Event::SyncEnds { number } => {
                if let Some(began) = self.syncs.remove(number) {
                    self.unsynced.retain(|(written, _)| *written > began);
                }
            }
            Event::Process => self.syncs.clear(),
            _ => {}
        }
    }

    fn begins(&mut self, segment: u64) {
        let place = self.begun.iter().position(|begun| *begun == segment);
        if place.is_some() || segment < self.before {
            self.used_again += 1;
            let last = &self.begun[self.begun.len().saturating_sub(BETWEEN)..];
            let early = self.unsynced.iter().filter(|(_, unsynced)| *unsynced != segment && !last.contains(unsynced));
            let early = early.count();
            if early > 0 {
                let line =
                    format!("segment {segment} is used again, and {early} writes before the last two are not synced");
                self.violations.push(line);
            }
        }
        if let Some(place) = place {
            self.begun.remove(place);
        }
        self.begun.push(segment);
    }
}

fn is_database(path: &str) -> bool {
    path.ends_with("/db")
}

#[test]
fn space_that_is_used_again_too_early_is_seen() {
    let data = |byte: u8| bytes::Bytes::from(vec![0, byte]);
    let write = |segment: u64| Event::Write { path: "store/db".into(), offset: segment * SEGMENT, data: data(1) };
    let sync = |number| [Event::SyncBegins { path: "store/db".into(), number }, Event::SyncEnds { number }];
    let moved_and_synced: Vec<_> =
        [write(0), write(1)].into_iter().chain(sync(1)).chain([write(2), write(3), write(0)]).collect();
    let order = Order::of(&moved_and_synced, 0);
    assert_eq!((order.used_again, order.violations.len()), (1, 0));
    let moved = [write(0), write(1), write(2), write(3), write(0)];
    let order = Order::of(&moved, 0);
    assert_eq!((order.used_again, order.violations.len()), (1, 1), "segment 1 is not synced");
    let order = Order::of(&moved[1..], SEGMENT);
    assert_eq!((order.used_again, order.violations.len()), (1, 1), "the same of what another process began");
}
