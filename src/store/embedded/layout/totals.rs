//! The totals over all records of a store.

use crate::clock::Timestamp;

/// A step, and when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) step: u64,
    pub(crate) time: Timestamp,
}

/// The totals, which are written with each step, after its records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// The number of records.
    pub(crate) count: u64,
    /// The latest time that the store has seen, in milliseconds.
    pub(crate) seen: u64,
    /// The sum of the numbers of all listing entries, which wraps.
    pub(crate) numbers: u64,
    /// The bytes of all outcomes.
    pub(crate) bytes: u64,
    /// The number of the step that wrote them. Each step has the next number.
    pub(crate) step: u64,
    /// Entries from this number on came later, and are not counted. `Cleared::below` is another bound.
    pub(crate) below: u64,
    /// Entries with these numbers were about to be removed, and are not counted.
    pub(crate) leaving: Vec<u64>,
}

/// The most entries that are named as about to be removed. A step that removes more is written atomically, and names
/// none.
pub(crate) const MAX_LEAVING: usize = 64;

impl Totals {
    /// Returns the stored form: these numbers in this order, big-endian. Its length says how many are leaving.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let &Self { count, seen, numbers, bytes, step, below, ref leaving } = self;
        [count, seen, numbers, bytes, step, below].iter().chain(leaving).copied().flat_map(u64::to_be_bytes).collect()
    }

    /// Returns the step that wrote them.
    pub(crate) fn checkpoint(&self) -> Checkpoint {
        Checkpoint { step: self.step, time: Timestamp::from_millis(self.seen) }
    }

    /// Reads the stored form; `None` if its length is wrong. It has no checksum of its own.
    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        let (values, []) = value.as_chunks::<8>() else { return None };
        let values: Vec<u64> = values.iter().map(|value| u64::from_be_bytes(*value)).collect();
        let [count, seen, numbers, bytes, step, below, ref leaving @ ..] = *values else { return None };
        Some(Self { count, seen, numbers, bytes, step, below, leaving: leaving.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_is_made_of_what_was_cut() {
        let totals = Totals { count: 1, seen: 2, numbers: 3, bytes: 4, step: 5, below: 6, leaving: vec![7, 8] };
        let encoded = totals.encode();
        assert_eq!(Totals::decode(&encoded), Some(totals));
        for cut in [0, 8, 15, 16, 24, 32, 40, encoded.len() - 1] {
            assert_eq!(Totals::decode(&encoded[..cut]), None);
        }
    }
}
