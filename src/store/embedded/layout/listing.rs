//! Entries that list many records: those of one batch that expire at one time, and those that it claimed. A batch fills
//! them while it decides its commands, and they are written with its step.
//!
//! An engine's costs depend on the number of keys, so a batch writes one entry instead of one for each record. When a
//! record changes, its entries stay as they are: a reader compares an entry with the record, and ignores what is
//! outdated. These entries are read at every opening to find out which records there are. So each has a checksum, and
//! the totals have the sum of their numbers, so that the loss of an entry is noticed.

use std::collections::BTreeMap;

use super::keys;
use super::storage_engine::{ReadError, StorageEngine, scan_from};
use super::writes::Writes;
use crate::clock::Timestamp;
use crate::codec::{CHECKSUM_BYTES, checksum};
use crate::key::RecordId;
use crate::record::Fence;

const ID_BYTES: usize = 32;
/// An id and its fence.
const ITEM_BYTES: usize = ID_BYTES + 8;
/// The most bytes in one entry, so that it stays below 4 KiB.
const LIST_BYTES: usize = 100 * ITEM_BYTES;

/// The listing entries of a batch.
#[derive(Debug, Default)]
pub(crate) struct Listings {
    /// The items by their expiry. They are divided into entries, and get their numbers, when they are written.
    expiring: BTreeMap<Timestamp, Vec<u8>>,
    /// The items of claims by the number of their entry, of which only the last one has room. Claims get their
    /// entry's number at once, because `Runs` counts by it.
    claimed: BTreeMap<u64, Vec<u8>>,
    /// The bytes that a new list has room for.
    room: usize,
}

impl Listings {
    /// Gives new lists room for this many records, as far as one entry holds them.
    pub(crate) fn reserve(&mut self, records: usize) {
        self.room = (records * ITEM_BYTES).min(LIST_BYTES);
    }

    /// Lists a record as expiring at `expires`.
    pub(crate) fn expiring(&mut self, expires: Timestamp, id: &RecordId, fence: Fence) {
        let room = self.room;
        append(self.expiring.entry(expires).or_insert_with(|| Vec::with_capacity(room)), id, fence);
    }

    /// Lists a record as claimed, and returns the number of its entry. `next` returns a new number.
    pub(crate) fn claimed(&mut self, id: &RecordId, fence: Fence, next: impl FnOnce() -> u64) -> u64 {
        let room = self.room;
        let last = self.claimed.last_key_value().filter(|(_, list)| list.len() < LIST_BYTES);
        let number = last.map_or_else(next, |(number, _)| *number);
        append(self.claimed.entry(number).or_insert_with(|| Vec::with_capacity(room)), id, fence);
        number
    }

    /// Forgets an entry of claims that is not written yet. Returns whether there was one with this number.
    pub(crate) fn forget(&mut self, number: u64) -> bool {
        self.claimed.remove(&number).is_some()
    }

    /// Puts all entries into `writes`, and returns the sum of their numbers. `next` returns new numbers.
    pub(crate) fn write(&mut self, writes: &mut Writes, mut next: impl FnMut() -> u64) -> u64 {
        let mut sum = 0_u64;
        let mut write = |number: u64, key: &[u8], items: &[u8]| {
            writes.insert(key, value(key, items));
            sum = sum.wrapping_add(number);
        };
        for (expires, lists) in std::mem::take(&mut self.expiring) {
            for list in lists.chunks(LIST_BYTES) {
                let number = next();
                write(number, &keys::expiry(expires, number), list);
            }
        }
        for (number, list) in std::mem::take(&mut self.claimed) {
            write(number, &keys::runs(number), &list);
        }
        sum
    }
}

/// Adds an item: the id, then the fence, big-endian.
fn append(list: &mut Vec<u8>, id: &RecordId, fence: Fence) {
    list.extend_from_slice(id.as_bytes());
    list.extend_from_slice(&fence.0.to_be_bytes());
}

/// Returns the value of an entry: its items, and a checksum that fits only under this key.
fn value(key: &[u8], items: &[u8]) -> Vec<u8> {
    [items, &checksum(key, items)].concat()
}

