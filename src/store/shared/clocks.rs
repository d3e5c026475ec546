//! The three clocks by which a process judges and stamps rows: see the rules in `docs/design.md`, section 9.
//!
//! Rules:
//! 1. No decision rests on one clock. A row is judged by the *earliest* and stamped by the *latest* of three: the
//!    database's, this process's wall clock, and one that this process *keeps*.
//! 2. The kept clock starts when the store opens, at the earlier of the other two. It goes on by the monotonic clock
//!    and is never set. While it is outside the range of the other two, it moves toward the nearer one, by at most a
//!    hundredth of the time that passes.
//! 3. What this process only remembers is valid while the latest clock says so.
//! 4. Nothing is deleted in the first ten minutes after the opening, or after one of the clocks was set.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::backend::{Clocks, GRACE};
use crate::clock::{Clock, Timestamp};
use crate::store::StoreError;

/// The difference between two clocks from which on it is counted and logged.
const SKEW: Duration = Duration::from_secs(5);
/// A clock was set if it is so far from where the monotonic clock expects it.
const STEP: Duration = Duration::from_secs(1);
/// The kept clock moves toward the others by one part in so many of the time that passes.
const SLEW: u32 = 100;

/// The name of the clock that is no machine's.
pub(super) const KEPT: &str = "the clock that this process keeps";

#[derive(Debug)]
pub(super) struct ThreeClocks {
    clock: Arc<dyn Clock>,
    /// The database's clock and the wall clock may differ by less than this.
    apart: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The kept clock, since the Unix epoch. `None` before the database has answered.
    kept: Option<Duration>,
    /// The wall clock at the last look, and the monotonic time of that look.
    wall: Duration,
    looked: Duration,
    read: Option<Read>,
    /// When the store was opened, or a clock was last set, by the monotonic clock.
    settled_since: Duration,
    are_apart: bool,
}

/// A time of the database, and between which moments of the monotonic clock it was read.
#[derive(Debug, Clone, Copy)]
struct Read {
    now: Duration,
    sent: Duration,
    received: Duration,
}

/// A difference between the clocks that is worth a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Skew {
    /// The clock that is farthest from the two others.
    pub(super) clock: &'static str,
    pub(super) database: Timestamp,
    pub(super) wall: Timestamp,
    pub(super) kept: Timestamp,
    /// The database's clock and the wall clock are too far apart for claims.
    pub(super) are_apart: bool,
}

impl ThreeClocks {
    pub(super) fn new(clock: Arc<dyn Clock>, apart: Duration) -> Self {
        let (wall, looked) = (since_epoch(clock.wall()), clock.monotonic());
        let state = State { kept: None, wall, looked, read: None, settled_since: looked, are_apart: false };
        Self { clock, apart, state: Mutex::new(state) }
    }

    /// The clocks of this process, for a call of the database.
    pub(super) fn now(&self) -> Clocks {
        let state = self.look();
        let (wall, kept) = (state.wall, state.kept.unwrap_or(state.wall));
        let highest = state.database().map_or(wall, |database| wall.min(database.saturating_add(self.apart)));
        // Once the database has answered, its clock is taken into account by each call itself.
        Clocks { earliest: timestamp(kept.min(wall)), latest: timestamp(kept.max(highest)) }
    }

    /// The earliest of the three clocks, as far as the database's is known: what decides whether something that this
    /// process holds is over.
    pub(super) fn earliest(&self) -> Timestamp {
        let Clocks { earliest, .. } = self.now();
        self.state().database().map_or(earliest, |database| earliest.min(timestamp(database)))
    }

    /// The latest of the three clocks, as far as the database's is known: what decides whether something that this
    /// process remembers is still valid.
    pub(super) fn latest(&self) -> Timestamp {
        let Clocks { latest, .. } = self.now();
        self.state().database().map_or(latest, |database| latest.max(timestamp(database)))
    }

