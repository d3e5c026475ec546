//! The keys from which on listing entries are read, because all earlier ones are gone.
//!
//! An engine may keep what was removed for long, or for ever: in an LSM tree, a removal frees an entry only when both
//! come into the same merge, and the tree may choose other merges each time. Entries are removed roughly in the order
//! of their keys, so the store notes from time to time how far it has come. An engine may then free all earlier keys at
//! once, and no later opening reads them.

use std::ops::Range;

use super::keys;
use super::storage_engine::{ReadError, StorageEngine};
use crate::clock::Timestamp;

/// Of all listing entries, those of earlier times and those with lower numbers are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cleared {
    /// No entry of records that expire (`EXPIRY`, `e`) is left of an earlier time.
    pub(crate) before: Timestamp,
    /// No entry of runs (`RUNS`, `n`) is left with a lower number. The bound of the same name in `Totals` is another
    /// one: it says which entries are counted.
    pub(crate) below: u64,
}

impl Cleared {
    /// Nothing was noted yet.
    const NOTHING: Self = Self { before: Timestamp::from_millis(0), below: 0 };

    /// Reads what was noted last. If it is damaged, entries are read from the first one on.
    pub(crate) fn read<E: StorageEngine>(engine: &E) -> Result<Self, ReadError> {
        match engine.get(keys::CLEARED) {
            Ok(noted) => Ok(noted.and_then(|noted| Self::decode(noted.as_ref())).unwrap_or(Self::NOTHING)),
            Err(ReadError::Corrupt(_)) => Ok(Self::NOTHING),
            Err(error) => Err(error),
        }
    }

    /// Returns the keys of the first entry of runs and of the first entry of expiries that may be there.
    pub(crate) fn firsts(self) -> [Vec<u8>; 2] {
        [keys::runs(self.below).to_vec(), keys::expiry(self.before, 0).to_vec()]
    }

    /// Returns the keys at which no entry is left.
    pub(crate) fn ranges(self) -> [Range<Vec<u8>>; 2] {
        let [runs, expiring] = self.firsts();
        [keys::RUNS.to_vec()..runs, keys::EXPIRY.to_vec()..expiring]
    }

    /// Returns the stored form: both numbers in this order, big-endian.
    pub(crate) fn encode(self) -> Vec<u8> {
        [self.before.as_millis(), self.below].into_iter().flat_map(u64::to_be_bytes).collect()
    }

    fn decode(noted: &[u8]) -> Option<Self> {
        let ([before, below], []) = noted.as_chunks::<8>() else { return None };
        Some(Self { before: Timestamp::from_millis(u64::from_be_bytes(*before)), below: u64::from_be_bytes(*below) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read_and_nothing_is_made_of_what_was_cut() {
        let cleared = Cleared { before: Timestamp::from_millis(5), below: 7 };
        let encoded = cleared.encode();
        assert_eq!(Cleared::decode(&encoded), Some(cleared));
        assert_eq!(Cleared::decode(&encoded[1..]), None);
    }
}
