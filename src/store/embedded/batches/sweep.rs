//! Deletes expired records, in slices that are small enough not to delay requests.
//!
//! A record is deleted at once, and its item in a list with the list. The chunks of a long outcome, of which there may
//! be hundreds, are left under an orphan and removed a few at a time.

use std::sync::atomic::Ordering;

use super::batch::Batch;
use crate::clock::Timestamp;
use crate::codec::Stored;
use crate::key::RecordId;
use crate::record::{Fence, Record, State};
use crate::store::StoreError;
use crate::store::embedded::layout::cleared::Cleared;
use crate::store::embedded::layout::storage_engine::{ReadError, StorageEngine, scan_from, scan_keys};
use crate::store::embedded::layout::{keys, listing};

/// The number of listing entries that are removed between two notes of how far the store has come. Each has at most 4
/// KB, so a note frees up to a quarter of a megabyte, and costs one key.
pub(crate) const NOTED_AFTER: u64 = 64;

/// The most that one slice deletes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slice {
    /// The most items of listing entries to look at, and the most chunks and orphans to remove.
    pub(crate) records: usize,
    pub(crate) chunks: usize,
}

/// The result of a slice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Swept {
    /// The number of records that were deleted.
    pub(crate) records: usize,
    /// The number of items that were looked at, whether their records were deleted or not.
    pub(crate) seen: usize,
    /// `true` if there may be more to sweep at once.
    pub(crate) more: bool,
}

/// Adds the deletion of a slice to `batch`.
pub(crate) fn sweep<E: StorageEngine>(batch: &mut Batch<'_, E>, slice: Slice) -> Result<Swept, StoreError> {
    note_cleared(batch);
    let chunks = remove_chunks(batch, slice.chunks)?;
    let (records, seen) = remove_expired(batch, slice.records)?;
    batch.swept += records;
    Ok(Swept { records, seen, more: chunks > 0 || seen > 0 })
}

/// Notes from time to time which listing entries are gone. The removals of this batch are written before the note, or
/// with it.
fn note_cleared<E: StorageEngine>(batch: &mut Batch<'_, E>) {
    let shared = batch.shared;
    if shared.removed.load(Ordering::Relaxed) < NOTED_AFTER {
        return;
    }
    shared.removed.store(0, Ordering::Relaxed);
    let below = shared.runs.lock().first_entry().unwrap_or_else(|| shared.unused_number());
    let cleared = Cleared { before: shared.swept_until(), below };
    batch.write(keys::CLEARED, cleared.encode());
    batch.cleared = Some(cleared);
}

/// Deletes the records that expiry entries list as due, the oldest first. Returns how many, and how many items were
/// looked at.
fn remove_expired<E: StorageEngine>(batch: &mut Batch<'_, E>, limit: usize) -> Result<(usize, usize), StoreError> {
    let (mut seen, mut swept, mut due) = (0, 0, None);
    let from = batch.shared.swept_until();
    for entry in scan_from(batch.engine, keys::expiry(from, 0).to_vec()) {
        let (key, value) = read(batch, entry)?;
        let (key, value) = (key.as_ref(), value.as_ref());
        // A key that is too short for a time is not one that the store wrote.
        let Some(expires) = keys::time_of(key) else { continue };
        if expires > batch.now || seen >= limit {
            // It will be late if no sweep comes to it.
            due = Some(expires);
            break;
        }
        // The engine has the entry until the step that removes it is written.
        if batch.erased.contains(key) {
            continue;
        }
        // An entry that was damaged after the opening cannot be used. The next opening notices by the sum of the
        // numbers that it is not read, and finds its records.
        let Some(records) = listing::read(key, value) else { continue };
        let mut done = 0;
        for (id, fence) in &records {
            if seen == limit {
                break;
            }
            (seen, done) = (seen + 1, done + 1);
            batch.write_if_full();
            match remove(batch, *id, *fence, key, expires)? {
                Removed::Record => swept += 1,
                Removed::Nothing => {}
                // Finding the damage took a while, so the slice ends here.
                Removed::Damaged => (swept, seen) = (swept + 1, limit),
            }
        }
        if done < records.len() {
            // The items that are left stay under the same key, so the sum of the numbers is unchanged.
            batch.write(key, listing::rest(key, value, done));
            due = Some(expires);
            break;
        }
        batch.erase_entry(key);
    }
    // What a later batch lists expires later than this one begins.
    let until = due.map_or(batch.now, |due| due.min(batch.now)).max(from);
    batch.shared.swept_until.store(until.as_millis(), Ordering::Relaxed);
    batch.shared.measured.note_due(due);
    Ok((swept, seen))
}

