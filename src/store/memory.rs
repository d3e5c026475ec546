//! The store that keeps records in memory, and loses them with the process.
//!
//! An application has one process with it. The records say all the same which process has which run, because the test
//! store plays several that share them, as a store behind a network would: what such a store has to keep of the
//! contract is kept, and tested, here.

use std::collections::{BTreeSet, HashMap};
use std::future::{Future, ready};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ahash::RandomState;
use dashmap::DashMap;
use dashmap::mapref::entry::{Entry, OccupiedEntry};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};

use super::contract::{Health, InterruptedRun, Page, Records, Sealed, Store};
use super::error::StoreError;
use crate::clock::{Clock, SystemClock, Timeline, Timestamp};
use crate::key::RecordId;
use crate::laboratory::point;
use crate::record::{self, Applied, Change, Current, Fence, Owner, Record, State, Transition};
use crate::slots::Slots;

/// What a record takes beside its outcome, in bytes: map entry, expiry entry and their share of empty places.
const RECORD_BYTES: usize = 320;
/// Expired records that each claim deletes, so that sweeping keeps up with claiming.
const SWEPT_PER_CLAIM: usize = 2;

/// Keeps records in memory: for tests, and for those who accept that **a restart forgets every key**, so that a retry
/// after it runs again.
///
/// It is bounded: at its limits it refuses new keys (`store-full`), and never evicts what is running or not expired.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    table: Arc<Table>,
    slots: Arc<Slots>,
    // Which of the processes that share the table it is: the only one, unless the test store plays several.
    process: u64,
}

/// Sets up a [`MemoryStore`].
#[derive(Debug, Clone)]
#[must_use]
pub struct MemoryStoreBuilder {
    max_records: usize,
    max_bytes: usize,
    clock: Arc<dyn Clock>,
    volatile_claims: bool,
}

impl Default for MemoryStoreBuilder {
    fn default() -> Self {
        let clock = Arc::new(SystemClock::default());
        Self { max_records: 100_000, max_bytes: 64 * 1024 * 1024, clock, volatile_claims: false }
    }
}

impl MemoryStoreBuilder {
    /// The most records it keeps, running ones included. Default: 100,000.
    pub fn max_records(mut self, records: usize) -> Self {
        self.max_records = records;
        self
    }

    /// The bytes of memory from which on it takes no new keys. Outcomes of runs under way are kept even beyond it.
    /// Default: 64 MiB.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Where the time comes from. Default: [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Leaves no trace of a claim that need not be durable, as a store on disk does.
    #[cfg(feature = "test-util")]
    pub(crate) fn volatile_claims(mut self) -> Self {
        self.volatile_claims = true;
        self
    }

    /// Makes the store.
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

/// The records, with what finds them by their expiry.
#[derive(Debug)]
struct Table {
    rows: DashMap<RecordId, Row, RandomState>,
    // Locked after a row, never before one.
    expiry: Mutex<BTreeSet<(Timestamp, RecordId)>>,
    count: AtomicUsize,
    bytes: AtomicUsize,
    fences: AtomicU64,
    // Whether what is released leaves a trace, as it does where several processes share the records.
    keeps_traces: AtomicBool,
    // The processes that are gone, and since when.
    ended: Mutex<HashMap<u64, Timestamp, RandomState>>,
    time: Timeline,
    max_records: usize,
    max_bytes: usize,
    volatile_claims: bool,
}

#[derive(Debug)]
struct Row {
    record: Record,
    owner: Option<Claimant>,
    // Whether it was released, and only its trace is kept.
    is_released: bool,
}

/// Which process owns a record, and until when at most.
#[derive(Debug, Clone, Copy)]
struct Claimant {
    process: u64,
    until: Timestamp,
}

impl Default for MemoryStore {
    fn default() -> Self {
        MemoryStoreBuilder::default().build()
    }
}

impl MemoryStore {
    /// A store with the default limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A store with other limits.
    pub fn builder() -> MemoryStoreBuilder {
        MemoryStoreBuilder::default()
    }

    /// Records it holds, running and expired ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.count.load(Ordering::Relaxed)
    }

    /// Whether it holds no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same records, opened by another process.
    #[cfg(feature = "test-util")]
    pub(crate) fn opened_by(&self, process: u64) -> Self {
        Self { table: Arc::clone(&self.table), slots: Arc::default(), process }
    }

    /// From now on several processes share the records: what is released leaves a trace.
    #[cfg(feature = "test-util")]
    pub(crate) fn share(&self) {
        self.table.keeps_traces.store(true, Ordering::Relaxed);
    }

    /// This process is taken for dead from now on.
    #[cfg(feature = "test-util")]
    pub(crate) fn end(&self) {
        let now = self.table.time.now();
        lock(&self.table.ended).entry(self.process).or_insert(now);
    }
}

