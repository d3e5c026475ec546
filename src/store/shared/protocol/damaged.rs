//! The completed records that this process has met and can't read.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::key::RecordId;
use crate::store::shared::backend::{Kind, Row};

/// The ids of completed records that were found to be damaged. Their number is limited.
#[derive(Debug, Default)]
pub(crate) struct Damaged(Mutex<HashSet<RecordId>>);

const MOST_DAMAGED: usize = 1_024;

impl Damaged {
    /// Notes a row that can't be read.
    pub(crate) fn note(&self, row: &Row) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if is_done(row) && known.len() < MOST_DAMAGED {
            known.insert(row.id);
        }
    }

    pub(crate) fn known(&self) -> Vec<RecordId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    pub(crate) fn forget(&self, id: &RecordId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

pub(crate) fn is_done(row: &Row) -> bool {
    matches!(row.kind, Kind::Completed | Kind::Consumed)
}
