//! Writes the entries that list the records anew, from the records themselves, if some are damaged or lost.

use super::batches::batch::Batch;
use super::batches::records::outcome_bytes;
use super::layout::keys;
use super::layout::storage_engine::{ReadError, StorageEngine, scan_from, scan_keys};
use super::state::StoreState;
use crate::key::RecordId;
use crate::record::Fence;
use crate::store::StoreError;

/// The number of records, or entries, that are written in one batch.
const PER_BATCH: usize = 512;

/// Reads every record and lists it; runs are marked as interrupted. If the process ends meanwhile, the next opening
/// begins the repair again.
pub(super) fn repair<E: StorageEngine>(shared: &StoreState<E>, engine: &E) -> Result<(), String> {
    tracing::error!(
        target: "tower_idempotency", path = %shared.path.display(),
        "what lists the records is damaged; it is made anew, for which every record is read"
    );
    // Entries of this repair have later numbers, and the old ones earlier numbers.
    let first = shared.next_number();
    shared.key_filter.clear();
    let failed = |error: ReadError| error.to_string();
    let mut ids = Vec::new();
    for key in scan_keys(engine, keys::RECORDS) {
        let id = keys::id_of(key.map_err(failed)?.as_ref()).ok_or("a key makes no sense")?;
        shared.key_filter.insert(&id);
        ids.push(id);
    }
    shared.totals.lock().count = ids.len() as u64;
    // `list_again` adds the bytes of each outcome again.
    shared.totals.lock().bytes = 0;
    for slice in ids.chunks(PER_BATCH) {
        let mut batch = Batch::new(shared, engine);
        for id in slice {
            list_again(&mut batch, *id).map_err(|error| error.to_string())?;
            batch.write_if_full();
        }
        batch.commit()?;
    }
    let old = |key: &E::Value| keys::number_of(key.as_ref()) < first;
    let entries = || shared.cleared.firsts().into_iter().flat_map(|from| scan_from(engine, from));
    // Entries from the first unreadable one on stay; they do no harm.
    let outdated: Vec<_> = entries().map_while(Result::ok).map(|(key, _)| key).filter(old).collect();
    for slice in outdated.chunks(PER_BATCH) {
        let mut batch = Batch::new(shared, engine);
        // The sum of numbers is not kept up here; it is made anew below.
        slice.iter().for_each(|key| batch.erase(key.as_ref()));
        batch.commit()?;
    }
    let numbers = entries().map_while(Result::ok).map(|(key, _)| keys::number_of(key.as_ref()));
    let sum = numbers.fold(0, u64::wrapping_add);
    shared.totals.lock().numbers = sum;
    // The totals are written alone, which have the sum.
    let mut batch = Batch::new(shared, engine);
    batch.step.has_writes = true;
    batch.commit()
}

/// Lists a record, past its expiry or not. A run is listed as interrupted.
fn list_again<E: StorageEngine>(batch: &mut Batch<'_, E>, id: RecordId) -> Result<(), StoreError> {
    match batch.current(id) {
        Ok(Some(record)) => {
            batch.totals.bytes = batch.totals.bytes.saturating_add_signed(outcome_bytes(Some(&record)));
            match record.expires {
                Some(expires) => drop(batch.list_expiry(id, record.fence, expires)),
                None => batch.interrupt_run(id)?,
            }
        }
        // The key was there a moment ago, and no other thread writes while a store is opened.
        Ok(None) => {}
        Err(error @ ReadError::Corrupt(_)) => {
            let error = batch.shared.read_failed(error, id);
            // Its fence is not known. So the sweep does not find the chunks of its outcome, and they stay.
            batch.refuse_damaged(id, Fence(0), &error);
        }
        Err(error) => return Err(batch.shared.read_failed(error, id)),
    }
    Ok(())
}
