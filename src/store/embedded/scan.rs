//! Lists records.

use super::layout::keys;
use super::layout::storage_engine::{ReadError, StorageEngine, scan_from};
use super::read::head;
use super::state::StoreState;
use crate::codec::{self, Stored};
use crate::key::RecordId;
use crate::record::{Fence, Record};
use crate::store::StoreError;
use crate::store::listed::{ListedRecord, OutcomeStart};
use crate::store::page::{Cursor, List, Page};

impl<E: StorageEngine> StoreState<E> {
    /// Reads the records themselves. Blocks its thread.
    pub(super) fn all(&self, engine: &E, after: Option<Cursor>, limit: usize) -> Result<Page, StoreError> {
        let after = after.and_then(Cursor::id);
        let now = self.time.now();
        let from = after.map_or_else(|| keys::RECORDS.to_vec(), |id| keys::record(&id).to_vec());
        let (mut records, mut seen, mut last) = (Vec::new(), 0, None);
        for entry in scan_from(engine, from) {
            // No record is at fault here, so the error names none: its id is all zeros.
            let (key, value) = entry.map_err(|error| self.read_failed(error, RecordId::from_bytes([0; 32])))?;
            // A key that is too short for an id is not one that the store wrote. The first one may be `after` itself.
            let Some(id) = keys::id_of(key.as_ref()).filter(|id| Some(*id) > after) else { continue };
            if seen == limit {
                return Ok(Page { records, next: last.map(Cursor::of_id) });
            }
            (seen, last) = (seen + 1, Some(id));
            let record = match codec::decode(&id, value.as_ref()) {
                Ok(record) => match record.live(now) {
                    Some(record) => Ok(record.form(|outcome| start(engine, id, record.fence, outcome))),
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
                    return Err(self.read_failed(error, id));
                }
            });
        }
        Ok(Page { records, next: None })
    }

    /// Reads the index of interrupted operations, and the record of each. Blocks its thread.
    pub(super) fn interrupted(&self, engine: &E, after: Option<Cursor>, limit: usize) -> Result<Page, StoreError> {
        let after = after.and_then(Cursor::since);
        let (mut records, mut next) = (Vec::new(), None);
        // The range begins with the last operation of the page before, which is left out.
        let from =
            after.map_or_else(|| keys::INTERRUPTED.to_vec(), |(since, id)| keys::interrupted(since, &id).to_vec());
        for entry in scan_from(engine, from) {
            // No record is at fault here, so the error names none: its id is all zeros.
            let (key, _) = entry.map_err(|error| self.read_failed(error, RecordId::from_bytes([0; 32])))?;
            let key = key.as_ref();
            if records.len() == limit {
                next = records.last().map(|last| List::Interrupted.place(last));
                break;
            }
            // A key that is too short for an id is not one that the store wrote.
            let Some(id) = keys::id_of(key) else { continue };
            match head(engine, id) {
                Ok(record) => {
                    // The operation may have been settled, or interrupted anew, since its key was read.
                    let is_meant = |record: &Record<Stored>| {
                        Some(record.since) == keys::time_of(key) && Some((record.since, id)) > after
                    };
                    let live = record.and_then(|record| record.live(self.time.now())).filter(is_meant);
                    let listed = live.map(|record| ListedRecord::without_outcome(id, &record));
                    records.extend(listed.filter(|listed| List::Interrupted.has(listed)));
                }
                // The other operations can still be settled.
                Err(error @ ReadError::Corrupt(_)) => {
                    self.report_damage(id, &self.read_failed(error, id), "left out of a list");
                }
                Err(error) => return Err(self.read_failed(error, id)),
            }
        }
        Ok(Page { records, next })
    }

    /// Returns the operations whose claims are on disk and whose runs are under way, from memory.
    pub(super) fn running(&self) -> Vec<ListedRecord> {
        self.runs.lock().all().map(|(id, record)| ListedRecord::without_outcome(id, record)).collect()
    }
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
    fence: Fence,
    outcome: &Stored,
) -> Result<OutcomeStart, ReadError> {
    match outcome {
        Stored::Inline(bytes) => Ok(OutcomeStart::of(outcome.len(), bytes)),
        Stored::Chunked { length, .. } => match engine.get(&keys::chunk(&id, fence, 0))? {
            Some(chunk) => Ok(OutcomeStart::of(*length, chunk.as_ref())),
            None => Err(ReadError::Corrupt("the beginning of the outcome is missing".to_owned())),
        },
    }
}
