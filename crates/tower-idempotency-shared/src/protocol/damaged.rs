//! The completed records that this process has met and can't read.

use std::collections::HashSet;

use parking_lot::Mutex;
use tower_idempotency::RecordId;

use crate::backend::Row;

/// The ids of completed records that were found to be damaged. Their number is limited.
#[derive(Debug, Default)]
pub(crate) struct Damaged(Mutex<HashSet<RecordId>>);

/// The most ids that are kept. Damage beyond this is not listed, but its records are still refused.
const MAX_DAMAGED: usize = 1_024;

impl Damaged {
    /// Notes a row that can't be read, if it is completed: the database lists rows of other kinds by itself.
    pub(crate) fn note(&self, row: &Row) {
        let mut known = self.0.lock();
        if row.kind.is_done() && known.len() < MAX_DAMAGED {
            known.insert(row.id);
        }
    }

    pub(crate) fn known(&self) -> Vec<RecordId> {
        self.0.lock().iter().copied().collect()
    }

    /// Forgets a record that was settled, has expired, or can be read again.
    pub(crate) fn forget(&self, id: &RecordId) {
        self.0.lock().remove(id);
    }
}