/// Returns the records that an entry lists, or `None` if it is damaged.
pub(crate) fn read(key: &[u8], value: &[u8]) -> Option<Vec<(RecordId, Fence)>> {
    let (items, sum) = value.split_last_chunk::<CHECKSUM_BYTES>()?;
    let (items, []) = items.as_chunks::<ITEM_BYTES>() else { return None };
    if checksum(key, items.as_flattened()) != *sum {
        return None;
    }
    let record = |item: &[u8; ITEM_BYTES]| {
        let (id, fence) = item.split_first_chunk()?;
        Some((RecordId::from_bytes(*id), Fence(keys::number_of(fence))))
    };
    items.iter().map(record).collect()
}

/// Returns the value of an entry without the first `count` of its records.
pub(crate) fn rest(key: &[u8], old: &[u8], count: usize) -> Vec<u8> {
    let items = old.len().saturating_sub(CHECKSUM_BYTES);
    value(key, old.get(count * ITEM_BYTES..items).unwrap_or_default())
}

/// Returns whether an entry of expiries from a time on, with a higher number than this one, lists a record. Reads all
/// such entries, so only damaged records are looked up by it.
pub(crate) fn is_named_after<E: StorageEngine>(
    engine: &E,
    id: RecordId,
    from: Timestamp,
    number: u64,
) -> Result<bool, ReadError> {
    for entry in scan_from(engine, keys::expiry(from, 0).to_vec()) {
        let (key, value) = entry?;
        let key = key.as_ref();
        let names = || read(key, value.as_ref()).is_some_and(|records| records.iter().any(|(listed, _)| *listed == id));
        if keys::number_of(key) > number && names() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> RecordId {
        RecordId::from_bytes([number; ID_BYTES])
    }

    #[test]
    fn what_was_listed_is_read_back_from_entries_below_4_kib() {
        let (mut listings, mut writes) = (Listings::default(), Writes::default());
        let times = [Timestamp::from_millis(5), Timestamp::from_millis(7)];
        let mut number = 100;
        let mut next = || {
            number += 1;
            number
        };
        let mut numbers = Vec::new();
        for count in 0..=200_u8 {
            listings.expiring(times[usize::from(count % 2)], &id(count), Fence(count.into()));
            numbers.push(listings.claimed(&id(count), Fence(count.into()), &mut next));
        }
        numbers.dedup();
        assert_eq!(numbers, [101, 102, 103]);
        assert!(listings.forget(102) && !listings.forget(102));
        assert_eq!(listings.write(&mut writes, &mut next), 101 + 103 + 104 + 105 + 106);

        let mut entries: Vec<_> = writes.in_order().into_iter().map(|(key, value)| (key, value.unwrap())).collect();
        entries.sort();
        assert!(entries.iter().all(|(_, value)| value.len() <= 4_008), "small enough for every engine");
        let of = |prefix: &[u8]| {
            let read = |(key, value): &(Vec<u8>, bytes::Bytes)| read(key, value).unwrap();
            entries.iter().filter(|(key, _)| key.starts_with(prefix)).map(read).collect::<Vec<_>>()
        };
        let all =
            |numbers: Vec<u8>| numbers.iter().map(|count| (id(*count), Fence((*count).into()))).collect::<Vec<_>>();
        let even: Vec<u8> = (0..=200).step_by(2).collect();
        let expected = [all(even[..100].to_vec()), all(even[100..].to_vec()), all((1..=200).step_by(2).collect())];
        assert_eq!(of(keys::EXPIRY), expected);
        assert_eq!(of(keys::RUNS), [all((0..100).collect()), all(vec![200])]);
        let mut again = Writes::default();
        listings.write(&mut again, || 0);
        assert!(again.in_order().is_empty(), "all of it was taken");
    }

    #[test]
    fn damaged_entries_are_not_read() {
        let time = Timestamp::from_millis(5);
        let (id, fence) = (id(3), Fence(9));
        let item = [&id.as_bytes()[..], &fence.0.to_be_bytes()].concat();
        let key = keys::expiry(time, 1);
        let three = super::value(&key, &item.repeat(3));
        assert_eq!(read(&key, &three), Some(vec![(id, fence); 3]));
        assert_eq!(read(&key, &rest(&key, &three, 1)), Some(vec![(id, fence); 2]));
        let flipped: Vec<u8> = three.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == 7)).collect();
        let cut = [&item[..], &three[3 * ITEM_BYTES..]].concat();
        for damaged in [&three[1..], &three[..ITEM_BYTES], &flipped, &cut, &[]] {
            assert_eq!(read(&key, damaged), None);
        }
        assert_eq!(read(&keys::expiry(time, 2), &three), None, "under another key than its own");
    }
}
