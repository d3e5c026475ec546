//! The three clocks by which a process judges and stamps rows.
//!
//! Rules:
//! 1. No decision rests on one clock. A row is judged by the *earliest* and stamped by the *latest* of three: the
//!    database's, this process's wall clock, and one that this process *keeps*.
//! 2. The kept clock starts when the store opens, at the earlier of the other two. It goes on by the monotonic clock
//!    and is never set. While it is outside the range of the other two, it moves toward the nearer one, by at most a
//!    hundredth of the time that passes.
//! 3. A record that this process only remembers is valid until it has expired by the latest clock.
//! 4. Nothing is deleted in the first ten minutes after the opening, or after one of the clocks was set.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;
use tower_idempotency::clock::{Clock, Timestamp};
use tower_idempotency::internals;
use tower_idempotency::store::StoreError;

use crate::apply::Moment;
use crate::backend::{Clocks, GRACE};

/// A difference between two clocks that is larger than this is counted and logged.
const SKEW: Duration = Duration::from_secs(5);
/// A clock was set if it is this far from the time that the monotonic clock leads to.
const STEP: Duration = Duration::from_secs(1);
/// The kept clock moves toward the others by one part in this many of the time that passes.
const SLEW: u32 = 100;

/// The name of the clock that does not belong to a machine.
pub(crate) const KEPT_CLOCK: &str = "the clock that this process keeps";

/// The three clocks. `DatabaseState` has them: each call takes its times from here, and each answer adds the
/// database's.
#[derive(Debug)]
pub(crate) struct ThreeClocks {
    /// This process's wall clock and monotonic clock.
    clock: Arc<dyn Clock>,
    /// The database's clock and the wall clock may differ by at most this: see `SharedStoreBuilder::clocks_apart`.
    apart: Duration,
    /// Locked for short steps, in which `clock` is read.
    state: Mutex<Readings>,
}

/// The clocks as they were last read. `read_clocks` and `answered` change them.
#[derive(Debug)]
struct Readings {
    /// The kept clock, since the Unix epoch. `None` before the database has answered.
    kept: Option<Duration>,
    /// The wall clock at the last look, and the monotonic time of that look.
    wall: Duration,
    looked: Duration,
    /// The last time of the database that was noted. `None` before its first answer.
    read: Option<Read>,
    /// The time at which the store was opened or a clock was last set, by the monotonic clock. `may_delete` reads it.
    settled_since: Duration,
    /// The database's clock and the wall clock were too far apart at the last answer. Then no claim is granted.
    are_apart: bool,
}

/// A time of the database, and the two moments of the monotonic clock between which it was read.
#[derive(Debug, Clone, Copy)]
struct Read {
    now: Duration,
    sent: Duration,
    received: Duration,
}

/// A difference between the clocks that is worth a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Skew {
    /// The clock to be set right. It is the kept one only if the two others agree.
    pub(crate) clock: &'static str,
    pub(crate) database: Timestamp,
    pub(crate) wall: Timestamp,
    pub(crate) kept: Timestamp,
    /// The database's clock and the wall clock are too far apart for claims.
    pub(crate) are_apart: bool,
}

impl ThreeClocks {
    pub(crate) fn new(clock: Arc<dyn Clock>, apart: Duration) -> Self {
        let (wall, looked) = (since_epoch(clock.wall()), clock.monotonic());
        let state = Readings { kept: None, wall, looked, read: None, settled_since: looked, are_apart: false };
        Self { clock, apart, state: Mutex::new(state) }
    }

    /// Returns the clocks of this process, for a call of the database.
    pub(crate) fn now(&self) -> Clocks {
        self.clocks(&self.read_clocks())
    }

    /// Returns the earliest of the three clocks, as far as the database's is known. It decides whether something that
    /// this process holds is over.
    pub(crate) fn earliest(&self) -> Timestamp {
        self.range().earliest
    }

    /// Returns the latest of the three clocks, as far as the database's is known. It decides whether something that
    /// this process remembers is still valid.
    pub(crate) fn latest(&self) -> Timestamp {
        self.range().latest
    }

    /// Returns the range of all three clocks, as far as the database's is known.
    fn range(&self) -> Moment {
        let state = self.read_clocks();
        self.clocks(&state).at(timestamp(state.database().unwrap_or(state.wall)))
    }

    /// Returns the clocks of this process. Each call takes the database's own clock into account.
    fn clocks(&self, state: &Readings) -> Clocks {
        let (wall, kept) = (state.wall, state.kept.unwrap_or(state.wall));
        // A wall clock that is far ahead counts for `apart` at most, so that it can't make fences and expiries run
        // away.
        let highest = state.database().map_or(wall, |database| wall.min(database.saturating_add(self.apart)));
        Clocks { earliest: timestamp(kept.min(wall)), latest: timestamp(kept.max(highest)) }
    }