/// The result for one item: its record was not due any more, was deleted, or was deleted because it is damaged.
enum Removed {
    Nothing,
    Record,
    Damaged,
}

/// Removes a record that an entry lists as expiring at `expires`. Its key may have been claimed again, or the operation
/// settled, since, and then it expires later.
fn remove<E: StorageEngine>(
    batch: &mut Batch<'_, E>,
    id: RecordId,
    fence: Fence,
    key: &[u8],
    expires: Timestamp,
) -> Result<Removed, StoreError> {
    let length = batch.shared.key_filter.length_as_listed(&id, fence, expires);
    if let Some(length) = length.filter(|_| !batch.overlay.contains_key(&id)) {
        batch.remove_plain(id, length);
        return Ok(Removed::Record);
    }
    match batch.current(id) {
        Ok(Some(record)) if record.expires.is_some_and(|its| its <= expires) => {
            batch.write_record(id, Some(record), None, None)?;
            Ok(Removed::Record)
        }
        Ok(_) => Ok(Removed::Nothing),
        // A damaged record was refused until now. This entry says that its time is over, unless a later entry names the
        // record.
        Err(error @ (ReadError::Failed(_) | ReadError::Exhausted(_))) => Err(batch.shared.read_failed(error, id)),
        Err(error @ ReadError::Corrupt(_)) => {
            let error = batch.shared.read_failed(error, id);
            let number = keys::number_of(key);
            let from = batch.shared.swept_until();
            if read(batch, listing::is_named_after(batch.engine, id, from, number))? {
                return Ok(Removed::Nothing);
            }
            batch.shared.report_damage(id, &error, "swept");
            batch.remove_damaged(id, fence)?;
            Ok(Removed::Damaged)
        }
    }
}

/// Removes chunks that orphans lead to, and each orphan after its last chunk. Returns how many keys.
fn remove_chunks<E: StorageEngine>(batch: &mut Batch<'_, E>, limit: usize) -> Result<usize, StoreError> {
    let mut removed = 0;
    for orphan in scan_keys(batch.engine, keys::ORPHANS) {
        if removed >= limit {
            break;
        }
        let orphan = read(batch, orphan)?;
        let orphan = orphan.as_ref();
        let Some(id) = orphan.get(1..33).and_then(keys::id_of) else { continue };
        // This very batch may complete its record, with chunks under the same keys.
        if batch.overlay.contains_key(&id) {
            continue;
        }
        // An engine may bring back what was removed, as after a merge that left a removal out.
        let record = match batch.current(id) {
            Err(ReadError::Corrupt(_)) => None,
            record => read(batch, record)?,
        };
        if has_chunks(record.as_ref(), Fence(keys::number_of(orphan))) {
            batch.erase(orphan);
            removed += 1;
            continue;
        }
        let chunks = scan_keys(batch.engine, &keys::chunks_under(orphan)).take(limit - removed);
        for chunk in chunks {
            let chunk = read(batch, chunk)?;
            batch.erase(chunk.as_ref());
            batch.write_if_full();
            removed += 1;
        }
        if removed < limit {
            batch.erase(orphan);
            removed += 1;
        }
    }
    Ok(removed)
}

/// Returns whether a record has an outcome in chunks with this fence.
fn has_chunks(record: Option<&Record<Stored>>, fence: Fence) -> bool {
    record.is_some_and(|record| {
        record.fence == fence && matches!(record.state, State::Completed { outcome: Stored::Chunked { .. } })
    })
}

/// Returns an entry, or the error of a failed read. No record is at fault then, so the id is all zeros.
fn read<E: StorageEngine, T>(batch: &Batch<'_, E>, entry: Result<T, ReadError>) -> Result<T, StoreError> {
    entry.map_err(|error| batch.shared.read_failed(error, RecordId::from_bytes([0; 32])))
}