impl Table {
    fn apply(&self, process: u64, id: RecordId, transition: Transition) -> Result<Applied, StoreError> {
        let claim = if let Transition::Claim(claim) = &transition { Some(claim) } else { None };
        let (is_claim, leaves_no_trace) = (claim.is_some(), claim.is_some_and(|claim| claim.may_repeat));
        if is_claim {
            self.sweep(SWEPT_PER_CLAIM);
        }
        let now = self.time.now();
        point();
        let place = self.rows.entry(id);
        let current = match &place {
            Entry::Occupied(row) => self.present(row.get(), process, now),
            Entry::Vacant(_) => None,
        };
        if is_claim && current.is_none() && self.bytes.load(Ordering::Relaxed) >= self.max_bytes {
            return Err(StoreError::Full { limit: "max_bytes" });
        }
        let is_released = matches!(&place, Entry::Occupied(row) if row.get().is_released);
        let stands = if is_released { Current::Released } else { Current::from(current.as_ref()) };
        let (change, reply) = record::next(stands, transition);
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
                let record = draft.stamp(current.as_ref(), self.next_fence(), now);
                if !(leaves_no_trace && self.volatile_claims) {
                    let most = if is_claim { self.max_records } else { usize::MAX };
                    self.put(place, Row { record: record.clone(), owner, is_released: false }, most)?;
                }
                Some(record)
            }
        };
        Ok(Applied { reply, record })
    }

    /// A row as this process sees it now.
    fn present(&self, row: &Row, process: u64, now: Timestamp) -> Option<Record> {
        if row.is_released {
            return None;
        }
        let record = row.record.clone();
        let record = match row.owner {
            None => Record { owner: Owner::Nobody, ..record },
            Some(owner) if owner.process == process => Record { owner: Owner::Here, ..record },
            Some(owner) => match self.gone(owner, now) {
                None => Record { owner: Owner::Elsewhere, ..record },
                Some(since) => Record { owner: Owner::Nobody, ..record }.lapse(since),
            },
        };
        record.live(now)
    }

    /// Since when the owner does not see to a record any more; `None` if it does.
    fn gone(&self, owner: Claimant, now: Timestamp) -> Option<Timestamp> {
        let too_late = Some(owner.until).filter(|until| *until <= now);
        let ended = lock(&self.ended).get(&owner.process).copied();
        [too_late, ended].into_iter().flatten().min()
    }

    /// Writes a row, unless it makes one more than `most`.
    fn put(&self, place: Entry<'_, RecordId, Row>, row: Row, most: usize) -> Result<(), StoreError> {
        match place {
            Entry::Vacant(place) => {
                let free = |count: usize| (count < most).then_some(count + 1);
                let counted = self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free);
                counted.map_err(|_| StoreError::Full { limit: "max_records" })?;
                self.entered(*place.key(), &row.record);
                place.insert(row);
            }
            Entry::Occupied(mut place) => {
                self.left(*place.key(), &place.get().record);
                self.entered(*place.key(), &row.record);
                place.insert(row);
            }
        }
        Ok(())
    }

    fn remove(&self, place: OccupiedEntry<'_, RecordId, Row>) {
        self.left(*place.key(), &place.get().record);
        self.count.fetch_sub(1, Ordering::Relaxed);
        place.remove();
    }

    fn entered(&self, id: RecordId, record: &Record) {
        self.bytes.fetch_add(size(record), Ordering::Relaxed);
        if let Some(expires) = record.expires {
            lock(&self.expiry).insert((expires, id));
        }
    }

    fn left(&self, id: RecordId, record: &Record) {
        self.bytes.fetch_sub(size(record), Ordering::Relaxed);
        if let Some(expires) = record.expires {
            lock(&self.expiry).remove(&(expires, id));
        }
    }

    fn sweep(&self, limit: usize) -> usize {
        let now = self.time.now();
        let due: Vec<_> =
            lock(&self.expiry).iter().take_while(|(expires, _)| *expires <= now).take(limit).copied().collect();
        let mut swept = 0;
        for (expires, id) in due {
            // Looked at again under its lock: it may have been claimed anew since.
            if let Entry::Occupied(place) = self.rows.entry(id)
                && place.get().record.expires == Some(expires)
            {
                self.remove(place);
                swept += 1;
            }
        }
        swept
    }

    fn next_fence(&self) -> Fence {
        Fence(self.fences.fetch_add(1, Ordering::Relaxed))
    }

    fn interrupted(&self, process: u64, page: Page) -> Vec<InterruptedRun> {
        let now = self.time.now();
        let listed = self.rows.iter().filter_map(|row| {
            let record = self.present(row.value(), process, now)?;
            InterruptedRun::of(*row.key(), &record).filter(|record| page.includes(record))
        });
        let mut found: Vec<_> = listed.collect();
        found.sort_by_key(|record| (record.since, record.id));
        found.truncate(page.limit);
        found
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn size(record: &Record) -> usize {
    let outcome = if let State::Completed { outcome } = &record.state { outcome.len() } else { 0 };
    RECORD_BYTES + outcome
}

impl Sealed for MemoryStore {}

// Each step is done before its future is made: see the contract's "Cancellation".
impl Records for MemoryStore {
    fn slots(&self) -> &Arc<Slots> {
        &self.slots
    }

    fn is_exclusive(&self) -> bool {
        true
    }

    fn load(&self, id: RecordId) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send {
        point();
        let now = self.table.time.now();
        let record = self.table.rows.get(&id).and_then(|row| self.table.present(row.value(), self.process, now));
        point();
        ready(Ok(record))
    }

    fn apply(&self, id: RecordId, transition: Transition) -> impl Future<Output = Result<Applied, StoreError>> + Send {
        ready(self.table.apply(self.process, id, transition))
    }

    fn interrupted(&self, page: Page) -> impl Future<Output = Result<Vec<InterruptedRun>, StoreError>> + Send {
        ready(Ok(self.table.interrupted(self.process, page)))
    }

    fn sweep(&self, limit: usize) -> impl Future<Output = Result<usize, StoreError>> + Send {
        ready(Ok(self.table.sweep(limit)))
    }

    fn changed(&self) -> BoxStream<'static, RecordId> {
        stream::pending().boxed()
    }
}

impl Store for MemoryStore {
    fn health(&self) -> Health {
        Health::Good
    }

    fn close(&self) -> impl Future<Output = Result<(), StoreError>> + Send {
        ready(Ok(()))
    }
}
