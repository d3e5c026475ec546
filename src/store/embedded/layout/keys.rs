//! The keys of the engine's map.
//!
//! | key | value | what |
//! |---|---|---|
//! | `r` id | the record ([`codec`](crate::codec)) | one per operation |
//! | `c` id fence index | up to 4,000 bytes | a chunk of an outcome over 3 KiB |
//! | `e` expires number | ids and fences, checksum | lists records that expire then ([`listing`](super::listing)) |
//! | `n` number | ids and fences, checksum | lists the runs that a batch claimed, until all of them have ended |
//! | `i` since id | fence | one per interrupted operation |
//! | `g` id fence | | an orphan: the outcome's chunks are to be removed |
//! | `m` name | | a value about the store as a whole |
//!
//! Numbers are big-endian, so that keys sort by them: expiry, `since`, `fence` and `number` in 8 bytes, the index in 4.
//! All keys of a record are in one map, so that one batch writes them together.

use crate::clock::Timestamp;
use crate::key::RecordId;
use crate::record::Fence;

/// The most bytes of an outcome in one value. With an engine's own framing a value stays below 4 KiB.
pub(crate) const CHUNK_BYTES: usize = 4_000;

/// The key of the version of this layout and of the codec.
pub(crate) const FORMAT: &[u8] = b"mformat";
/// The key of the boot number.
pub(crate) const BOOT: &[u8] = b"mboot";
/// The key of the totals: the number of records, the latest time seen, the sum of the numbers of all `e` and `n`
/// entries (which wraps), the bytes of all outcomes, the number of the step that wrote them, the number below which
/// entries are counted, and the numbers of entries that were about to be removed and are not counted. See
/// [`totals`](super::totals).
pub(crate) const TOTALS: &[u8] = b"mtotals";

/// The key of the time and the number before which no listing entry is left; see [`cleared`](super::cleared).
pub(crate) const CLEARED: &[u8] = b"mcleared";

pub(crate) fn record(id: &RecordId) -> [u8; 33] {
    join(&[RECORDS, id.as_bytes()])
}

/// Returns the key of an entry that lists runs.
pub(crate) fn runs(number: u64) -> [u8; 9] {
    join(&[RUNS, &number.to_be_bytes()])
}

/// Returns the key of an entry that lists records that expire at that time.
pub(crate) fn expiry(expires: Timestamp, number: u64) -> [u8; 17] {
    join(&[EXPIRY, &expires.as_millis().to_be_bytes(), &number.to_be_bytes()])
}

/// Returns whether this is the key of an entry that lists records, or of a chunk of an outcome.
pub(crate) fn is_entry_or_chunk(key: &[u8]) -> bool {
    [RUNS, EXPIRY, CHUNKS].iter().any(|prefix| key.starts_with(prefix))
}

/// Returns the key by which an interrupted operation is listed, the oldest first.
pub(crate) fn interrupted(since: Timestamp, id: &RecordId) -> [u8; 41] {
    join(&[INTERRUPTED, &since.as_millis().to_be_bytes(), id.as_bytes()])
}

pub(crate) fn chunk(id: &RecordId, fence: Fence, index: u32) -> [u8; 45] {
    join(&[&chunks_of(id, fence), &index.to_be_bytes()])
}

/// Returns the prefix of the keys of all chunks of an outcome. An id can have several, under different fences.
pub(crate) fn chunks_of(id: &RecordId, fence: Fence) -> [u8; 41] {
    join(&[CHUNKS, id.as_bytes(), &fence.0.to_be_bytes()])
}

/// Returns the key of the orphan of an outcome whose record is gone.
pub(crate) fn orphan(id: &RecordId, fence: Fence) -> [u8; 41] {
    join(&[ORPHANS, id.as_bytes(), &fence.0.to_be_bytes()])
}

/// Returns the prefix of the keys of all chunks that an orphan leads to.
pub(crate) fn chunks_under(orphan: &[u8]) -> Vec<u8> {
    let mut prefix = orphan.to_vec();
    if let Some(tag) = prefix.first_mut() {
        *tag = CHUNKS[0];
    }
    prefix
}

/// Returns the keys of the chunks of an outcome of `length` bytes.
pub(crate) fn chunks(id: RecordId, fence: Fence, length: u64) -> impl Iterator<Item = [u8; 45]> {
    let count = length.div_ceil(CHUNK_BYTES as u64);
    (0..u32::try_from(count).unwrap_or(u32::MAX)).map(move |index| chunk(&id, fence, index))
}

/// Returns the number at the end of the key of a listing entry, or of an item in such an entry; 0 if it is too short.
pub(crate) fn number_of(key: &[u8]) -> u64 {
    key.last_chunk().map_or(0, |number| u64::from_be_bytes(*number))
}

/// The prefixes of the kinds of keys.
pub(crate) const RECORDS: &[u8] = b"r";
const CHUNKS: &[u8] = b"c";
pub(crate) const EXPIRY: &[u8] = b"e";
pub(crate) const RUNS: &[u8] = b"n";
pub(crate) const INTERRUPTED: &[u8] = b"i";
pub(crate) const ORPHANS: &[u8] = b"g";

/// Returns the id that the key ends with.
pub(crate) fn id_of(key: &[u8]) -> Option<RecordId> {
    key.last_chunk().copied().map(RecordId::from_bytes)
}

/// Returns the time in an index key.
pub(crate) fn time_of(key: &[u8]) -> Option<Timestamp> {
    let bytes = key.get(1..9)?.try_into().ok()?;
    Some(Timestamp::from_millis(u64::from_be_bytes(bytes)))
}

/// Returns the key that has these parts, which have `N` bytes together.
fn join<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let (mut key, mut at) = ([0; N], 0);
    for part in parts {
        key[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    key
}
