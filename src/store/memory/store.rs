//! The store that keeps records in memory, and loses them when the process ends.
//!
//! An application uses it in one process. Its records nevertheless say which process has which run, because the test
//! store plays several processes that share them, as a store behind a network would. So the part of the contract that
//! only such a store needs is implemented, and tested, here.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::future::{Future, pending, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use ahash::RandomState;
use dashmap::DashMap;
use dashmap::mapref::entry::{Entry, OccupiedEntry};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::builder::MemoryStoreBuilder;
use crate::clock::{Timeline, Timestamp};
use crate::key::RecordId;
use crate::laboratory::point;
use crate::record::{self, Applied, Change, Current, Fence, Owner, Record, State, Transition};
use crate::slots::Slots;
use crate::store::contract::{After, Gauges, Health, InterruptedRun, Records, Sealed, Store};
use crate::store::error::StoreError;
use crate::store::listed::{ListedRecord, Scanned};

/// The bytes that a record takes in addition to its outcome: its map entry, its expiry entry, and their share of empty
/// places.
const RECORD_BYTES: usize = 600;
/// The number of expired records that each claim deletes, so that sweeping keeps up with claiming.
const SWEPT_PER_CLAIM: usize = 2;

/// Keeps records in memory. It is for tests, and for applications that accept that **a restart forgets every key**, so
/// that a retry after it runs again.
///
/// The store is bounded: at its limits it refuses new keys (`store-full`), and it never evicts a record that is running
/// or not expired.
#[derive(Clone)]
pub struct MemoryStore {
    table: Arc<Table>,
    slots: Arc<Slots>,
    // The number of the process, among those that share the table. There is only one, unless the test store plays
    // several.
    process: u64,
}

/// The records, with an index by their expiry.
struct Table {
    rows: DashMap<RecordId, MemoryRow, RandomState>,
    // This lock is taken after a row's, never before.
    expiry: Mutex<BTreeSet<(Timestamp, RecordId)>>,
    // The number of rows and their bytes, which the limits bound, and the next fence.
    count: AtomicUsize,
    bytes: AtomicUsize,
    fences: AtomicU64,
    // `true` if a released record leaves a trace, as it does if several processes share the records.
    keeps_traces: AtomicBool,
    // The processes that are gone, and since when.
    ended: Mutex<HashMap<u64, Timestamp, RandomState>>,
    time: Timeline,
    max_records: usize,
    max_bytes: usize,
    // `true` if a claim that may be repeated writes no row; only the test store sets this.
    volatile_claims: bool,
}

struct MemoryRow {
    record: Record,
    owner: Option<Claimant>,
    // `true` if the record was released, and only its trace is kept.
    is_released: bool,
}

/// The process that owns a record, and the latest end of its ownership.
#[derive(Clone, Copy)]
struct Claimant {
    process: u64,
    until: Timestamp,
}

/// Shows no record: outcomes are what clients were answered.
impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("records", &self.len()).field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        MemoryStoreBuilder::default().build()
    }
}

impl MemoryStoreBuilder {
    /// Builds the store.
    #[must_use]
    pub fn build(self) -> MemoryStore {
        let Self { max_records, max_bytes, clock, volatile_claims } = self;
        let table = Table {
            rows: DashMap::default(),
            expiry: Mutex::default(),
            count: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            fences: AtomicU64::new(1),
            keeps_traces: AtomicBool::new(false),
            ended: Mutex::default(),
            time: Timeline::start(clock, Timestamp::from_millis(0)),
            max_records,
            max_bytes,
            volatile_claims,
        };
        MemoryStore { table: Arc::new(table), slots: Arc::default(), process: 0 }
    }
}

impl MemoryStore {
    /// Creates a store with the default limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a builder, to set other limits.
    pub fn builder() -> MemoryStoreBuilder {
        MemoryStoreBuilder::default()
    }

    /// Returns the number of records, running and expired ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.count.load(Ordering::Relaxed)
    }

    /// Returns whether the store holds no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a handle to the same records for another process.
    #[cfg(feature = "test-util")]
    pub(crate) fn opened_by(&self, process: u64) -> Self {
        Self { table: Arc::clone(&self.table), slots: Arc::default(), process }
    }

    /// Lets several processes share the records from now on: a released record leaves a trace.
    #[cfg(feature = "test-util")]
    pub(crate) fn share(&self) {
        self.table.keeps_traces.store(true, Ordering::Relaxed);
    }

    /// Makes this process count as dead from now on.
    #[cfg(feature = "test-util")]
    pub(crate) fn end(&self) {
        let now = self.table.time.now();
        self.table.ended.lock().entry(self.process).or_insert(now);
    }
}

