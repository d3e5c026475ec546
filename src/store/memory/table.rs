//! The records of the store in memory.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ahash::RandomState;
use bytes::Bytes;
use dashmap::DashMap;
use dashmap::mapref::entry::{Entry, OccupiedEntry};
use parking_lot::Mutex;

use super::builder::MemoryStoreBuilder;
use crate::clock::{Timeline, Timestamp};
use crate::key::RecordId;
use crate::laboratory::point;
#[cfg(feature = "test-util")]
use crate::record::Owner;
use crate::record::{self, Current, Edit, Fence, Record, Stepped, Transition};
use crate::slots::Slots;
use crate::store::error::StoreError;
use crate::store::listed::ListedRecord;
use crate::store::page::{Cursor, List, Page};

/// The bytes that a record takes in addition to its outcome: its map entry, its expiry entry, and their share of empty
/// places.
const RECORD_BYTES: usize = 540;
/// The number of expired records that each claim deletes, so that sweeping keeps up with claiming.
const SWEPT_PER_CLAIM: usize = 2;

/// The records, with an index by their expiry.
pub(super) struct Table {
    pub(super) rows: DashMap<RecordId, Record, RandomState>,
    /// This lock is taken after a row's, never before.
    pub(super) expiry: Mutex<BTreeSet<(Timestamp, RecordId)>>,
    /// The number of rows and their bytes, which the limits bound, and the next fence.
    pub(super) count: AtomicUsize,
    pub(super) bytes: AtomicUsize,
    pub(super) fences: AtomicU64,
    pub(super) time: Timeline,
    pub(super) settings: MemoryStoreBuilder,
}

impl Table {
    pub(super) fn apply(&self, slots: &Slots, id: RecordId, transition: Transition) -> Result<Stepped, StoreError> {
        let claim = if let Transition::Claim(claim) = &transition { Some(claim) } else { None };
        let (is_claim, leaves_no_trace) = (claim.is_some(), claim.is_some_and(|claim| claim.may_repeat));
        let now = self.time.now();
        if is_claim {
            slots.telemetry.count_swept(self.sweep(SWEPT_PER_CLAIM, now));
        }
        // `point` does nothing, except in a laboratory, whose scheduler lets another thread run here.
        point();
        let place = self.rows.entry(id);
        let current = match &place {
            Entry::Occupied(row) => Some(row.get()).filter(|record| record.is_live(now)),
            Entry::Vacant(_) => None,
        };
        if is_claim && current.is_none() && self.bytes.load(Ordering::Relaxed) >= self.settings.max_bytes {
            return Err(StoreError::Full { limit: "max_bytes" });
        }
        let (change, reply) = record::next(Current::from(current), transition);
        let record = match change {
            Edit::Nothing => current.cloned(),
            Edit::Release => {
                if let Entry::Occupied(place) = place {
                    self.remove(place);
                }
                None
            }
            Edit::Put(draft) => {
                // The fence of another store may be ahead.
                self.fences.fetch_max(draft.fence.map_or(0, |fence| fence.0 + 1), Ordering::Relaxed);
                let began = current.map_or_else(|| self.time.began(now), |current| current.began);
                let fence = Fence(self.fences.fetch_add(1, Ordering::Relaxed));
                let record = draft.stamp(current, fence, began, now);
                if !(leaves_no_trace && self.settings.volatile_claims) {
                    let most = if is_claim { self.settings.max_records } else { usize::MAX };
                    self.put(place, record.clone(), most)?;
                }
                Some(record)
            }
        };
        Ok(Stepped { reply, record })
    }

    /// Makes the runs under way interrupted since `crashed`, as the next opening of a disk does.
    #[cfg(feature = "test-util")]
    pub(super) fn interrupt_all(&self, crashed: Timestamp) {
        for mut row in self.rows.iter_mut() {
            let (id, record) = row.pair_mut();
            self.left(*id, record);
            *record = Record { owner: Owner::None, ..record.clone() }.lapse(crashed, record::Cause::ProcessEnded);
            self.entered(*id, record);
        }
    }

