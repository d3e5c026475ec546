//! Time as a parameter. A store asks a [`Clock`]. [`SystemClock`] is the machine's; `ManualClock` (feature `test-util`)
//! is moved by hand.
//!
//! An embedded store reads the wall clock once, when it is opened, and adds the monotonic clock to it from then on. So
//! it does not notice if the wall clock jumps while the process runs. When it is opened, its time is never earlier than
//! the latest that it has seen. One case remains: if the wall clock jumps *forward* across a restart, records expire
//! early. A shared store looks at the wall clock at each call, and compares it with the database's.

use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch, by the store's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Returns the time that is `milliseconds` after the Unix epoch.
    #[must_use]
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(milliseconds)
    }

    /// Returns the milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Returns this time in the standard library's form, or `None` if that can't hold it.
    #[must_use]
    pub fn to_system_time(self) -> Option<SystemTime> {
        UNIX_EPOCH.checked_add(Duration::from_millis(self.0))
    }

    /// Returns this time plus `duration`, or the end of time if that overflows.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// A time before the Unix epoch becomes the epoch.
impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self(0).plus(time.duration_since(UNIX_EPOCH).unwrap_or_default())
    }
}

/// A source of time for a store.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Returns the time of the wall clock.
    fn wall(&self) -> Timestamp;

    /// Returns the time since any fixed moment. It never goes back.
    fn monotonic(&self) -> Duration;
}

impl<C: Clock + ?Sized> Clock for std::sync::Arc<C> {
    fn wall(&self) -> Timestamp {
        (**self).wall()
    }

    fn monotonic(&self) -> Duration {
        (**self).monotonic()
    }
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    /// The moment from which the monotonic time counts.
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> Timestamp {
        SystemTime::now().into()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// The time of the wall clock at the opening plus the monotonic time since.
#[cfg(any(feature = "_embedded", feature = "memory"))]
#[derive(Debug)]
pub(crate) struct Timeline {
    clock: std::sync::Arc<dyn Clock>,
    /// The store's time when it was opened.
    opened: Timestamp,
    /// The monotonic time when the store was opened.
    started: Duration,
}

#[cfg(any(feature = "_embedded", feature = "memory"))]
impl Timeline {
    /// Starts at the wall clock's time, or at `seen` if that is later.
    pub(crate) fn start(clock: std::sync::Arc<dyn Clock>, seen: Timestamp) -> Self {
        Self { opened: clock.wall().max(seen), started: clock.monotonic(), clock }
    }

    /// Returns the store's time. It never goes back while the store is open.
    pub(crate) fn now(&self) -> Timestamp {
        self.opened.plus(self.clock.monotonic().saturating_sub(self.started))
    }

    /// Returns when an operation began that begins at `now`. Both clocks may be ahead, for example because the wall
    /// clock was once, and an effect of the operation must never look earlier than this. So it is the earlier one.
    pub(crate) fn began(&self, now: Timestamp) -> Timestamp {
        now.min(self.clock.wall())
    }
}

/// A clock that does not move until it is moved.
#[cfg(feature = "test-util")]
#[derive(Debug, Clone)]
pub struct ManualClock {
    /// The wall clock and the monotonic clock. One lock has both, so that no reader sees only one of them moved.
    hands: std::sync::Arc<parking_lot::Mutex<(Timestamp, Timestamp)>>,
}

/// A clock that shows the Unix epoch.
#[cfg(feature = "test-util")]
impl Default for ManualClock {
    fn default() -> Self {
        Self::new(Timestamp::from_millis(0))
    }
}

#[cfg(feature = "test-util")]
impl ManualClock {
    /// Creates a clock that shows `wall`.
    #[must_use]
    pub fn new(wall: Timestamp) -> Self {
        Self { hands: std::sync::Arc::new(parking_lot::Mutex::new((wall, Timestamp::from_millis(0)))) }
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let mut hands = self.hands.lock();
        *hands = (hands.0.plus(by), hands.1.plus(by));
    }

    /// Sets the wall clock to `wall`, as an operator or NTP does; no time passes.
    pub fn jump(&self, wall: Timestamp) {
        self.hands.lock().0 = wall;
    }
}

#[cfg(feature = "test-util")]
impl Clock for ManualClock {
    fn wall(&self) -> Timestamp {
        self.hands.lock().0
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.hands.lock().1.as_millis())
    }
}
