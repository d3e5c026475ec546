//! How long claims, runs and the rest take: an observer that keeps small histograms in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tower_idempotency::Observer;
use tower_idempotency::observer::RunEnd;

/// The number of buckets. The last one has all that took longer than 100 seconds.
pub(crate) const BUCKETS: usize = 54;

/// An observer that counts how long things take, for the page's graphs. Clones share the counts. It takes 2 KiB.
///
/// A store has one observer. Observe it with a pair if you export metrics, too:
///
/// ```
/// use tower_idempotency::store::Store as _;
/// use tower_idempotency::{IdempotencyLayer, MemoryStore};
/// use tower_idempotency_admin::{Access, Actor, AdminPage, Latencies};
///
/// # struct Metrics;
/// # impl tower_idempotency::Observer for Metrics {}
/// let (store, latencies) = (MemoryStore::new(), Latencies::new());
/// store.observe((Metrics, latencies.clone()))?;
/// let layer = IdempotencyLayer::new(store);
/// let authorize = async |_| Ok(Actor::new("operator", Access::READ));
/// let page = AdminPage::new(layer.operations(), authorize).latencies(latencies);
/// # Ok::<(), tower_idempotency::observer::AlreadyObserved>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Latencies(Arc<[Histogram; 5]>);

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timed {
    Claim,
    Run,
    Record,
    Replay,
    Wait,
}

impl Timed {
    /// In the order of the histograms: each with its name, and in words.
    pub(crate) const ALL: [(Self, &str, &str); 5] = [
        (Self::Claim, "claim", "Claiming a key"),
        (Self::Run, "run", "Run of a handler"),
        (Self::Record, "record", "Recording of an answer"),
        (Self::Replay, "replay", "Replay"),
        (Self::Wait, "wait", "Waiting for the first request"),
    ];
}

/// Counts of durations. Each bucket is a half or a third wider than the one before.
#[derive(Debug)]
struct Histogram([AtomicU64; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; BUCKETS])
    }
}

impl Latencies {
    /// Creates an observer that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn add(&self, timed: Timed, took: Duration) {
        self.0[timed as usize].0[bucket_of(took)].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many durations each bucket has.
    pub(crate) fn counts(&self, timed: Timed) -> [u64; BUCKETS] {
        self.0[timed as usize].0.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

impl Observer for Latencies {
    fn ran(&self, _: RunEnd, took: Duration) {
        self.add(Timed::Run, took);
    }

    fn replayed(&self, took: Duration) {
        self.add(Timed::Replay, took);
    }

    fn waited(&self, took: Duration) {
        self.add(Timed::Wait, took);
    }

    fn claimed(&self, took: Duration) {
        self.add(Timed::Claim, took);
    }

    fn recorded(&self, took: Duration) {
        self.add(Timed::Record, took);
    }
}

/// Returns the upper bound of a bucket, in microseconds: 1, 2, 3, 4, 6, 8, 12, … The last bucket has none.
pub(crate) const fn bound(bucket: usize) -> u64 {
    match bucket {
        0 => 1,
        bucket if bucket % 2 == 1 => 2 << (bucket / 2),
        bucket => 3 << (bucket / 2 - 1),
    }
}

/// Returns the first bucket whose bound a duration does not exceed.
fn bucket_of(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    // The bounds at `2 * log - 1` are the powers of two.
    let log = micros.ilog2() as usize;
    let power = 1_u64 << log;
    let bucket = match log {
        0 => 0,
        _ if micros == power => 2 * log - 1,
        _ if micros <= power + power / 2 => 2 * log,
        _ => 2 * log + 1,
    };
    bucket.min(BUCKETS - 1)
}

/// Returns the bound that this share of the durations does not exceed; `None` if there are no durations, or if it is
/// in the last bucket, which has no bound.
pub(crate) fn quantile(counts: &[u64; BUCKETS], share: f64) -> Option<Duration> {
    let all: u64 = counts.iter().sum();
    let wanted = (all as f64 * share).ceil() as u64;
    let mut seen = 0;
    let bucket = counts.iter().position(|count| {
        seen += count;
        seen >= wanted.max(1)
    })?;
    (bucket < BUCKETS - 1).then(|| Duration::from_micros(bound(bucket)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        for micros in (0..5_000).chain([1 << 20, (1 << 20) + 1, 3 << 20, (3 << 20) + 1]) {
            let bucket = bucket_of(Duration::from_micros(micros));
            assert!(micros <= bound(bucket), "{micros} µs in the bucket up to {} µs", bound(bucket));
            assert!(bucket == 0 || micros > bound(bucket - 1), "{micros} µs belongs into an earlier bucket");
        }
        assert_eq!(bucket_of(Duration::MAX), BUCKETS - 1);
        assert!((1..BUCKETS).all(|bucket| bound(bucket - 1) < bound(bucket)));
    }

    #[test]
    fn a_quantile_is_the_bound_of_its_bucket_and_none_if_there_is_none() {
        let latencies = Latencies::new();
        assert_eq!(quantile(&latencies.counts(Timed::Claim), 0.5), None);
        for millis in 1..=100 {
            latencies.claimed(Duration::from_millis(millis));
        }
        let counts = latencies.counts(Timed::Claim);
        assert_eq!(quantile(&counts, 0.5), Some(Duration::from_micros(65_536)));
        assert_eq!(quantile(&counts, 0.99), Some(Duration::from_micros(131_072)));
        latencies.waited(Duration::MAX);
        assert_eq!(quantile(&latencies.counts(Timed::Wait), 0.5), None);
    }
}
