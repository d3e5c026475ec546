//! The keys of a record: its own, those that list it, and those of its outcome's chunks. At an opening, marks the runs
//! of the last process as interrupted.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;

use super::batch::Batch;
use crate::clock::Timestamp;
use crate::codec::{self, Stored};
use crate::key::RecordId;
use crate::record::{Cause, Fence, Record, State, Transition};
use crate::store::StoreError;
use crate::store::embedded::layout::keys;
use crate::store::embedded::layout::storage_engine::{ReadError, StorageEngine, scan_keys};
use crate::store::embedded::layout::totals::Totals;

/// The bytes that a record adds to an entry that lists it: its id and fence. They count for the step at once, while
/// `take_writes` makes the entry later.
const LISTED_BYTES: usize = 40;

/// The time for which the key of a damaged record is refused if the record does not say until when. It is as long as
/// that of an interrupted one by default.
const DAMAGED_RETENTION: Duration = Duration::from_secs(30 * 86_400);

impl<E: StorageEngine> Batch<'_, E> {
    /// Marks a run of the last process as interrupted.
    pub(crate) fn interrupt_run(&mut self, id: RecordId) -> Result<(), StoreError> {
        let current = self.current(id).map_err(|error| self.shared.read_failed(error, id))?;
        // Otherwise the run has ended, or its record is gone: its listing is outdated.
        if let Some(Record { state: State::Running { .. }, fence, .. }) = current {
            self.take(id, Transition::Interrupt { fence, cause: Cause::ProcessEnded, lost: None })?;
            self.shared.slots.telemetry.found_interrupted();
        }
        Ok(())
    }

    /// Lists when a record that cannot be read expires, if nothing else says so. Its key is refused until then.
    pub(crate) fn refuse_damaged(&mut self, id: RecordId, fence: Fence, error: &StoreError) {
        self.shared.report_damage(id, error, "refused for 30 days");
        self.list_expiry(id, fence, self.now.plus(DAMAGED_RETENTION));
    }

    /// Replaces a record by another one, or removes it. `outcome` has the bytes that the new one refers to.
    pub(crate) fn write_record(
        &mut self,
        id: RecordId,
        old: Option<Record<Stored>>,
        new: Option<Record<Stored>>,
        outcome: Option<Bytes>,
    ) -> Result<(), StoreError> {
        let corrupt = |error: codec::CodecError| StoreError::Corrupt { id, reason: error.to_string() };
        let bytes = new.as_ref().map(|record| codec::encode(&id, record)).transpose().map_err(corrupt)?;
        self.shared.cache.remove(&id);
        self.step.has_writes = true;
        let Totals { count, bytes: outcomes, .. } = &mut self.totals;
        *count = count.saturating_add_signed(i64::from(new.is_some()) - i64::from(old.is_some()));
        *outcomes = outcomes.saturating_add_signed(outcome_bytes(new.as_ref()) - outcome_bytes(old.as_ref()));
        if !is_one_by_one(old.as_ref(), new.as_ref()) {
            self.step.writes.is_atomic = true;
        }
        if self.overlay.contains_key(&id) {
            // An outcome that an earlier command of this batch recorded is replaced or removed.
            self.fresh.retain(|(earlier, _)| *earlier != id);
        }
        match (&old, &new) {
            // Memory counts a record before it is written, and takes it out only once its deletion is durable.
            (None, Some(_)) => self.shared.key_filter.insert(&id),
            (Some(_), None) => self.gone.push(id),
            _ => {}
        }
        if let Some(old) = &old {
            self.leave(id, old);
        }
        // If the expiry has not changed, as after an inquiry, it is listed already.
        let expires = new.as_ref().and_then(|new| new.expires);
        let expires = expires.filter(|_| expires != old.as_ref().and_then(|old| old.expires));
        match (&new, bytes) {
            (Some(record), Some(bytes)) => {
                let listed = expires.map(|expires| self.list_expiry(id, record.fence, expires));
                self.shared.key_filter.note(&id, record, listed);
                self.enter(id, record, outcome.unwrap_or_default());
                self.step.writes.insert(&keys::record(&id), bytes);
            }
            _ => self.step.writes.remove(&keys::record(&id)),
        }
        self.overlay.insert(id, new);
        Ok(())
    }

    /// Writes the keys that go with a record, except its own and those that list its expiry.
    fn enter(&mut self, id: RecordId, record: &Record<Stored>, outcome: Bytes) {
        match &record.state {
            State::Running { .. } => {
                self.step.writes.bytes += LISTED_BYTES;
                let entry = self.step.listings.claimed(&id, record.fence, || self.shared.next_number());
                self.shared.runs.lock().begin(id, record.clone(), entry);
            }
            State::Interrupted { .. } => {
                let fence = record.fence.0.to_be_bytes().to_vec();
                self.step.writes.insert(&keys::interrupted(record.since, &id), fence);
            }
            State::Consumed { .. } => {}
            State::Completed { outcome: stored } => {
                if let Stored::Chunked { length, .. } = stored {
                    self.write_chunks(id, record.fence, *length, &outcome);
                }
                let Ok(record) = record.form(|_| Ok::<_, Infallible>(outcome));
                self.fresh.push((id, record));
            }
        }
    }

    /// Removes the keys that go with a record, except its own and those that list its expiry.
    fn leave(&mut self, id: RecordId, record: &Record<Stored>) {
        match &record.state {
            State::Running { .. } if self.step.is_transaction => self.step.ended.push(id),
            State::Running { .. } => self.end_run(&id),
            State::Interrupted { .. } => self.step.writes.remove(&keys::interrupted(record.since, &id)),
            // There may be hundreds of chunks. Nothing else leads to them any more; the sweep removes them a few at a
            // time.
            State::Completed { outcome: Stored::Chunked { .. } } => {
                self.step.writes.insert(&keys::orphan(&id, record.fence), Bytes::new());
            }
            State::Completed { outcome: Stored::Inline(_) } | State::Consumed { .. } => {}
        }
    }

    /// Ends a run. The entry that lists it is removed with the last of its runs.
    pub(crate) fn end_run(&mut self, id: &RecordId) {
        let last = self.shared.runs.lock().end(id);
        // `last` is empty while the entry lists other runs. An entry that is not written yet is only forgotten.
        if let Some(entry) = last.filter(|entry| !self.step.listings.forget(*entry)) {
            self.erase_entry(&keys::runs(entry));
        }
    }

    /// Adds the chunks of an outcome: to a transaction itself, or else to what is written ahead of the step.
    fn write_chunks(&mut self, id: RecordId, fence: Fence, length: u64, outcome: &Bytes) {
        let chunks = outcome.chunks(keys::CHUNK_BYTES).map(|chunk| outcome.slice_ref(chunk));
        self.chunks += chunks.len();
        let chunks = keys::chunks(id, fence, length).zip(chunks);
        if self.step.is_transaction {
            chunks.for_each(|(key, chunk)| self.step.writes.insert(&key, chunk));
        } else {
            // The orphan comes first. It leads to the chunks if this process ends before their record does.
            let orphan = keys::orphan(&id, fence);
            self.step.ahead.push((orphan.to_vec(), Bytes::new()));
            self.step.ahead.extend(chunks.map(|(key, chunk)| (key.to_vec(), chunk)));
            self.step.writes.remove(&orphan);
        }
    }

    /// Removes a record that has no other key than its own, and an outcome of this length.
    pub(crate) fn remove_plain(&mut self, id: RecordId, length: u16) {
        self.shared.cache.remove(&id);
        self.erase(&keys::record(&id));
        self.gone.push(id);
        self.totals.count = self.totals.count.saturating_sub(1);
        self.totals.bytes = self.totals.bytes.saturating_sub(length.into());
        self.overlay.insert(id, None);
    }

    /// Removes a record that cannot be read, and what may be left of its outcome.
    pub(crate) fn remove_damaged(&mut self, id: RecordId, fence: Fence) -> Result<(), StoreError> {
        // If it was interrupted, it is no longer known since when.
        let mut of_it = Vec::new();
        for key in scan_keys(self.engine, keys::INTERRUPTED) {
            match key {
                Ok(key) if keys::id_of(key.as_ref()) == Some(id) => of_it.push(key),
                Ok(_) => {}
                // What follows can't be listed either.
                Err(ReadError::Corrupt(_)) => break,
                Err(error) => return Err(self.shared.read_failed(error, id)),
            }
        }
        // The length of its outcome is not known, so its bytes stay counted until the lists are made anew.
        self.remove_plain(id, 0);
        of_it.iter().for_each(|key| self.step.writes.remove(key.as_ref()));
        self.step.writes.insert(&keys::orphan(&id, fence), Bytes::new());
        Ok(())
    }

    /// Lists a record as expiring at `expires`, or now, if that has passed, and not before what a sweep has come to.
    /// Returns the time under which it is listed.
    pub(crate) fn list_expiry(&mut self, id: RecordId, fence: Fence, expires: Timestamp) -> Timestamp {
        let listed = expires.max(self.now).max(self.shared.swept_until());
        self.step.listings.expiring(listed, &id, fence);
        self.step.writes.bytes += LISTED_BYTES;
        self.listed += 1;
        self.step.has_writes = true;
        listed
    }

    /// Removes a listing entry, unless it was removed already.
    pub(crate) fn erase_entry(&mut self, key: &[u8]) {
        if self.erased.insert(key.to_vec()) {
            let number = keys::number_of(key);
            self.totals.numbers = self.totals.numbers.wrapping_sub(number);
            self.step.leaving.push(number);
            self.step.writes.remove(key);
            self.step.has_writes = true;
        }
    }

    /// Writes a key that belongs to no record.
    pub(crate) fn write(&mut self, key: &[u8], value: impl Into<Bytes>) {
        self.step.writes.insert(key, value);
        self.step.writes.is_atomic = true;
        self.step.has_writes = true;
    }

    /// Removes a key that belongs to no record.
    pub(crate) fn erase(&mut self, key: &[u8]) {
        self.step.writes.remove(key);
        self.step.writes.is_atomic = true;
        self.step.has_writes = true;
    }
}

/// Returns the length of a record's outcome.
pub(crate) fn outcome_bytes(record: Option<&Record<Stored>>) -> i64 {
    let Some(Record { state: State::Completed { outcome, .. }, .. }) = record else { return 0 };
    i64::try_from(outcome.len()).unwrap_or(i64::MAX)
}

/// Returns whether the keys of this change may be written one by one. They may for a claim of an operation that had no
/// record, and for the completion of a run, unless its outcome is in chunks, to which an orphan leads until the
/// record does.
fn is_one_by_one(old: Option<&Record<Stored>>, new: Option<&Record<Stored>>) -> bool {
    let was_there = old.map(|old| &old.state);
    match new.map(|new| &new.state) {
        Some(State::Running { .. }) => was_there.is_none(),
        Some(State::Completed { outcome: Stored::Inline(_), .. } | State::Consumed { .. }) => {
            matches!(was_there, None | Some(State::Running { .. }))
        }
        // Interruptions, resolutions, releases and outcomes in chunks: their keys are recovered together or not at all.
        _ => false,
    }
}
