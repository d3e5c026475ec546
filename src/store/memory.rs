//! The store that keeps records in memory, and loses them with the process.

use std::collections::BTreeSet;
use std::future::{Future, ready};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ahash::RandomState;
use bytes::Bytes;
use dashmap::DashMap;
use dashmap::mapref::entry::{Entry, OccupiedEntry};

use super::contract::{Health, InterruptedRecord, Sealed, Store};
use super::error::StoreError;
use crate::clock::{Clock, SystemClock, Timeline, Timestamp};
use crate::key::RecordId;
use crate::laboratory::point;
use crate::record::{self, Change, Claim, Claimed, Completion, Fence, Hold, Record, Resolution, Settled, State};
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
    shared: Arc<Shared>,
    slots: Arc<Slots>,
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
        let shared = Shared {
            records: DashMap::default(),
            expiry: Mutex::default(),
            count: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            fences: AtomicU64::new(1),
            time: Timeline::start(clock, Timestamp::from_millis(0)),
            max_records,
            max_bytes,
            volatile_claims,
        };
        MemoryStore { shared: Arc::new(shared), slots: Arc::default() }
    }
}

#[derive(Debug)]
struct Shared {
    records: DashMap<RecordId, Record, RandomState>,
    // Locked after a record, never before one.
    expiry: Mutex<BTreeSet<(Timestamp, RecordId)>>,
    count: AtomicUsize,
    bytes: AtomicUsize,
    fences: AtomicU64,
    time: Timeline,
    max_records: usize,
    max_bytes: usize,
    volatile_claims: bool,
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
        self.shared.count.load(Ordering::Relaxed)
    }

    /// Whether it holds no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same records, opened by another process: every run of this one is cut short.
    #[cfg(feature = "test-util")]
    pub(crate) fn reopened(&self) -> Self {
        let now = self.shared.time.now();
        let running = |entry: &dashmap::mapref::multiple::RefMulti<'_, RecordId, Record>| {
            matches!(entry.state, State::Running { .. }).then(|| (*entry.key(), entry.fence))
        };
        let cut: Vec<_> = self.shared.records.iter().filter_map(|entry| running(&entry)).collect();
        for (id, fence) in cut {
            let _ = self.shared.step(id, |current| record::interrupt(current, fence, None, now));
        }
        Self { shared: Arc::clone(&self.shared), slots: Arc::default() }
    }
}

impl Shared {
    /// One atomic step on one record.
    fn step<T>(&self, id: RecordId, arrow: impl FnOnce(Option<Record>) -> (Change<Bytes>, T)) -> Result<T, StoreError> {
        self.step_within(usize::MAX, id, arrow)
    }

    /// One atomic step on one record, unless it makes one more than `max_records`.
    fn step_within<T>(
        &self,
        max_records: usize,
        id: RecordId,
        arrow: impl FnOnce(Option<Record>) -> (Change<Bytes>, T),
    ) -> Result<T, StoreError> {
        let now = self.time.now();
        point();
        match self.records.entry(id) {
            Entry::Vacant(place) => {
                let (change, answer) = arrow(None);
                if let Change::Put(record) = change {
                    let free = |count: usize| (count < max_records).then_some(count + 1);
                    let counted = self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free);
                    counted.map_err(|_| StoreError::Full { limit: "max_records" })?;
                    self.entered(id, &record);
                    place.insert(record);
                }
                Ok(answer)
            }
            Entry::Occupied(mut place) => {
                let (change, answer) = arrow(place.get().clone().live(now));
                match change {
                    Change::Nothing => {}
                    Change::Put(record) => {
                        self.left(id, place.get());
                        self.entered(id, &record);
                        place.insert(record);
                    }
                    Change::Delete => self.remove(place),
                }
                Ok(answer)
            }
        }
    }

    fn remove(&self, place: OccupiedEntry<'_, RecordId, Record>) {
        self.left(*place.key(), place.get());
        self.count.fetch_sub(1, Ordering::Relaxed);
        place.remove();
    }

    fn entered(&self, id: RecordId, record: &Record) {
        self.bytes.fetch_add(size(record), Ordering::Relaxed);
        if let Some(expires) = record.expires() {
            self.expiry().insert((expires, id));
        }
    }

    fn left(&self, id: RecordId, record: &Record) {
        self.bytes.fetch_sub(size(record), Ordering::Relaxed);
        if let Some(expires) = record.expires() {
            self.expiry().remove(&(expires, id));
        }
    }

    fn sweep(&self, limit: usize) -> usize {
        let now = self.time.now();
        let due: Vec<_> =
            self.expiry().iter().take_while(|(expires, _)| *expires <= now).take(limit).copied().collect();
        let mut swept = 0;
        for (expires, id) in due {
            // Looked at again under its lock: it may have been claimed anew since.
            if let Entry::Occupied(place) = self.records.entry(id)
                && place.get().expires() == Some(expires)
            {
                self.remove(place);
                swept += 1;
            }
        }
        swept
    }

    fn claim(&self, claim: &Claim) -> Result<Claimed, StoreError> {
        self.sweep(SWEPT_PER_CLAIM);
        let mut full = None;
        let answer = self.step_within(self.max_records, claim.id, |current| {
            let absent = current.is_none();
            let (mut change, mut answer) = record::claim(current, claim, self.next_fence(), self.time.now());
            if absent {
                full = self.limit_reached();
                if full.is_some() || (self.volatile_claims && !claim.durable) {
                    change = Change::Nothing;
                    if let Claimed::Fresh(hold) = &mut answer {
                        hold.recorded = false;
                    }
                }
            }
            (change, answer)
        })?;
        full.map_or(Ok(answer), |limit| Err(StoreError::Full { limit }))
    }

    fn limit_reached(&self) -> Option<&'static str> {
        if self.bytes.load(Ordering::Relaxed) >= self.max_bytes {
            return Some("max_bytes");
        }
        (self.count.load(Ordering::Relaxed) >= self.max_records).then_some("max_records")
    }

    fn complete(&self, completion: Completion) -> Result<Settled, StoreError> {
        let id = completion.hold.id;
        self.step(id, |current| record::complete(current, completion, self.time.now()))
    }

    fn next_fence(&self) -> Fence {
        Fence(self.fences.fetch_add(1, Ordering::Relaxed))
    }

    fn expiry(&self) -> MutexGuard<'_, BTreeSet<(Timestamp, RecordId)>> {
        self.expiry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn interrupted(&self, limit: usize, status: Option<u16>) -> Vec<InterruptedRecord> {
        let now = self.time.now();
        let live = |entry: dashmap::mapref::multiple::RefMulti<'_, RecordId, Record>| {
            InterruptedRecord::of(*entry.key(), entry.value())
                .filter(|record| record.expires > now && record.was_answered(status))
        };
        let mut found: Vec<_> = self.records.iter().filter_map(live).collect();
        found.sort_by_key(|record| (record.since, record.id));
        found.truncate(limit);
        found
    }
}

