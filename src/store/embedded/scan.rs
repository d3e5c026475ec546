//! Lists records: all of them, in the order of their ids, and those whose runs are under way.

use std::sync::Arc;

use super::layout::keys;
use super::layout::storage_engine::{ReadError, StorageEngine};
use super::read::on_blocking_thread;
use super::state::StoreState;
use crate::codec::{self, Stored};
use crate::key::RecordId;
use crate::record::Record;
use crate::store::StoreError;
use crate::store::listed::{ListedRecord, OutcomeStart, Scanned};

/// Looks at the first `limit` records after the id `after`.
pub(super) async fn scan<E: StorageEngine>(
    shared: &Arc<StoreState<E>>,
    after: Option<RecordId>,
    limit: usize,
) -> Result<Scanned, StoreError> {
    shared.check()?;
    on_blocking_thread(shared, move |shared, engine| list(shared, engine, after, limit)).await
}

/// Reads the records themselves. Blocks its thread.
fn list<E: StorageEngine>(
    shared: &StoreState<E>,
    engine: &E,
    after: Option<RecordId>,
    limit: usize,
) -> Result<Scanned, StoreError> {
    let now = shared.time.now();
    let from = after.map_or_else(|| keys::RECORDS.to_vec(), |id| keys::record(&id).to_vec());
    let (mut records, mut seen, mut last) = (Vec::new(), 0, None);
    for entry in engine.range(from) {
        // No record is at fault here, so the error names none: its id is all zeros.
        let (key, value) = entry.map_err(|error| shared.read_failed(error, RecordId::from_bytes([0; 32])))?;
        if !key.as_ref().starts_with(keys::RECORDS) {
            break;
        }
        // A key that is too short for an id is not one that the store wrote. The first one may be `after` itself.
        let Some(id) = keys::id_of(key.as_ref()).filter(|id| Some(*id) > after) else { continue };
        if seen == limit {
            return Ok(Scanned { records, next: last });
        }
        (seen, last) = (seen + 1, Some(id));
        let record = match codec::decode(&id, value.as_ref()) {
            Ok(record) => match record.live(now) {
                Some(record) => Ok(record.form(|outcome| start(engine, id, &record, outcome))),
                None => continue,
            },
            Err(error) => Err(error.to_string()),
        };
        records.push(match record {
            Ok(Ok(record)) => ListedRecord::readable(id, record),
            // The record may have been replaced since it was read.
            Ok(Err(ReadError::Corrupt(reason))) | Err(reason) if is_current(engine, id, value.as_ref()) => {
                ListedRecord::damaged(id, reason, None)
            }
            Ok(Err(ReadError::Corrupt(_))) | Err(_) => continue,
            Ok(Err(error @ (ReadError::Failed(_) | ReadError::Exhausted(_)))) => {
                return Err(shared.read_failed(error, id));
            }
        });
    }
    Ok(Scanned { records, next: None })
}

/// Returns whether the record still has these bytes.
fn is_current<E: StorageEngine>(engine: &E, id: RecordId, bytes: &[u8]) -> bool {
    // A read that fails here fails again where it is needed.
    engine.get(&keys::record(&id)).is_ok_and(|now| now.is_some_and(|now| now.as_ref() == bytes))
}

/// Returns what is listed of an outcome. Of one in chunks, the first chunk is read.
fn start<E: StorageEngine>(
    engine: &E,
    id: RecordId,
    record: &Record<Stored>,
    outcome: &Stored,
) -> Result<OutcomeStart, ReadError> {
    match outcome {
        Stored::Inline(bytes) => Ok(OutcomeStart::of(outcome.len(), bytes)),
        Stored::Chunked { length, .. } => match engine.get(&keys::chunk(&id, record.fence, 0))? {
            Some(chunk) => Ok(OutcomeStart::of(*length, chunk.as_ref())),
            None => Err(ReadError::Corrupt("the beginning of the outcome is missing".to_owned())),
        },
    }
}

/// Returns the operations whose claims are on disk and whose runs are under way, from memory.
pub(super) fn running<E: StorageEngine>(shared: &StoreState<E>) -> Result<Vec<ListedRecord>, StoreError> {
    shared.check()?;
    let no_outcome = |_: &Stored| Ok::<_, std::convert::Infallible>(OutcomeStart::of(0, &[]));
    let mut running: Vec<_> = shared
        .runs
        .lock()
        .all()
        .map(|(id, record)| {
            let Ok(record) = record.form(no_outcome);
            ListedRecord::readable(id, record)
        })
        .collect();
    running.sort_by_key(|record| record.id);
    Ok(running)
}
