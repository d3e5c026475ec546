//! Deleting what is past its expiry, in slices small enough to hold nobody up.
//!
//! A record goes with its index entries, which are few. The pieces of a long outcome, which may be hundreds, are left in a
//! grave and removed bit by bit.

use super::batch::Batch;
use super::keys;
use super::read::ReadError;
use crate::key::RecordId;
use crate::record::{Change, Fence};
use crate::store::StoreError;

/// The most that one slice deletes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slice {
    pub(super) records: usize,
    pub(super) pieces: usize,
}

/// What came of a slice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Swept {
    pub(super) records: usize,
    /// Whether it is worth looking again at once.
    pub(super) more: bool,
}

/// Adds the deletion of a slice to `batch`.
pub(super) fn sweep(batch: &mut Batch<'_>, slice: Slice) -> Result<Swept, StoreError> {
    let pieces = remove_pieces(batch, slice.pieces)?;
    let (records, seen) = remove_expired(batch, slice.records)?;
    Ok(Swept { records, more: pieces > 0 || seen > 0 })
}

fn remove_expired(batch: &mut Batch<'_>, limit: usize) -> Result<(usize, usize), StoreError> {
    let (mut seen, mut swept) = (0, 0);
    for entry in batch.database.tree.scan_prefix(keys::EXPIRY) {
        let (key, value) = read(batch, entry)?;
        let (Some(expires), Some(id)) = (keys::time_of(&key), keys::id_of(&key)) else { continue };
        if expires > batch.now || seen == limit {
            break;
        }
        seen += 1;
        match batch.current(id) {
            // Compared again: the record may have been claimed anew since this entry was written.
            Ok(Some(record)) if record.expires() == Some(expires) => {
                batch.step(id, None, |_, _| Ok((Change::Delete, ())))?;
                swept += 1;
            }
            // An entry without its record: nothing would ever remove it.
            Ok(_) => batch.erase(&key),
            // A damaged record was refused until now. Its time is over, as this entry knows; its key is free.
            Err(error) => {
                let error = error.for_caller(batch.shared, id);
                batch.shared.report_damage(id, &error, "swept");
                let fence = value.as_ref().try_into().map(u64::from_be_bytes).unwrap_or_default();
                batch.erase(&key);
                batch.remove_damaged(id, Fence(fence));
                swept += 1;
            }
        }
    }
    Ok((swept, seen))
}

fn remove_pieces(batch: &mut Batch<'_>, limit: usize) -> Result<usize, StoreError> {
    let mut removed = 0;
    for grave in batch.database.tree.scan_prefix(keys::GRAVES).keys() {
        if removed >= limit {
            break;
        }
        let grave = read(batch, grave)?;
        let pieces = batch.database.tree.scan_prefix(keys::buried(&grave)).keys().take(limit - removed);
        for piece in pieces {
            let piece = read(batch, piece)?;
            batch.erase(&piece);
            removed += 1;
        }
        if removed < limit {
            batch.erase(&grave);
            removed += 1;
        }
    }
    Ok(removed)
}

fn read<T>(batch: &Batch<'_>, entry: sled::Result<T>) -> Result<T, StoreError> {
    entry.map_err(|error| ReadError::from(error).for_caller(batch.shared, RecordId::from_bytes([0; 32])))
}
