//! The settings of a [`SharedStore`](super::SharedStore).

use std::sync::Arc;
use std::time::Duration;

use tower_idempotency::clock::{Clock, SystemClock};

/// Sets up a [`SharedStore`](super::SharedStore).
#[derive(Debug, Clone)]
#[must_use]
pub struct SharedStoreBuilder {
    // Each field has a method of the same name, which says what it sets.
    pub(super) lease: Duration,
    pub(super) call_timeout: Duration,
    pub(super) calls: usize,
    pub(super) open_within: Duration,
    pub(super) outcome_cache_bytes: u64,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) clocks_apart: Duration,
}

impl Default for SharedStoreBuilder {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            call_timeout: Duration::from_secs(2),
            calls: 4,
            open_within: Duration::from_secs(10),
            outcome_cache_bytes: 16 * 1024 * 1024,
            clock: Arc::new(SystemClock::default()),
            clocks_apart: Duration::from_secs(7 * 86_400),
        }
    }
}

impl SharedStoreBuilder {
    /// Sets for how long this process holds its session without a renewal. It renews the session every third of this
    /// time. Other processes watch the session, and count the process as dead when it has not changed for 5/4 of this
    /// time. They take its runs over at most that and a sixth of their own lease after the last renewal: 42.5 seconds
    /// by default. A shorter lease lets them take over sooner; a longer one bears longer outages of the database, and
    /// longer pauses of the process. Give all processes the same lease: a process with a longer lease may consider one
    /// with a shorter lease dead when the database refuses writes for a while. The lease is at least six times
    /// [`call_timeout`](Self::call_timeout), and at most a day. Default: 30 seconds.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets how long a call of the database may take. Then its answer counts as lost, and a write is sent again. A call
    /// that writes large rows may take a second more for each 64 KiB, and so may the reading of a large row.
    /// Default: 2 seconds.
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// Sets how many calls with writes are under way at once. Writes that come meanwhile share the next call. One call
    /// at a time has large writes, with more than 8 KiB of state; the others are for small writes, such as claims. The
    /// third and further ones start only while as many writes wait as the last call had. Default: 4.
    pub fn calls(mut self, calls: usize) -> Self {
        self.calls = calls;
        self
    }

    /// Sets for how long the opening tries to reach the database. Default: 10 seconds.
    pub fn open_within(mut self, timeout: Duration) -> Self {
        self.open_within = timeout;
        self
    }

    /// Sets the bytes of memory for completed records, which are replayed from there without a call of the database.
    /// Default: 16 MiB.
    pub fn outcome_cache_bytes(mut self, bytes: u64) -> Self {
        self.outcome_cache_bytes = bytes;
        self
    }

    /// Sets the clock of this process. The store also uses the database's clock and one that it keeps itself. Default:
    /// [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Sets how far the database's clock and this process's may be apart. With a larger difference the store does not
    /// open, and an open store grants no claims: new keys are refused with 503. Recorded outcomes are still replayed,
    /// and the ends of runs are always recorded. Default: 7 days.
    pub fn clocks_apart(mut self, most: Duration) -> Self {
        self.clocks_apart = most;
        self
    }
}
