//! The last requests that used the key of another one.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::clock::Timestamp;
use crate::fingerprint::RequestPart;
use crate::key::RecordId;

/// The most operations of which it is remembered.
const MAX_OPERATIONS: usize = 256;

/// Requests that this process has refused because their key was used for another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mismatched {
    /// The part in which the last of them differs from the recorded one.
    pub part: RequestPart,
    /// How many there were.
    pub requests: u64,
    /// When the last of them came, by the store's clock.
    pub last: Timestamp,
}

/// The operations whose keys were used so, the one of the last request at the end.
#[derive(Debug, Default)]
pub(crate) struct Mismatches(Mutex<VecDeque<(RecordId, Mismatched)>>);

impl Mismatches {
    /// Notes a request that differs in this part.
    pub(crate) fn note(&self, id: RecordId, part: RequestPart, now: Timestamp) {
        let mut known = self.0.lock();
        let at = known.iter().position(|(of, _)| *of == id);
        let before = at.and_then(|at| known.remove(at)).map_or(0, |(_, mismatched)| mismatched.requests);
        if known.len() == MAX_OPERATIONS {
            known.pop_front();
        }
        known.push_back((id, Mismatched { part, requests: before + 1, last: now }));
    }

    /// Returns what is remembered of an operation.
    pub(crate) fn of(&self, id: RecordId) -> Option<Mismatched> {
        self.0.lock().iter().find(|(of, _)| *of == id).map(|(_, mismatched)| *mismatched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_operations_are_remembered_and_no_more() {
        let (known, id) = (Mismatches::default(), |number: u64| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            RecordId::from_bytes(bytes)
        });
        let at = Timestamp::from_millis;
        known.note(id(0), RequestPart::Path, at(1));
        known.note(id(0), RequestPart::Body, at(2));
        assert_eq!(known.of(id(0)), Some(Mismatched { part: RequestPart::Body, requests: 2, last: at(2) }));
        for number in 1..MAX_OPERATIONS as u64 {
            known.note(id(number), RequestPart::Host, at(number));
        }
        // One that comes again is the last.
        known.note(id(0), RequestPart::Method, at(3));
        known.note(id(1_000), RequestPart::Query, at(4));
        assert_eq!(known.of(id(0)).map(|mismatched| mismatched.requests), Some(3));
        assert_eq!((known.of(id(1)), known.0.lock().len()), (None, MAX_OPERATIONS));
    }
}
