//! The clocks of a process, next to the database's. A lease, an update and a sweep each ask them.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

/// How far the wall clock and the database's may differ for the process to take their time for its own.
const AGREED: Duration = Duration::from_secs(60);
/// How old the time is at most that relays have seen go by, while there are relays.
const FRESH: Duration = Duration::from_secs(2 * 60);

/// A moment, by the process. The statements add the database's clock: see `statements.rs`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) wall: SystemTime,
    /// The process's own time, which the monotonic clock moves.
    pub(super) kept: SystemTime,
    /// A time that is not over yet by any relay: what the table had when this process began, and the time since then.
    pub(super) floor: SystemTime,
    /// Whether the wall clock and the database's agreed when the process began.
    pub(super) is_agreed: bool,
    /// A number of this process, drawn at random, and the seconds since it began, by the monotonic clock.
    pub(super) process: i64,
    pub(super) elapsed: f64,
}

/// When the process began, and the moment that it was then.
#[derive(Debug, Default)]
pub(super) struct Clock(OnceLock<(Instant, Now)>);

impl Clock {
    /// The moment, once the clock has begun.
    pub(super) fn now(&self) -> Option<Now> {
        let (began, at) = *self.0.get()?;
        let elapsed = began.elapsed();
        let since = |then: SystemTime| then.checked_add(elapsed).unwrap_or(then);
        let (wall, kept, floor) = (SystemTime::now(), since(at.kept), since(at.floor));
        Some(Now { wall, kept, floor, elapsed: elapsed.as_secs_f64(), ..at })
    }

    /// Begins, with the database's time and what the table has.
    pub(super) fn begin(&self, database: SystemTime, floor: Option<SystemTime>) {
        let wall = SystemTime::now();
        let (kept, is_agreed) = time_at_the_beginning(database, wall, floor);
        let floor = floor.unwrap_or_else(|| database.min(wall));
        let process = RandomState::new().hash_one(wall) as i64;
        self.0.get_or_init(|| (Instant::now(), Now { wall, kept, floor, is_agreed, process, elapsed: 0.0 }));
    }
}

/// The time that a process begins with, and whether two clocks agree on it. If they do not, waits need a time that all
/// relays have, which is the database's, unless the other relays have the wall clock's.
fn time_at_the_beginning(database: SystemTime, wall: SystemTime, floor: Option<SystemTime>) -> (SystemTime, bool) {
    let apart = database.duration_since(wall).unwrap_or_else(|behind| behind.duration());
    if apart <= AGREED {
        return (database, true);
    }
    // No clock that is right is before this time.
    let age = |time: SystemTime| floor.and_then(|floor| time.duration_since(floor).ok());
    let is_fresh = |time| age(time).is_some_and(|age| age <= FRESH);
    (if is_fresh(wall) && !is_fresh(database) { wall } else { database }, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_process_and_the_time_that_is_over_by_no_relay_go_on_since_it_began() {
        let [kept, floor] = [1_000, 900].map(|secs| SystemTime::UNIX_EPOCH + Duration::from_secs(secs));
        let at = Instant::now() - Duration::from_secs(10);
        let began = Now { wall: kept, kept, floor, is_agreed: true, process: 7, elapsed: 0.0 };
        let now = Clock((at, began).into()).now().unwrap();
        let elapsed = Duration::from_secs_f64(now.elapsed);
        assert!(elapsed >= Duration::from_secs(10), "{now:?}");
        assert_eq!((now.kept, now.floor), (kept + elapsed, floor + elapsed));
    }

    #[test]
    fn a_process_follows_the_clock_that_the_other_relays_have() {
        let at = |secs: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + secs);
        for (database, wall, floor, expected) in [
            (at(0), at(60), None, (at(0), true)),
            (at(0), at(61), None, (at(0), false)),
            (at(61), at(0), None, (at(61), false)),
            // Relays have seen a time go by until shortly before.
            (at(9_000), at(5_000), Some(at(4_950)), (at(5_000), false)),
            (at(5_000), at(9_000), Some(at(4_950)), (at(5_000), false)),
            (at(5_000), at(4_900), Some(at(4_950)), (at(5_000), false)),
            (at(4_900), at(5_000), Some(at(4_950)), (at(5_000), false)),
            (at(5_000), at(5_061), Some(at(4_950)), (at(5_000), false)),
            // Or long before: all that is known is that they have no time in common but the database's.
            (at(9_000), at(5_000), Some(at(100)), (at(9_000), false)),
            (at(5_000), at(9_000), Some(at(100)), (at(5_000), false)),
        ] {
            assert_eq!(time_at_the_beginning(database, wall, floor), expected, "{database:?} {wall:?} {floor:?}");
        }
    }
}