impl Table {
    fn apply(&self, slots: &Slots, process: u64, id: RecordId, transition: Transition) -> Result<Applied, StoreError> {
        let claim = if let Transition::Claim(claim) = &transition { Some(claim) } else { None };
        let (is_claim, leaves_no_trace) = (claim.is_some(), claim.is_some_and(|claim| claim.may_repeat));
        let now = self.time.now();
        if is_claim {
            slots.tally.count_swept(self.sweep(SWEPT_PER_CLAIM, now));
        }
        // `point` does nothing, except in a laboratory, whose scheduler lets another thread run here.
        point();
        let place = self.rows.entry(id);
        let current = match &place {
            Entry::Occupied(row) => self.present(row.get(), process, now),
            Entry::Vacant(_) => None,
        };
        if is_claim && current.is_none() && self.bytes.load(Ordering::Relaxed) >= self.max_bytes {
            return Err(StoreError::Full { limit: "max_bytes" });
        }
        let found = match &place {
            Entry::Occupied(row) if row.get().is_released => Current::Released(row.get().record.fence),
            _ => Current::from(current.as_ref()),
        };
        let (change, reply) = record::next(found, transition);
        let record = match change {
            Change::Nothing => current,
            Change::Release => {
                match place {
                    Entry::Occupied(mut place) if self.keeps_traces.load(Ordering::Relaxed) => {
                        place.get_mut().is_released = true;
                    }
                    Entry::Occupied(place) => self.remove(place),
                    Entry::Vacant(_) => {}
                }
                None
            }
            Change::Put(draft) => {
                let owner = draft.owned.map(|bound| Claimant { process, until: now.plus(bound) });
                let began = current.as_ref().map_or_else(|| self.time.began(now), |current| current.began);
                let record = draft.stamp(current.as_ref(), self.next_fence(), began, now);
                if !(leaves_no_trace && self.volatile_claims) {
                    let most = if is_claim { self.max_records } else { usize::MAX };
                    self.put(place, MemoryRow { record: record.clone(), owner, is_released: false }, most)?;
                }
                Some(record)
            }
        };
        Ok(Applied { reply, record })
    }

    /// Returns the record of a row as this process sees it now.
    fn present(&self, row: &MemoryRow, process: u64, now: Timestamp) -> Option<Record> {
        if row.is_released {
            return None;
        }
        let record = row.record.clone();
        let record = match row.owner {
            None => Record { owner: Owner::None, ..record },
            Some(owner) if owner.process == process => Record { owner: Owner::Here, ..record },
            Some(owner) => match self.gone(owner, now) {
                None => Record { owner: Owner::Elsewhere, ..record },
                Some(since) => Record { owner: Owner::None, ..record }.lapse(since),
            },
        };
        record.live(now)
    }

    /// Returns since when the owner has not been seeing to a record; `None` if it still does.
    fn gone(&self, owner: Claimant, now: Timestamp) -> Option<Timestamp> {
        let too_late = Some(owner.until).filter(|until| *until <= now);
        let ended = self.ended.lock().get(&owner.process).copied();
        [too_late, ended].into_iter().flatten().min()
    }

