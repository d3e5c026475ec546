//! Deleting what is past its expiry, in slices.

use super::batch::Batch;
use super::keys;
use super::read::ReadError;
use crate::key::RecordId;
use crate::record::Change;
use crate::store::StoreError;

/// Adds the deletion of at most `limit` expired records to `batch`; says how many, and whether there may be more.
pub(super) fn slice(batch: &mut Batch<'_>, limit: usize) -> Result<(usize, bool), StoreError> {
    let shared = batch.shared;
    let failed = |error: sled::Error| ReadError::from(error).for_caller(shared, RecordId::from_bytes([0; 32]));
    let (mut seen, mut swept) = (0, 0);
    for entry in batch.database.tree.scan_prefix(keys::EXPIRY).keys() {
        let key = entry.map_err(failed)?;
        let (Some(expires), Some(id)) = (keys::time_of(&key), keys::id_of(&key)) else { continue };
        if expires > batch.now || seen == limit {
            return Ok((swept, expires <= batch.now));
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
            // A damaged record stays, so that its key stays refused; its entry goes, or it would be met for ever.
            Err(error) => {
                tracing::error!(target: "tower_idempotency", record_id = id.short(), error = %error.for_caller(shared, id), "sweeping");
                batch.erase(&key);
            }
        }
    }
    Ok((swept, false))
}
