//! The keys of the store's tree.
//!
//! | key | value | what |
//! |---|---|---|
//! | `r` id | the record ([`codec`](crate::codec)) | one per operation |
//! | `c` id fence index | up to 4,000 bytes | a piece of an outcome over 3 KiB |
//! | `e` expires id | fence | when a record is forgotten |
//! | `n` id | fence | which operations are running |
//! | `i` since id | fence | which operations were interrupted |
//! | `g` id fence | | whose pieces are to be removed: a grave |
//! | `m` name | | what is said of the store as a whole |
//!
//! Numbers are big-endian, so that keys sort by them: expiry, `since`, `fence` in 8 bytes, the index in 4. All keys of a
//! record stand in one tree, so that one batch changes them together.

use crate::clock::Timestamp;
use crate::key::RecordId;
use crate::record::Fence;

/// The name of the store's tree.
pub(super) const TREE: &str = "tower-idempotency";
/// The most bytes of an outcome in one value: with sled's own framing it stays below 4 KiB.
pub(super) const CHUNK_BYTES: usize = 4_000;

/// The version of this layout and the codec's.
pub(super) const FORMAT: &[u8] = b"mformat";
/// The number of this opening.
pub(super) const BOOT: &[u8] = b"mboot";
/// The number of records, and the latest time seen.
pub(super) const TOTALS: &[u8] = b"mtotals";

pub(super) fn record(id: &RecordId) -> [u8; 33] {
    tagged(b'r', id)
}

pub(super) fn running(id: &RecordId) -> [u8; 33] {
    tagged(b'n', id)
}

pub(super) fn expiry(expires: Timestamp, id: &RecordId) -> [u8; 41] {
    timed(b'e', expires, id)
}

pub(super) fn interrupted(since: Timestamp, id: &RecordId) -> [u8; 41] {
    timed(b'i', since, id)
}

pub(super) fn chunk(id: &RecordId, fence: Fence, index: u32) -> [u8; 45] {
    let mut key = [0; 45];
    key[..33].copy_from_slice(&tagged(b'c', id));
    key[33..41].copy_from_slice(&fence.0.to_be_bytes());
    key[41..].copy_from_slice(&index.to_be_bytes());
    key
}

/// The grave of an outcome whose record is gone.
pub(super) fn grave(id: &RecordId, fence: Fence) -> [u8; 41] {
    let mut key = [b'g'; 41];
    key[1..33].copy_from_slice(id.as_bytes());
    key[33..].copy_from_slice(&fence.0.to_be_bytes());
    key
}

/// What all pieces of the outcome in a grave begin with.
pub(super) fn buried(grave: &[u8]) -> Vec<u8> {
    let mut prefix = grave.to_vec();
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

/// All keys of one kind.
pub(super) const EXPIRY: &[u8] = b"e";
pub(super) const RUNNING: &[u8] = b"n";
pub(super) const INTERRUPTED: &[u8] = b"i";
pub(super) const GRAVES: &[u8] = b"g";

/// The id at the end of an index key.
pub(super) fn id_of(key: &[u8]) -> Option<RecordId> {
    key.last_chunk().copied().map(RecordId::from_bytes)
}

/// The time in an index key.
pub(super) fn time_of(key: &[u8]) -> Option<Timestamp> {
    let bytes = key.get(1..9)?.try_into().ok()?;
    Some(Timestamp::from_millis(u64::from_be_bytes(bytes)))
}

fn tagged(tag: u8, id: &RecordId) -> [u8; 33] {
    let mut key = [tag; 33];
    key[1..].copy_from_slice(id.as_bytes());
    key
}

fn timed(tag: u8, time: Timestamp, id: &RecordId) -> [u8; 41] {
    let mut key = [tag; 41];
    key[1..9].copy_from_slice(&time.as_millis().to_be_bytes());
    key[9..].copy_from_slice(id.as_bytes());
    key
}