    /// Writes a row, unless there would be more than `most`.
    fn put(&self, place: Entry<'_, RecordId, MemoryRow>, row: MemoryRow, most: usize) -> Result<(), StoreError> {
        if let Entry::Occupied(place) = &place {
            self.left(*place.key(), &place.get().record);
        } else {
            let free = |count: usize| (count < most).then_some(count + 1);
            let counted = self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free);
            counted.map_err(|_| StoreError::Full { limit: "max_records" })?;
        }
        self.entered(*place.key(), &row.record);
        place.insert(row);
        Ok(())
    }

    fn remove(&self, place: OccupiedEntry<'_, RecordId, MemoryRow>) {
        self.left(*place.key(), &place.get().record);
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

    fn sweep(&self, limit: usize, now: Timestamp) -> usize {
        let due: Vec<_> =
            self.expiry.lock().iter().take_while(|(expires, _)| *expires <= now).take(limit).copied().collect();
        let mut swept = 0;
        for (expires, id) in due {
            // The expiry lock is free by now. The row is looked at again under its own lock, because its key may have
            // been claimed again since.
            if let Entry::Occupied(place) = self.rows.entry(id)
                && place.get().record.expires == Some(expires)
            {
                self.remove(place);
                swept += 1;
            }
        }
        swept
    }

    /// Returns the limit that the next claim of a new key meets. Claims delete expired records, so there is none while
    /// one of these is left: otherwise a store that is full would look full until a claim comes.
    fn full(&self) -> Option<&'static str> {
        let limit = if self.count.load(Ordering::Relaxed) >= self.max_records {
            "max_records"
        } else if self.bytes.load(Ordering::Relaxed) >= self.max_bytes {
            "max_bytes"
        } else {
            return None;
        };
        let now = self.time.now();
        let has_expired = self.expiry.lock().first().is_some_and(|(expires, _)| *expires <= now);
        (!has_expired).then_some(limit)
    }

    fn next_fence(&self) -> Fence {
        Fence(self.fences.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns the records that `process` sees now, and that `is_meant` chooses, in the order of their ids.
    fn listed(&self, process: u64, is_meant: impl Fn(&ListedRecord) -> bool) -> Vec<ListedRecord> {
        let now = self.time.now();
        let listed = self.rows.iter().filter_map(|row| {
            Some(ListedRecord::of(*row.key(), &self.present(row.value(), process, now)?)).filter(&is_meant)
        });
        let mut found: Vec<_> = listed.collect();
        found.sort_by_key(|record| record.id);
        found
    }

    fn interrupted(&self, process: u64, after: Option<After>, limit: usize) -> Vec<InterruptedRun> {
        let now = self.time.now();
        let listed = self.rows.iter().filter_map(|row| {
            let record = self.present(row.value(), process, now)?;
            InterruptedRun::of(*row.key(), &record).filter(|run| after.is_none_or(|after| after.precedes(run)))
        });
        let mut found: Vec<_> = listed.collect();
        found.sort_by_key(|record| (record.since, record.id));
        found.truncate(limit);
        found
    }
}

fn size(record: &Record) -> usize {
    let outcome = if let State::Completed { outcome } = &record.state { outcome.len() } else { 0 };
    RECORD_BYTES + outcome + record.origin.bytes()
}

impl Sealed for MemoryStore {}

// Each step is done before its future is made; see "Cancellation" in the contract.
impl Records for MemoryStore {
    fn slots(&self) -> &Arc<Slots> {
        &self.slots
    }

    fn is_exclusive(&self) -> bool {
        true
    }

    fn recall(&self, _: RecordId) -> Option<Record> {
        None
    }

    fn load(&self, id: RecordId) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send {
        point();
        let now = self.table.time.now();
        let record = self.table.rows.get(&id).and_then(|row| self.table.present(row.value(), self.process, now));
        point();
        ready(Ok(record))
    }

    fn apply(&self, id: RecordId, transition: Transition) -> impl Future<Output = Result<Applied, StoreError>> + Send {
        ready(self.table.apply(&self.slots, self.process, id, transition))
    }

    fn interrupted(
        &self,
        after: Option<After>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<InterruptedRun>, StoreError>> + Send {
        ready(Ok(self.table.interrupted(self.process, after, limit)))
    }

    fn now(&self) -> Timestamp {
        self.table.time.now()
    }

    fn scan(&self, after: Option<RecordId>, limit: usize) -> impl Future<Output = Result<Scanned, StoreError>> + Send {
        let now = self.table.time.now();
        let mut ids: Vec<_> = self.table.rows.iter().map(|row| *row.key()).filter(|id| Some(*id) > after).collect();
        let has_more = ids.len() > limit;
        if has_more {
            ids.select_nth_unstable(limit);
            ids.truncate(limit);
        }
        ids.sort_unstable();
        let next = ids.last().copied().filter(|_| has_more);
        let present = |id: RecordId| {
            let row = self.table.rows.get(&id)?;
            Some(ListedRecord::of(id, &self.table.present(row.value(), self.process, now)?))
        };
        ready(Ok(Scanned { records: ids.into_iter().filter_map(present).collect(), next }))
    }

    async fn inspect(&self, id: RecordId) -> Result<Option<ListedRecord>, StoreError> {
        ListedRecord::of_load(id, self.load(id).await)
    }

    fn running(&self) -> impl Future<Output = Result<Vec<ListedRecord>, StoreError>> + Send {
        ready(Ok(self.table.listed(self.process, ListedRecord::is_running)))
    }

    fn sweep(&self, limit: usize) -> impl Future<Output = Result<usize, StoreError>> + Send {
        ready(Ok(self.slots.tally.count_swept(self.table.sweep(limit, self.table.time.now()))))
    }

    fn changed(&self, _: RecordId) -> BoxFuture<'static, ()> {
        pending().boxed()
    }
}

impl Store for MemoryStore {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn health(&self) -> Health {
        self.table.full().map_or(Health::Good, |limit| Health::Full { limit })
    }

    fn gauges(&self) -> Gauges {
        let now = self.table.time.now();
        let oldest = self.table.expiry.lock().first().map(|(expires, _)| *expires);
        let lag = oldest.map_or(0, |oldest| now.as_millis().saturating_sub(oldest.as_millis()));
        Gauges {
            records: Some(self.table.count.load(Ordering::Relaxed) as u64),
            bytes: Some(self.table.bytes.load(Ordering::Relaxed) as u64),
            sweep_lag: Some(Duration::from_millis(lag)),
            ..Gauges::default()
        }
    }

    fn close(&self) -> impl Future<Output = Result<(), StoreError>> + Send {
        ready(Ok(()))
    }
}
