//! The runs under way whose claims are on disk.
//!
//! The writer knows them without a read, and knows when all those of one entry have ended, so that it goes too. Who is
//! running of an earlier process was said to be interrupted before the store was open.

use std::collections::HashMap;

use ahash::RandomState;

use crate::codec::Stored;
use crate::key::RecordId;
use crate::record::Record;

#[derive(Debug, Default)]
pub(super) struct Runs {
    // With the numbers of their entries.
    live: HashMap<RecordId, (Record<Stored>, u64), RandomState>,
    // How many of an entry's runs have not ended.
    left: HashMap<u64, usize, RandomState>,
}

impl Runs {
    /// The record of a run under way.
    pub(super) fn get(&self, id: &RecordId) -> Option<&Record<Stored>> {
        self.live.get(id).map(|(record, _)| record)
    }

    /// A run begins, listed in the entry of this number.
    pub(super) fn begin(&mut self, id: RecordId, record: Record<Stored>, entry: u64) {
        self.live.insert(id, (record, entry));
        *self.left.entry(entry).or_default() += 1;
    }

    /// A run has ended. Says the number of its entry if it was the last one there.
    pub(super) fn end(&mut self, id: &RecordId) -> Option<u64> {
        let (_, entry) = self.live.remove(id)?;
        let left = self.left.get_mut(&entry)?;
        *left -= 1;
        if *left > 0 {
            return None;
        }
        self.left.remove(&entry);
        Some(entry)
    }
}
