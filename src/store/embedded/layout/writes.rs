//! The keys of one step, and the order in which they are written.
//!
//! To write a step atomically, an engine may need one write to its log for the entry of the step's beginning and
//! one for the rest, and each waits for the disk (sled's `apply_batch` does this). A step needs no such entry if its
//! keys can be written one after the other, so that every prefix that may be recovered makes sense. This is so for
//! short steps that claim and complete operations; see [`Writes::in_order`]. All other steps are atomic: all of a step
//! is recovered, or nothing.

use std::collections::HashMap;

use ahash::RandomState;
use bytes::Bytes;

use super::keys;

/// The bytes that a key takes in addition to its own and its value's, for the headers of an engine's messages and
/// pages.
pub(crate) const ENTRY_BYTES: usize = 64;

/// The most keys that are written one by one. Among more keys, saving one write to the log makes no difference.
pub(crate) const MAX_IN_ORDER: usize = 128;

/// The keys of one step, each with its new value.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    /// `None` removes the key. A later write of a key replaces an earlier one, so each key is written once.
    pub(crate) entries: HashMap<Vec<u8>, Option<Bytes>, RandomState>,
    /// The most bytes that are written, the engine's own included: replaced writes stay counted.
    pub(crate) bytes: usize,
    /// Whether all of the step is recovered, or nothing.
    pub(crate) is_atomic: bool,
}

impl Writes {
    pub(crate) fn insert(&mut self, key: &[u8], value: impl Into<Bytes>) {
        let value = value.into();
        self.bytes += key.len() + value.len() + ENTRY_BYTES;
        self.entries.insert(key.into(), Some(value));
    }

    pub(crate) fn remove(&mut self, key: &[u8]) {
        self.bytes += key.len() + ENTRY_BYTES;
        self.entries.insert(key.into(), None);
    }

    /// Returns the entries in the order in which they may be written one by one:
    /// 1. The entries that list the records, and chunks. Those of a record that is not there do no harm.
    /// 2. The records.
    /// 3. The totals, which say up to which number they count the entries, and which entries are about to be removed.
    ///    If the step was interrupted before them, the opening counts what they leave out; see
    ///    [`Listed::late`](crate::store::embedded::key_filter::Listed).
    /// 4. The entries that are removed.
    pub(crate) fn in_order(self) -> Vec<(Vec<u8>, Option<Bytes>)> {
        let mut entries: Vec<_> = self.entries.into_iter().collect();
        entries.sort_by_cached_key(|(key, value)| place(key, value.is_none()));
        entries
    }
}

/// Returns the place of a key in [`Writes::in_order`], from 0 on.
fn place(key: &[u8], is_removed: bool) -> u8 {
    match (is_removed, keys::is_entry_or_chunk(key), key == keys::TOTALS) {
        (true, ..) => 3,
        (_, _, true) => 2,
        (_, true, _) => 0,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::key::RecordId;
    use crate::record::Fence;

    #[test]
    fn what_lists_a_record_comes_before_it_and_what_is_removed_after_the_totals_that_say_so() {
        let id = RecordId::from_bytes([1; 32]);
        let mut writes = Writes::default();
        writes.remove(&keys::runs(3));
        writes.insert(keys::TOTALS, &b"totals"[..]);
        writes.insert(&keys::record(&id), &b"record"[..]);
        writes.insert(&keys::expiry(Timestamp::from_millis(1), 4), &b"list"[..]);
        writes.insert(&keys::runs(5), &b"list"[..]);
        writes.insert(&keys::chunk(&id, Fence(1), 0), &b"chunk"[..]);
        assert_eq!(writes.bytes, 9 + 13 + 39 + 21 + 13 + 50 + 6 * ENTRY_BYTES);
        let order: Vec<u8> = writes.in_order().iter().map(|(key, _)| key[0]).collect();
        let (mut before, after) = (order[..3].to_vec(), &order[3..]);
        before.sort_unstable();
        assert_eq!((&*before, after), (&b"cen"[..], &b"rmn"[..]));
    }
}
