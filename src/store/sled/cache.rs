//! Recent outcomes, in front of sled.
//!
//! Only the writer fills and empties it: it takes a record out before the batch that changes it is applied, and puts
//! one in after the batch that wrote it is durable. So nothing in it was ever false or could be forgotten by a power
//! cut, and no reader can put back what was taken out.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache as Sharded;

use crate::key::RecordId;
use crate::record::{Record, State};

/// What an entry takes beside its outcome, in bytes.
const ENTRY_BYTES: u64 = 256;

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<RecordId, Arc<Record>> for ByBytes {
    fn weight(&self, _: &RecordId, record: &Arc<Record>) -> u64 {
        let outcome = match &record.state {
            State::Completed { outcome, .. } => outcome.len() as u64,
            State::Running { .. } | State::Interrupted { .. } | State::Consumed { .. } => 0,
        };
        ENTRY_BYTES + outcome
    }
}

/// Bounded by bytes.
#[derive(Debug)]
pub(super) struct Cache(Sharded<RecordId, Arc<Record>, ByBytes>);

impl Cache {
    pub(super) fn new(bytes: u64) -> Self {
        let items = usize::try_from(bytes / 1024).unwrap_or(usize::MAX).max(16);
        Self(Sharded::with_weighter(items, bytes, ByBytes))
    }

    pub(super) fn get(&self, id: &RecordId) -> Option<Arc<Record>> {
        self.0.get(id)
    }

    pub(super) fn put(&self, id: RecordId, record: Record) {
        self.0.insert(id, Arc::new(record));
    }

    pub(super) fn remove(&self, id: &RecordId) {
        self.0.remove(id);
    }
}