    /// Takes note of the database's time `now`, in the answer to a call that was sent at `sent`. Returns the difference
    /// between the clocks, if it is worth a log line.
    pub(super) fn answered(&self, now: Timestamp, sent: Instant) -> Option<Skew> {
        // The time was read at some moment of the call.
        let took = sent.elapsed();
        let mut state = self.look();
        let (wall, received) = (state.wall, state.looked);
        let read = Read { now: since_epoch(now), sent: received.saturating_sub(took), received };
        let kept = *state.kept.get_or_insert(wall.min(read.now));
        let before = state.read;
        if before.is_some_and(|before| read.was_set_since(&before)) {
            state.settled_since = received;
        }
        // An answer that was under way at the same time as another one may say less of the time than that one.
        if before.is_none_or(|before| read.sent >= before.received || read.is_ahead_of(&before)) {
            state.read = Some(read);
        }
        state.are_apart = differ(read.now, wall, took) > self.apart;
        let is_skewed =
            [(read.now, wall), (read.now, kept), (wall, kept)].iter().any(|(a, b)| differ(*a, *b, took) > SKEW);
        is_skewed.then(|| Skew {
            clock: farthest(read.now, wall, kept),
            database: now,
            wall: timestamp(wall),
            kept: timestamp(kept),
            are_apart: state.are_apart,
        })
    }

    /// Whether the database's clock and the wall clock are so far apart that no operation may begin.
    pub(super) fn are_apart(&self) -> bool {
        self.state().are_apart
    }

    /// Returns an error if the database's clock and the wall clock are so far apart that no operation may begin.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let state = self.look();
        let Some(database) = state.database().filter(|_| state.are_apart) else { return Ok(()) };
        let (days, apart) = (database.abs_diff(state.wall).as_secs() / 86_400, self.apart.as_secs() / 86_400);
        Err(StoreError::unavailable(format!(
            "the clocks are too far apart: it is {} by the database and {} by this process, in milliseconds since 1970, a \
             difference of {days} days, and at most {apart} are accepted; set the clock right that is wrong",
            database.as_millis(),
            state.wall.as_millis(),
        )))
    }

    /// Whether expired rows may be deleted: not in the first ten minutes after the opening, or after a clock was set.
    pub(super) fn may_delete(&self) -> bool {
        let state = self.look();
        state.looked.saturating_sub(state.settled_since) >= GRACE
    }

    /// Moves the kept clock on, and notices whether the wall clock was set.
    fn look(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The database's clock at the last look, as far as it is known.
    fn database(&self) -> Option<Duration> {
        self.read.map(|read| read.now.saturating_add(self.looked.saturating_sub(read.received)))
    }
}

impl Read {
    /// Whether the database's clock was set between two answers. Each says how far that clock is ahead of this
    /// process's: the time was read at some moment between sending and receiving. Answers may overtake each other.
    fn was_set_since(&self, before: &Self) -> bool {
        let ((least, most), (before_least, before_most)) = (self.ahead(before), before.ahead(before));
        let step = STEP.as_millis() as i128;
        least > before_most + step || most + step < before_least
    }

    fn is_ahead_of(&self, before: &Self) -> bool {
        self.ahead(before).0 >= before.ahead(before).0
    }

    /// How many milliseconds the database's clock is ahead of one that began when `origin` was sent, at least and at
    /// most.
    fn ahead(&self, origin: &Self) -> (i128, i128) {
        let millis = |duration: Duration| duration.as_millis() as i128;
        let ahead = |moment| millis(self.now) - (millis(moment) - millis(origin.sent));
        (ahead(self.received), ahead(self.sent))
    }
}

/// How far two clocks are apart, if the first was read at some moment of a call that took so long.
fn differ(one: Duration, other: Duration, took: Duration) -> Duration {
    one.abs_diff(other).saturating_sub(took)
}

fn farthest(database: Duration, wall: Duration, kept: Duration) -> &'static str {
    let names = [(database, "the database's clock"), (wall, "this process's wall clock"), (kept, KEPT)];
    let distance = |clock: Duration| names.iter().map(|(other, _)| clock.abs_diff(*other)).sum::<Duration>();
    // Of two that are equally far, the earlier in the list is named.
    names.iter().rev().max_by_key(|(clock, _)| distance(*clock)).map_or("", |(_, name)| name)
}