    /// Writes a row, unless there would be more than `most`.
    fn put(&self, place: Entry<'_, RecordId, Record>, record: Record, most: usize) -> Result<(), StoreError> {
        if let Entry::Occupied(place) = &place {
            self.left(*place.key(), place.get());
        } else {
            let free = |count: usize| (count < most).then_some(count + 1);
            let counted = self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free);
            counted.map_err(|_| StoreError::Full { limit: "max_records" })?;
        }
        self.entered(*place.key(), &record);
        place.insert(record);
        Ok(())
    }

    fn remove(&self, place: OccupiedEntry<'_, RecordId, Record>) {
        self.left(*place.key(), place.get());
        self.count.fetch_sub(1, Ordering::Relaxed);
        place.remove();
    }

    /// Counts a record and lists its expiry, under its row's lock; `left` undoes this.
    fn entered(&self, id: RecordId, record: &Record) {
        self.bytes.fetch_add(size(record), Ordering::Relaxed);
        if let Some(expires) = record.expires {
            self.expiry.lock().insert((expires, id));
        }
    }

    fn left(&self, id: RecordId, record: &Record) {
        self.bytes.fetch_sub(size(record), Ordering::Relaxed);
        if let Some(expires) = record.expires {
            self.expiry.lock().remove(&(expires, id));
        }
    }

    pub(super) fn sweep(&self, limit: usize, now: Timestamp) -> usize {
        let mut swept = 0;
        for _ in 0..limit {
            let due = self.expiry.lock().first().filter(|(expires, _)| *expires <= now).copied();
            let Some((expires, id)) = due else { break };
            // The expiry lock is free by now. The row is looked at again under its own lock, because its key may have
            // been claimed again since.
            if let Entry::Occupied(place) = self.rows.entry(id)
                && place.get().expires == Some(expires)
            {
                self.remove(place);
                swept += 1;
            }
        }
        swept
    }

    /// Returns the limit that the next claim of a new key meets. Claims delete expired records, so there is none while
    /// one of these is left: otherwise a store that is full would look full until a claim comes.
    pub(super) fn full(&self) -> Option<&'static str> {
        let limit = if self.count.load(Ordering::Relaxed) >= self.settings.max_records {
            "max_records"
        } else if self.bytes.load(Ordering::Relaxed) >= self.settings.max_bytes {
            "max_bytes"
        } else {
            return None;
        };
        let now = self.time.now();
        let has_expired = self.expiry.lock().first().is_some_and(|(expires, _)| *expires <= now);
        (!has_expired).then_some(limit)
    }

    pub(super) fn list(&self, list: List, after: Option<Cursor>, limit: usize) -> Page {
        let now = self.time.now();
        let listed = |id, record: &Record| Some(ListedRecord::of(id, &record.clone().live(now)?));
        if list != List::All {
            let all = self.rows.iter().filter_map(|row| listed(*row.key(), row.value()));
            return Page::of_all(list, all.filter(|listed| list.has(listed)).collect(), after, limit);
        }
        let after = after.and_then(Cursor::id);
        let mut ids: Vec<_> = self.rows.iter().map(|row| *row.key()).filter(|id| Some(*id) > after).collect();
        let has_more = ids.len() > limit;
        if has_more {
            ids.select_nth_unstable(limit);
            ids.truncate(limit);
        }
        ids.sort_unstable();
        let next = ids.last().filter(|_| has_more).map(|id| Cursor::of_id(*id));
        let records = ids.into_iter().filter_map(|id| listed(id, self.rows.get(&id)?.value())).collect();
        Page { records, next }
    }
}

fn size(record: &Record) -> usize {
    let outcome = record.state.outcome().map_or(0, Bytes::len);
    RECORD_BYTES + outcome + record.origin.bytes()
}
