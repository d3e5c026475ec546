//! The keys of the engine's map.
//!
//! | key | value | what |
//! |---|---|---|
//! | `r` id | the record ([`codec`](crate::codec)) | one per operation |
//! | `c` id fence index | up to 4,000 bytes | a chunk of an outcome over 3 KiB |
//! | `e` expires number | ids and fences, checksum | which records are forgotten then ([`listing`](super::listing)) |
//! | `n` number | ids and fences, checksum | which runs were claimed in a batch, until all of them have ended |
//! | `i` since id | fence | which operations were interrupted |
//! | `g` id fence | | whose chunks are to be removed: a tombstone |
//! | `m` name | | what is said of the store as a whole |
//!
//! Numbers are big-endian, so that keys sort by them: expiry, `since`, `fence` and `number` in 8 bytes, the index in 4.
//! All keys of a record stand in one map, so that one batch writes them together.

use crate::clock::Timestamp;
use crate::key::RecordId;
use crate::record::Fence;

/// The most bytes of an outcome in one value: with an engine's own framing it stays below 4 KiB.
pub(super) const CHUNK_BYTES: usize = 4_000;

/// The version of this layout and the codec's.
pub(super) const FORMAT: &[u8] = b"mformat";
/// The number of this opening.
pub(super) const BOOT: &[u8] = b"mboot";
/// The number of records, the latest time seen, the sum of the numbers of all `e` and `n` entries, which wraps, the
/// bytes of all outcomes, below which number the entries are that it counts, and the numbers of those that were about
/// to be removed and are not counted. See [`totals`](super::totals).
pub(super) const TOTALS: &[u8] = b"mtotals";

pub(super) fn record(id: &RecordId) -> [u8; 33] {
    let mut key = [b'r'; 33];
    key[1..].copy_from_slice(id.as_bytes());
    key
}

/// The key of an entry that lists runs.
pub(super) fn claimed(number: u64) -> [u8; 9] {
    let mut key = [b'n'; 9];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

/// The key of an entry that lists records that are forgotten then.
pub(super) fn expiry(expires: Timestamp, number: u64) -> [u8; 17] {
    let mut key = [b'e'; 17];
    key[1..9].copy_from_slice(&expires.as_millis().to_be_bytes());
    key[9..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Whether this is the key of an entry that lists records.
pub(super) fn is_entry(key: &[u8]) -> bool {
    key.starts_with(RUNNING) || key.starts_with(EXPIRY)
}

pub(super) fn interrupted(since: Timestamp, id: &RecordId) -> [u8; 41] {
    let mut key = [b'i'; 41];
    key[1..9].copy_from_slice(&since.as_millis().to_be_bytes());
    key[9..].copy_from_slice(id.as_bytes());
    key
}

pub(super) fn chunk(id: &RecordId, fence: Fence, index: u32) -> [u8; 45] {
    let mut key = [0; 45];
    key[..41].copy_from_slice(&chunks_of(id, fence));
    key[41..].copy_from_slice(&index.to_be_bytes());
    key
}

/// What the keys of all chunks of an outcome begin with.
pub(super) fn chunks_of(id: &RecordId, fence: Fence) -> [u8; 41] {
    of_outcome(b'c', id, fence)
}

/// The tombstone of an outcome whose record is gone.
pub(super) fn tombstone(id: &RecordId, fence: Fence) -> [u8; 41] {
    of_outcome(b'g', id, fence)
}

/// What all chunks of the outcome in a tombstone begin with.
pub(super) fn buried(tombstone: &[u8]) -> Vec<u8> {
    let mut prefix = tombstone.to_vec();
    if let Some(tag) = prefix.first_mut() {
        *tag = b'c';
    }
    prefix
}

/// The keys of the chunks of an outcome of `length` bytes.
pub(super) fn chunks(id: RecordId, fence: Fence, length: u64) -> impl Iterator<Item = [u8; 45]> {
    let count = length.div_ceil(CHUNK_BYTES as u64);
    (0..u32::try_from(count).unwrap_or(u32::MAX)).map(move |index| chunk(&id, fence, index))
}

/// The number at the end of a key of an entry that lists records, or of an item in such an entry.
pub(super) fn number_of(key: &[u8]) -> u64 {
    key.last_chunk().map_or(0, |number| u64::from_be_bytes(*number))
}

/// All keys of one kind.
pub(super) const RECORDS: &[u8] = b"r";
pub(super) const EXPIRY: &[u8] = b"e";
pub(super) const RUNNING: &[u8] = b"n";
pub(super) const INTERRUPTED: &[u8] = b"i";
pub(super) const TOMBSTONES: &[u8] = b"g";

/// The id that these bytes end with.
pub(super) fn id_of(key: &[u8]) -> Option<RecordId> {
    key.last_chunk().copied().map(RecordId::from_bytes)
}

/// The time in an index key.
pub(super) fn time_of(key: &[u8]) -> Option<Timestamp> {
    let bytes = key.get(1..9)?.try_into().ok()?;
    Some(Timestamp::from_millis(u64::from_be_bytes(bytes)))
}

fn of_outcome(tag: u8, id: &RecordId, fence: Fence) -> [u8; 41] {
    let mut key = [tag; 41];
    key[1..33].copy_from_slice(id.as_bytes());
    key[33..].copy_from_slice(&fence.0.to_be_bytes());
    key
}
