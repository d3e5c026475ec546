//! What the writer notes of its own work, for the gauges of the store.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::store::Gauges;

/// The numbers. Each is read and written by itself.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    /// The commands of the last batch that had any.
    batch: AtomicU64,
    /// The time that the last sync took, in microseconds; 0 before the first.
    sync: AtomicU64,
    /// The earliest expiry that the last sweep left, in milliseconds; 0 if it left none.
    due: AtomicU64,
}

impl Measured {
    pub(crate) fn note_batch(&self, commands: usize) {
        if commands > 0 {
            self.batch.store(commands as u64, Ordering::Relaxed);
        }
    }

    pub(crate) fn note_sync(&self, took: Duration) {
        self.sync.store(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    }

    pub(crate) fn note_due(&self, oldest: Option<Timestamp>) {
        self.due.store(oldest.map_or(0, Timestamp::as_millis), Ordering::Relaxed);
    }

    /// Returns these numbers.
    pub(super) fn gauges(&self, now: Timestamp) -> Gauges {
        let read = |number: &AtomicU64| Some(number.load(Ordering::Relaxed)).filter(|number| *number > 0);
        let lag = read(&self.due).map_or(0, |due| now.as_millis().saturating_sub(due));
        Gauges {
            batch: read(&self.batch),
            sync: read(&self.sync).map(Duration::from_micros),
            sweep_lag: Some(Duration::from_millis(lag)),
            ..Gauges::default()
        }
    }
}