fn size(record: &Record) -> usize {
    let outcome = match &record.state {
        State::Completed { outcome, .. } => outcome.len(),
        State::Running { .. } | State::Interrupted { .. } | State::Consumed { .. } => 0,
    };
    RECORD_BYTES + outcome
}

impl Sealed for MemoryStore {}

// Each verb is done before its future is made: see the contract's "Cancellation".
impl Store for MemoryStore {
    fn slots(&self) -> &Arc<Slots> {
        &self.slots
    }

    fn load(&self, id: RecordId) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send {
        point();
        let record = self.shared.records.get(&id).map(|record| record.clone());
        point();
        ready(Ok(record.and_then(|record| record.live(self.shared.time.now()))))
    }

    fn claim(&self, claim: Claim) -> impl Future<Output = Result<Claimed, StoreError>> + Send {
        ready(self.shared.claim(&claim))
    }

    fn reclaim(
        &self,
        claim: Claim,
        interrupted: Fence,
    ) -> impl Future<Output = Result<Option<Hold>, StoreError>> + Send {
        let fence = self.shared.next_fence();
        let arrow = |current| record::reclaim(current, &claim, interrupted, fence);
        ready(self.shared.step(claim.id, arrow))
    }

    fn inquire(
        &self,
        id: RecordId,
        interrupted: Fence,
    ) -> impl Future<Output = Result<Option<Fence>, StoreError>> + Send {
        let fence = self.shared.next_fence();
        ready(self.shared.step(id, |current| record::inquire(current, interrupted, fence)))
    }

    fn complete(&self, completion: Completion) -> impl Future<Output = Result<Settled, StoreError>> + Send {
        ready(self.shared.complete(completion))
    }

    fn release(&self, id: RecordId, fence: Fence) -> impl Future<Output = Result<Settled, StoreError>> + Send {
        ready(self.shared.step(id, |current| record::release(current, fence)))
    }

    fn interrupt(
        &self,
        id: RecordId,
        fence: Fence,
        status: Option<u16>,
    ) -> impl Future<Output = Result<Settled, StoreError>> + Send {
        let now = self.shared.time.now();
        ready(self.shared.step(id, |current| record::interrupt(current, fence, status, now)))
    }

    fn resolve(
        &self,
        id: RecordId,
        fence: Fence,
        resolution: Resolution,
    ) -> impl Future<Output = Result<Settled, StoreError>> + Send {
        let (now, new) = (self.shared.time.now(), self.shared.next_fence());
        let outcome = match resolution {
            Resolution::Outcome { outcome, retention } => Some((outcome, retention)),
            Resolution::Forget => None,
        };
        ready(self.shared.step(id, |current| record::resolve(current, fence, new, outcome, now)))
    }

    fn interrupted(
        &self,
        limit: usize,
        status: Option<u16>,
    ) -> impl Future<Output = Result<Vec<InterruptedRecord>, StoreError>> + Send {
        ready(Ok(self.shared.interrupted(limit, status)))
    }

    fn sweep(&self, limit: usize) -> impl Future<Output = Result<usize, StoreError>> + Send {
        ready(Ok(self.shared.sweep(limit)))
    }

    fn health(&self) -> Health {
        Health::Good
    }
}
