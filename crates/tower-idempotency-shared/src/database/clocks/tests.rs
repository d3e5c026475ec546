//! The rules at the head of `clocks.rs`.

use tower_idempotency::clock::SystemClock;

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn answers_that_overtake_each_other_are_no_step_of_the_clock_and_a_clock_that_is_set_is() {
    let at = Duration::from_millis;
    let read = |now: u64, sent, received| Read {
        now: Duration::from_millis(1_000_000 + now),
        sent: at(sent),
        received: at(received),
    };
    // A slow put was read before a quick get, and answered after it.
    let (get, put) = (read(3, 2, 3), read(1, 0, 5_000));
    assert!(!put.was_set_since(&get) && !get.was_set_since(&put));
    // A commit took long.
    assert!(!read(5_002, 5_001, 5_002).was_set_since(&put));
    for set in [60_000_i64, -60_000] {
        let after = read(4_u64.saturating_add_signed(set + 100_000), 4, 5);
        let before = read(100_003, 3, 4);
        assert!(after.was_set_since(&before) && before.was_set_since(&after), "{set}");
    }
}

/// A machine's clock on tokio's time. A test sets by how many milliseconds it is ahead.
#[derive(Debug, Clone)]
struct Set(Instant, Arc<Mutex<i64>>);

impl Set {
    fn new() -> Self {
        Self(Instant::now(), Arc::default())
    }

    fn ahead(&self, by: i64) {
        *self.1.lock() = by;
    }
}

impl Clock for Set {
    fn wall(&self) -> Timestamp {
        let right = 1_790_000_000_000 + self.0.elapsed().as_millis() as u64;
        Timestamp::from_millis(right.saturating_add_signed(*self.1.lock()))
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The three clocks. The test sets the database's clock and the wall clock.
struct World {
    three: ThreeClocks,
    database: Set,
    wall: Set,
}

impl World {
    /// Returns the clocks as they are when a store opens, each ahead by this many milliseconds.
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

    /// Returns how many milliseconds the earliest and the latest are ahead of the true time.
    fn ahead(&self) -> (i64, i64) {
        let right = 1_790_000_000_000 + self.wall.0.elapsed().as_millis() as i64;
        let ahead = |time: Timestamp| time.as_millis() as i64 - right;
        (ahead(self.three.earliest()), ahead(self.three.latest()))
    }
}

const HOUR: i64 = 3_600_000;

#[tokio::test(start_paused = true)]
async fn one_wrong_clock_of_three_neither_expires_nor_shortens_anything() {
    // The store is opened while all clocks are right, and during the jump.
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
    // The kept clock goes slower while it is ahead of both others.
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
    // The time was read when the call was sent, and the answer took long.
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
    // Clocks that differ do not stop the deletion: a fleet without NTP also deletes expired rows.
    world.ask();
    assert!(world.three.may_delete());
}

#[tokio::test]
async fn the_machine_s_own_clock_is_no_step() {
    let three = ThreeClocks::new(Arc::new(SystemClock::default()), DAY);
    let opened = three.state.lock().settled_since;
    assert_eq!(three.read_clocks().settled_since, opened);
}

#[tokio::test(start_paused = true)]
async fn the_kept_clock_does_not_go_back_beyond_the_others() {
    let world = World::opened(0, 0);
    world.database.ahead(-5_000);
    world.wall.ahead(-5_000);
    world.ask();
    tokio::time::advance(Duration::from_secs(1_000)).await;
    assert_eq!(world.ahead(), (-5_000, -5_000));
}

#[tokio::test(start_paused = true)]
async fn of_two_answers_that_were_under_way_together_the_one_counts_that_says_more() {
    for is_overtaken in [false, true] {
        let world = World::opened(0, 0);
        tokio::time::advance(Duration::from_secs(1)).await;
        let slow = (world.database.wall(), Instant::now());
        tokio::time::advance(Duration::from_secs(1)).await;
        let quick = (world.database.wall(), Instant::now());
        tokio::time::advance(Duration::from_secs(9)).await;
        for (now, sent) in if is_overtaken { [quick, slow] } else { [slow, quick] } {
            world.three.answered(now, sent);
        }
        assert_eq!(world.ahead(), (-9_000, 0), "{is_overtaken}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_that_a_call_takes_does_not_count_as_a_difference_between_clocks() {
    let (week, second) = (HOUR * 24 * 7, 1_000);
    for (ahead, is_apart) in [(5 * second - week, false), (-5 * second - week, true)] {
        let world = World::opened(0, 0);
        world.database.ahead(ahead);
        let (now, sent) = (world.database.wall(), Instant::now());
        tokio::time::advance(Duration::from_secs(10)).await;
        world.three.answered(now, sent);
        assert_eq!(world.three.are_apart(), is_apart, "{ahead}");
    }
}