    /// Notes the database's time `now`, from the answer to a call that was sent at `sent`. Returns the difference
    /// between the clocks, if it is worth a log line.
    pub(crate) fn answered(&self, now: Timestamp, sent: Instant) -> Option<Skew> {
        // The database read the time at some moment of the call.
        let took = sent.elapsed();
        let mut state = self.read_clocks();
        let (wall, received) = (state.wall, state.looked);
        let read = Read { now: since_epoch(now), sent: received.saturating_sub(took), received };
        let kept = *state.kept.get_or_insert(wall.min(read.now));
        let before = state.read;
        if before.is_some_and(|before| read.was_set_since(&before)) {
            state.settled_since = received;
        }
        // If two answers were under way at the same time, the second may be less precise about the time than the first.
        // It is not if it shows the database's clock at least as far ahead: a greater lower bound is more precise.
        let is_precise = |before: Read| read.ahead(&before).0 >= before.ahead(&before).0;
        if before.is_none_or(|before| read.sent >= before.received || is_precise(before)) {
            state.read = Some(read);
        }
        state.are_apart = differ(read.now, wall, took) > self.apart;
        let is_skewed =
            [(read.now, wall), (read.now, kept), (wall, kept)].iter().any(|(a, b)| differ(*a, *b, took) > SKEW);
        is_skewed.then(|| Skew {
            clock: if differ(read.now, wall, took) > SKEW { farther(read.now, wall, kept) } else { KEPT_CLOCK },
            database: now,
            wall: timestamp(wall),
            kept: timestamp(kept),
            are_apart: state.are_apart,
        })
    }

    /// Returns whether the database's clock and the wall clock are so far apart that no operation may begin.
    pub(crate) fn are_apart(&self) -> bool {
        self.state.lock().are_apart
    }

    /// Returns an error if the database's clock and the wall clock are so far apart that no operation may begin.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let state = self.read_clocks();
        // Before the first answer there is nothing to compare.
        let Some(database) = state.database().filter(|_| state.are_apart) else { return Ok(()) };
        let (seconds, apart) = (database.abs_diff(state.wall).as_secs(), self.apart.as_secs());
        Err(internals::unavailable(format!(
            "the clocks are too far apart: it is {} by the database and {} by this process, in milliseconds since 1970, a \
             difference of {seconds} seconds, and at most {apart} are accepted; set the clock right that is wrong",
            database.as_millis(),
            state.wall.as_millis(),
        )))
    }

    /// Returns whether expired rows may be deleted: not in the first ten minutes after the opening, or after a clock
    /// was set.
    pub(crate) fn may_delete(&self) -> bool {
        let state = self.read_clocks();
        state.looked.saturating_sub(state.settled_since) >= GRACE
    }

    /// Reads this process's clocks, moves the kept clock on, and notices whether the wall clock was set. Returns the
    /// lock.
    fn read_clocks(&self) -> MutexGuard<'_, Readings> {
        let mut state = self.state.lock();
        let (wall, monotonic) = (since_epoch(self.clock.wall()), self.clock.monotonic());
        let passed = monotonic.saturating_sub(state.looked);
        if wall.abs_diff(state.wall.saturating_add(passed)) > STEP {
            state.settled_since = monotonic;
        }
        (state.wall, state.looked) = (wall, monotonic.max(state.looked));
        let database = state.database().unwrap_or(wall);
        let (low, high) = (wall.min(database), wall.max(database));
        if let Some(kept) = &mut state.kept {
            *kept = kept.saturating_add(passed);
            let slew = passed / SLEW;
            if *kept < low {
                *kept += slew.min(low - *kept);
            } else if *kept > high {
                *kept -= slew.min(*kept - high);
            }
        }
        state
    }
}

impl Readings {
    /// Returns the database's clock at the last look, as far as it is known.
    fn database(&self) -> Option<Duration> {
        self.read.map(|read| read.now.saturating_add(self.looked.saturating_sub(read.received)))
    }
}

impl Read {
    /// Returns whether the database's clock was set between two answers. Each answer shows how far that clock is ahead
    /// of this process's: the database read the time at some moment between sending and receiving. Answers may overtake
    /// each other.
    fn was_set_since(&self, before: &Self) -> bool {
        let ((least, most), (before_least, before_most)) = (self.ahead(before), before.ahead(before));
        let step = STEP.as_millis() as i128;
        least > before_most + step || most + step < before_least
    }

    /// Returns the least and the most milliseconds by which the database's clock is ahead of one that began when
    /// `origin` was sent.
    fn ahead(&self, origin: &Self) -> (i128, i128) {
        let millis = |duration: Duration| duration.as_millis() as i128;
        let ahead = |moment| millis(self.now) - (millis(moment) - millis(origin.sent));
        (ahead(self.received), ahead(self.sent))
    }
}

/// Returns how far two clocks are apart, if the first was read at some moment of a call that took this long.
fn differ(one: Duration, other: Duration, took: Duration) -> Duration {
    one.abs_diff(other).saturating_sub(took)
}

/// Returns the name of the one that is farther from the clock that this process keeps.
fn farther(database: Duration, wall: Duration, kept: Duration) -> &'static str {
    if database.abs_diff(kept) >= wall.abs_diff(kept) { "the database's clock" } else { "this process's wall clock" }
}

fn since_epoch(time: Timestamp) -> Duration {
    Duration::from_millis(time.as_millis())
}

fn timestamp(since_epoch: Duration) -> Timestamp {
    Timestamp::from_millis(0).plus(since_epoch)
}

#[cfg(test)]
mod tests;
