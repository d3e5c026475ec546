//! The facts that memory holds without a read: which records there may be, and which runs are under way. Most requests
//! ask for a new key, and they are answered at once.
//!
//! A read may wait for the batch that is being written, and it blocks its thread meanwhile. So a few bytes of every
//! record id are kept and counted: if none is found, there certainly is no record; if one is found, the store is read.
//! A record is put in before it is written and taken out after its deletion is durable, so the count is never too low.
//! When a store is opened, the counts are made from the entries that list the records, if these are whole, or else from
//! the records themselves ([`repair`](super::repair)).

use std::collections::{HashMap, HashSet};

use ahash::RandomState;
use dashmap::DashMap;

use super::layout::cleared::Cleared;
use super::layout::storage_engine::{ReadError, StorageEngine, scan_from};
use super::layout::totals::Entries;
use super::layout::{keys, listing};
use crate::codec::Stored;
use crate::key::RecordId;
use crate::record::{Fence, Record};

/// The most records that memory is reserved for when a store is opened.
const MAX_RESERVED: usize = 1 << 20;

/// The number of records that have each tag, which is a part of an id. It takes some 20 bytes for each record.
#[derive(Debug)]
pub(super) struct Present {
    tags: DashMap<u32, u32, RandomState>,
}

/// The contents of the listing entries.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) present: Present,
    /// The sum of the entries' numbers.
    pub(super) numbers: u64,
    /// `true` if the entries are undamaged and complete.
    pub(super) is_whole: bool,
    /// The records that the last step listed, if its totals are missing.
    pub(super) late: Vec<LateRecord>,
}

/// A record that is listed by the last step, if that step was interrupted before its totals. They do not count the
/// record, unless it was there before.
#[derive(Debug)]
pub(super) struct LateRecord {
    pub(super) id: RecordId,
    pub(super) fence: Fence,
    /// `true` if the totals count the record, because it was there before, as a run that the step completed.
    pub(super) is_counted: bool,
}

impl Present {
    /// Reads the listing entries of a store that holds `count` records. Every record is listed, as running or with its
    /// expiry. `said` is what the totals say about the entries, and those before `cleared` are gone.
    pub(super) fn load<E: StorageEngine>(
        engine: &E,
        cleared: Cleared,
        count: u64,
        said: &Entries,
    ) -> Result<Listed, ReadError> {
        let capacity = usize::try_from(count).unwrap_or(usize::MAX).min(MAX_RESERVED);
        let present = Self { tags: DashMap::with_capacity_and_hasher(capacity, RandomState::new()) };
        // `items` and `counted` are compared with the totals; `sum` has all entries, as the next totals will.
        let (mut items, mut sum, mut counted, mut damaged) = (0, 0_u64, 0_u64, false);
        // `later`: the records in entries that the totals do not count. `claimed`: the runs in those that they do.
        let (mut later, mut claimed) = (Vec::new(), HashSet::with_hasher(RandomState::new()));
        for entry in cleared.firsts().into_iter().flat_map(|from| scan_from(engine, from)) {
            let (key, value) = match entry {
                Err(ReadError::Corrupt(_)) => {
                    // What follows cannot be listed. The repair reads the records themselves.
                    damaged = true;
                    break;
                }
                entry => entry?,
            };
            let (key, value) = (key.as_ref(), value.as_ref());
            let number = keys::number_of(key);
            sum = sum.wrapping_add(number);
            if number < said.below && !said.leaving.contains(&number) {
                counted = counted.wrapping_add(number);
            }
            match listing::read(key, value) {
                Some(records) if number >= said.below => later.extend(records),
                Some(records) => {
                    if key.starts_with(keys::RUNNING) {
                        claimed.extend(records.iter().copied());
                    }
                    items += records.len() as u64;
                    records.iter().for_each(|(id, _)| present.insert(id));
                }
                None => damaged = true,
            }
        }
        // Outdated items stay in entries, so there may be more items than records.
        let is_whole = !damaged && items >= count && said.sum == counted;
        let late = |(id, fence)| {
            present.insert(&id);
            LateRecord { id, fence, is_counted: claimed.contains(&(id, fence)) }
        };
        let late = later.into_iter().map(late).collect();
        Ok(Listed { present, numbers: sum, is_whole, late })
    }

    /// Forgets all records, while a store is opened.
    pub(super) fn clear(&self) {
        self.tags.clear();
    }

    /// Returns whether there may be a record of `id`. `false` is certain.
    pub(super) fn may_have(&self, id: &RecordId) -> bool {
        self.tags.contains_key(&tag(id))
    }

    /// Counts a new record, before it is written.
    pub(super) fn insert(&self, id: &RecordId) {
        *self.tags.entry(tag(id)).or_insert(0) += 1;
    }

    /// Uncounts a record, after its deletion is durable.
    pub(super) fn remove(&self, id: &RecordId) {
        let last = |_: &u32, count: &mut u32| {
            *count = count.saturating_sub(1);
            *count == 0
        };
        self.tags.remove_if_mut(&tag(id), last);
    }
}

/// Returns the first bytes of an id, which is a digest.
fn tag(id: &RecordId) -> u32 {
    let [first, second, third, fourth, ..] = *id.as_bytes();
    u32::from_be_bytes([first, second, third, fourth])
}

/// The runs under way whose claims are on disk. The writer finds them here without a read, and sees when all runs of an
/// entry have ended, so that the entry can be removed. Runs of an earlier process were marked as interrupted before the
/// store was open.
#[derive(Debug, Default)]
pub(super) struct Runs {
    // Each run's record, and the number of the entry that lists it.
    live: HashMap<RecordId, (Record<Stored>, u64), RandomState>,
    // The number of runs of each entry that have not ended.
    left: HashMap<u64, usize, RandomState>,
}

impl Runs {
    /// Returns the record of a run under way.
    pub(super) fn get(&self, id: &RecordId) -> Option<&Record<Stored>> {
        self.live.get(id).map(|(record, _)| record)
    }

    /// Returns all runs under way.
    pub(super) fn all(&self) -> impl Iterator<Item = (RecordId, &Record<Stored>)> {
        self.live.iter().map(|(id, (record, _))| (*id, record))
    }

    /// Adds a run that is listed in the entry with this number.
    pub(super) fn begin(&mut self, id: RecordId, record: Record<Stored>, entry: u64) {
        self.live.insert(id, (record, entry));
        *self.left.entry(entry).or_default() += 1;
    }

    /// Returns the lowest number of an entry that lists a run.
    pub(super) fn first_entry(&self) -> Option<u64> {
        self.left.keys().min().copied()
    }

    /// Removes a run that has ended. Returns the number of its entry if it was the last one there.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_records_with_the_same_tag_the_other_stays() {
        let present = Present { tags: DashMap::default() };
        let mut bytes = [7; 32];
        let one = RecordId::from_bytes(bytes);
        bytes[31] = 8;
        let other = RecordId::from_bytes(bytes);
        assert_eq!(tag(&one), tag(&other));
        assert!(!present.may_have(&one));
        present.insert(&one);
        present.insert(&other);
        present.remove(&one);
        assert!(present.may_have(&other));
        present.remove(&other);
        assert!(!present.may_have(&other) && present.tags.is_empty(), "nothing is left");
    }
}
