//! The store that keeps records in memory, and loses them when the process ends.

use std::fmt;
use std::future::{Future, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use parking_lot::Mutex;

use super::builder::MemoryStoreBuilder;
use super::table::Table;
use crate::clock::{Timeline, Timestamp};
use crate::key::RecordId;
use crate::laboratory::point;
use crate::record::{Record, Stepped, Transition};
use crate::slots::Slots;
use crate::store::contract::{Gauges, Health, Records, Sealed, Store};
use crate::store::error::StoreError;
use crate::store::page::{Cursor, List, Page};

/// Keeps records in memory. It is for tests, and for applications that accept that **a restart forgets every key**, so
/// that a retry after it runs again.
///
/// The store is bounded: at its limits it refuses new keys (`store-full`), and it never evicts a record that is running
/// or not expired.
#[derive(Clone)]
pub struct MemoryStore {
    table: Arc<Table>,
    slots: Arc<Slots>,
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
        let table = Table {
            rows: DashMap::default(),
            expiry: Mutex::default(),
            count: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            fences: AtomicU64::new(1),
            time: Timeline::start(Arc::clone(&self.clock), Timestamp::from_millis(0)),
            settings: self,
        };
        MemoryStore { table: Arc::new(table), slots: Arc::default() }
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

    /// Opens the records again, after the process crashed at `crashed`. The caller must not use this handle any more.
    #[cfg(feature = "test-util")]
    pub(crate) fn reopened(&self, crashed: Timestamp) -> Self {
        self.table.interrupt_all(crashed);
        Self { table: Arc::clone(&self.table), slots: Arc::default() }
    }
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

    fn load(&self, id: RecordId) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send {
        point();
        let row = self.table.rows.get(&id).filter(|row| row.is_live(self.table.time.now()));
        let record = row.map(|row| row.value().clone());
        point();
        ready(Ok(record))
    }

    fn apply(&self, id: RecordId, transition: Transition) -> impl Future<Output = Result<Stepped, StoreError>> + Send {
        ready(self.table.apply(&self.slots, id, transition))
    }

    async fn list(&self, list: List, after: Option<Cursor>, limit: usize) -> Result<Page, StoreError> {
        Ok(self.table.list(list, after, limit))
    }

    fn now(&self) -> Timestamp {
        self.table.time.now()
    }

    fn sweep(&self, limit: usize) -> impl Future<Output = Result<usize, StoreError>> + Send {
        ready(Ok(self.slots.telemetry.count_swept(self.table.sweep(limit, self.table.time.now()))))
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
