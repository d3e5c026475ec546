//! What the writer notes of its own work, for the gauges of the store.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::layout::storage_engine::Volume;
use crate::clock::Timestamp;
use crate::store::Gauges;

/// The interval at which the log has what the engine wrote.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// The numbers. Each is read and written by itself.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    /// The commands of the last batch that had any.
    batch: AtomicU64,
    /// The time that the last sync took, in microseconds; 0 before the first.
    sync: AtomicU64,
    /// The earliest expiry that the last sweep left, in milliseconds; 0 if it left none.
    due: AtomicU64,
    volume: Mutex<Option<Logged>>,
}

/// What the engine has written, and what it had written at the last line of the log.
#[derive(Debug, Clone, Copy)]
struct Logged {
    volume: Volume,
    before: Volume,
    at: Instant,
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

    /// Notes what the engine has written. Returns what it wrote since the last line of the log, if one is due.
    pub(crate) fn note_volume(&self, volume: Volume, now: Instant) -> Option<Volume> {
        let mut noted = self.volume.lock();
        let logged = noted.get_or_insert(Logged { volume, before: Volume::default(), at: now });
        logged.volume = volume;
        if volume == logged.before || now.duration_since(logged.at) < LOG_EVERY {
            return None;
        }
        let Volume { written, merged } = logged.before;
        (logged.before, logged.at) = (volume, now);
        Some(Volume { written: volume.written - written, merged: volume.merged - merged })
    }

    /// Returns these numbers.
    pub(super) fn gauges(&self, now: Timestamp) -> Gauges {
        let read = |number: &AtomicU64| Some(number.load(Ordering::Relaxed)).filter(|number| *number > 0);
        let lag = read(&self.due).map_or(0, |due| now.as_millis().saturating_sub(due));
        let volume = self.volume.lock().map(|logged| logged.volume);
        Gauges {
            written: volume.map(|volume| volume.written),
            merged: volume.map(|volume| volume.merged),
            batch: read(&self.batch),
            sync: read(&self.sync).map(Duration::from_micros),
            sweep_lag: Some(Duration::from_millis(lag)),
            ..Gauges::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_has_what_was_written_since_its_last_line_once_a_minute() {
        let (measured, began) = (Measured::default(), Instant::now());
        let note = |seconds, written, merged| {
            measured.note_volume(Volume { written, merged }, began + Duration::from_secs(seconds))
        };
        assert_eq!(note(0, 5, 0), None);
        assert_eq!(note(59, 70, 9), None);
        assert_eq!(note(60, 80, 9), Some(Volume { written: 80, merged: 9 }));
        // Nothing was written in these minutes.
        assert_eq!(note(121, 80, 9), None);
        assert_eq!(note(150, 95, 20), Some(Volume { written: 15, merged: 11 }));
        let gauges = measured.gauges(Timestamp::from_millis(0));
        assert_eq!((gauges.written, gauges.merged), (Some(95), Some(20)));
    }
}