fn since_epoch(time: Timestamp) -> Duration {
    Duration::from_millis(time.as_millis())
}

fn timestamp(since_epoch: Duration) -> Timestamp {
    Timestamp::from_millis(0).plus(since_epoch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn answers_that_overtake_each_other_are_no_step_of_the_clock_and_a_clock_that_is_set_is() {
        let at = Duration::from_millis;
        let read = |now: u64, sent, received| Read {
            now: Duration::from_millis(1_000_000 + now),
            sent: at(sent),
            received: at(received),
        };
        // A slow put was read before a quick get, and is answered after it.
        let (get, put) = (read(3, 2, 3), read(1, 0, 5_000));
        assert!(!put.was_set_since(&get) && !get.was_set_since(&put));
        // A commit took its time.
        assert!(!read(5_002, 5_001, 5_002).was_set_since(&put));
        for set in [60_000_i64, -60_000] {
            let after = read(4_u64.saturating_add_signed(set + 100_000), 4, 5);
            let before = read(100_003, 3, 4);
            assert!(after.was_set_since(&before) && before.was_set_since(&after), "{set}");
        }
    }

    /// The machine's clock, ahead by some milliseconds that a test sets, on tokio's time.
    #[derive(Debug, Clone)]
    struct Set(Instant, Arc<Mutex<i64>>);

    impl Set {
        fn new() -> Self {
            Self(Instant::now(), Arc::default())
        }

        fn ahead(&self, by: i64) {
            *self.1.lock().unwrap() = by;
        }
    }

    impl Clock for Set {
        fn wall(&self) -> Timestamp {
            let right = 1_790_000_000_000 + self.0.elapsed().as_millis() as u64;
            Timestamp::from_millis(right.saturating_add_signed(*self.1.lock().unwrap()))
        }

        fn monotonic(&self) -> Duration {
            self.0.elapsed()
        }
    }

    /// The three clocks, with the database's and the wall clock in the hand of the test.
    struct World {
        three: ThreeClocks,
        database: Set,
        wall: Set,
    }

    impl World {
        /// The clocks as they are when a store opens, each ahead by so many milliseconds.
        fn opened(database: i64, wall: i64) -> Self {
            let (at, on) = (Set::new(), Set::new());
            at.ahead(database);
            on.ahead(wall);
            let world = Self { three: ThreeClocks::new(Arc::new(on.clone()), DAY * 7), database: at, wall: on };
            world.ask();
            world
        }

        fn ask(&self) -> Option<Skew> {
            self.three.answered(self.database.wall(), Instant::now())
        }

        /// How far the earliest and the latest are ahead of the true time, in milliseconds.
        fn ahead(&self) -> (i64, i64) {
            let right = 1_790_000_000_000 + self.wall.0.elapsed().as_millis() as i64;
            let ahead = |time: Timestamp| time.as_millis() as i64 - right;
            (ahead(self.three.earliest()), ahead(self.three.latest()))
        }
    }

    const HOUR: i64 = 3_600_000;

    #[tokio::test(start_paused = true)]
    async fn one_wrong_clock_of_three_neither_expires_nor_shortens_anything() {
        // The store was opened while all were right, and during the jump.
        for opened in [0, 25 * HOUR, -25 * HOUR] {
            for (database, wall) in [(25 * HOUR, 0), (-25 * HOUR, 0), (0, 25 * HOUR), (0, -25 * HOUR)] {
                let (at, on) = if database == 0 { (0, opened) } else { (opened, 0) };
                let world = World::opened(at, on);
                world.database.ahead(database);
                world.wall.ahead(wall);
                world.ask();
                let (earliest, latest) = world.ahead();
                assert!(earliest <= 0 && 0 <= latest, "opened at {opened}: {database}, {wall}: {earliest}, {latest}");
            }
        }
    }

    // Seeded fault: the kept clock starts at the database's.
    #[tokio::test(start_paused = true)]
    async fn a_store_that_was_opened_by_one_wrong_clock_bears_another_one_later() {
        for (database, wall) in [(25 * HOUR, 0), (0, 25 * HOUR)] {
            let world = World::opened(database, wall);
            world.database.ahead(25 * HOUR);
            world.wall.ahead(25 * HOUR);
            world.ask();
            let (earliest, _) = world.ahead();
            assert!(earliest <= 0, "{database} {wall}: {earliest}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_kept_clock_moves_toward_the_others_by_a_hundredth_of_the_time_that_passes() {
        let world = World::opened(-HOUR, 0);
        world.database.ahead(0);
        world.ask();
        assert_eq!(world.ahead(), (-HOUR, 0));
        tokio::time::advance(Duration::from_secs(1_000)).await;
        assert_eq!(world.ahead(), (-HOUR + 10_000, 0));
        tokio::time::advance(DAY * 30).await;
        assert_eq!(world.ahead(), (0, 0), "it has arrived, and does not go beyond");
        // Ahead of both, it goes slower.
        world.database.ahead(-HOUR);
        world.wall.ahead(-HOUR);
        world.ask();
        tokio::time::advance(Duration::from_secs(1_000)).await;
        world.ask();
        assert_eq!(world.ahead(), (-HOUR, -10_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wall_clock_that_is_years_ahead_counts_for_seven_days() {
        let world = World::opened(0, 0);
        world.wall.ahead(HOUR * 24 * 365);
        assert_eq!(world.ahead(), (0, HOUR * 24 * 7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_difference_of_more_than_five_seconds_is_reported_beyond_what_the_call_took() {
        let world = World::opened(0, 0);
        world.database.ahead(4_900);
        assert_eq!(world.ask(), None);
        world.database.ahead(5_100);
        assert_eq!(world.ask().unwrap().clock, "the database's clock");
        world.database.ahead(0);
        world.wall.ahead(-6_000);
        assert_eq!(world.ask().unwrap().clock, "this process's wall clock");
        world.wall.ahead(0);
        // The time was read when the call was sent, and the answer took its time.
        let (read, sent) = (world.database.wall(), Instant::now());
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(world.three.answered(read, sent), None);
    }

    #[tokio::test(start_paused = true)]
    async fn clocks_that_are_more_than_seven_days_apart_are_said_to_be() {
        let world = World::opened(0, 0);
        world.database.ahead(HOUR * 24 * 7 - 1_000);
        assert!(!world.ask().unwrap().are_apart && !world.three.are_apart());
        world.database.ahead(HOUR * 24 * 7 + 1_000);
        assert!(world.ask().unwrap().are_apart && world.three.are_apart());
        world.database.ahead(0);
        assert!(world.ask().is_none() && !world.three.are_apart());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_deleted_for_ten_minutes_after_the_opening_and_after_a_clock_was_set() {
        let world = World::opened(0, 0);
        let in_a_while = async || tokio::time::advance(GRACE - Duration::from_secs(1)).await;
        let then = async || tokio::time::advance(Duration::from_secs(1)).await;
        let sets: [&dyn Fn(); 2] = [&|| world.database.ahead(2_000), &|| world.wall.ahead(-2_000)];
        in_a_while().await;
        assert!(!world.three.may_delete());
        then().await;
        assert!(world.three.may_delete());
        for set in sets {
            set();
            world.ask();
            assert!(!world.three.may_delete());
            in_a_while().await;
            assert!(!world.three.may_delete());
            then().await;
            assert!(world.three.may_delete());
        }
        // Clocks that differ are no reason to wait: a fleet without NTP sweeps, too.
        world.ask();
        assert!(world.three.may_delete());
    }

    #[tokio::test]
    async fn the_machine_s_own_clock_is_no_step() {
        let three = ThreeClocks::new(Arc::new(SystemClock::default()), DAY);
        let opened = three.state().settled_since;
        assert_eq!(three.look().settled_since, opened);
    }
}
