//! The rules at the head of `others.rs`.

use std::sync::LazyLock;

use tokio::time::{advance, sleep};

use super::*;
use crate::backend::{Clocks, NewExpiry, Write};
use crate::session::own::Session;

const LEASE: Duration = Duration::from_secs(30);
const SERVER: ServerId = ServerId(1);
/// The lease of the other session, a sixth of it, and 5/4 of it.
const SHORT: Duration = Duration::from_secs(12);
const STEP: Duration = Duration::from_secs(2);
const WAIT: Duration = Duration::from_secs(15);
static OTHER: LazyLock<RecordId> = LazyLock::new(|| RecordId::from_bytes([7; 32]));

/// Returns the row of a session with the short lease and this token.
fn row(token: u8) -> Row {
    let renewal = Session::new(SHORT).renewal(Timestamp::from_millis(1));
    let write = Write { id: *OTHER, token: Token([token; 16]), expires: NewExpiry::In(LEASE), ..renewal };
    write.apply_to(None, Clocks::default().at(Timestamp::from_millis(1))).unwrap()
}

fn read_by(watch: &OtherSessions, server: ServerId, row: Option<Row>) {
    watch.read(Instant::now());
    watch.note(server, Instant::now(), [(*OTHER, row)]);
}

fn read(watch: &OtherSessions, token: u8) {
    read_by(watch, SERVER, Some(row(token)));
}

/// Reads every two seconds, as a process does, until this much time has passed.
async fn reads(watch: &OtherSessions, token: u8, for_so_long: Duration) {
    let end = Instant::now() + for_so_long;
    while Instant::now() < end {
        read(watch, token);
        tokio::time::sleep_until(end.min(Instant::now() + STEP)).await;
    }
}

/// Returns a watch that has just seen another session for the first time.
fn watching() -> OtherSessions {
    let watch = OtherSessions::new(LEASE);
    read(&watch, 1);
    watch
}

#[tokio::test(start_paused = true)]
async fn a_session_is_over_when_a_read_after_5_4_of_its_own_lease_still_shows_it() {
    let watch = watching();
    reads(&watch, 1, WAIT).await;
    assert!(!watch.is_over(*OTHER), "no read was sent after the wait yet");
    read(&watch, 1);
    assert!(watch.is_over(*OTHER));
    assert_eq!((watch.expected(*OTHER), watch.alive()), (Some(Expect::Token(Token([1; 16]))), vec![]));
    // The session is alive after all.
    read(&watch, 2);
    assert!(!watch.is_over(*OTHER));
    assert_eq!((watch.expected(*OTHER), watch.alive()), (None, vec![*OTHER]));
}

#[tokio::test(start_paused = true)]
async fn each_change_begins_a_new_wait_and_so_does_each_other_server() {
    let watch = watching();
    for round in 2..9 {
        reads(&watch, round - 1, WAIT - Duration::from_millis(1)).await;
        read(&watch, round);
        assert!(!watch.is_over(*OTHER), "{round}");
    }
    // A standby that is replaying shows another identity in each answer.
    for server in 10..30 {
        sleep(STEP).await;
        read_by(&watch, ServerId(server), Some(row(9)));
        assert!(!watch.is_over(*OTHER), "{server}");
    }
    // The same token with another `until` means that the row was written again.
    let mut again = row(9);
    again.until = Some(Timestamp::from_millis(2));
    sleep(STEP).await;
    read_by(&watch, ServerId(29), Some(again));
    sleep(WAIT - STEP).await;
    assert!(!watch.is_over(*OTHER));
}

#[tokio::test(start_paused = true)]
async fn a_read_that_was_sent_before_the_wait_was_over_proves_nothing() {
    let watch = watching();
    sleep(WAIT - Duration::from_millis(1)).await;
    let sent = Instant::now();
    sleep(LEASE / 3).await;
    watch.note(SERVER, sent, [(*OTHER, Some(row(1)))]);
    assert!(!watch.is_over(*OTHER));
}

// Seeded fault: two reads that are far apart count like any others.
#[tokio::test(start_paused = true)]
async fn watching_starts_over_where_two_reads_are_more_than_half_a_lease_apart() {
    for (apart, is_over) in [(SHORT / 2, true), (SHORT / 2 + Duration::from_millis(1), false)] {
        let watch = watching();
        reads(&watch, 1, WAIT - SHORT / 2).await;
        read(&watch, 1);
        advance(apart).await;
        read(&watch, 1);
        assert_eq!(watch.is_over(*OTHER), is_over, "{apart:?}");
    }
    let watch = watching();
    reads(&watch, 1, WAIT).await;
    read(&watch, 1);
    assert!(watch.is_over(*OTHER));
    watch.start_over();
    assert!(!watch.is_over(*OTHER));
}

// Seeded fault: a session that is absent is over.
#[tokio::test(start_paused = true)]
async fn an_absent_session_is_watched_for_a_wait_and_an_ended_one_is_over_at_once() {
    let watch = OtherSessions::new(LEASE);
    assert!(!watch.is_over(*OTHER), "a row names it");
    assert_eq!(watch.unlisted(&[]), [*OTHER]);
    for _ in 0..8 {
        read_by(&watch, SERVER, None);
        assert!(!watch.is_over(*OTHER));
        sleep(LEASE / 6).await;
    }
    assert_eq!(watch.unlisted(&[]), [*OTHER]);
    read_by(&watch, SERVER, None);
    assert!(watch.is_over(*OTHER));
    assert_eq!(watch.expected(*OTHER), Some(Expect::Absent));
    read_by(&watch, SERVER, Some(Row { kind: Kind::Released, ..row(1) }));
    assert!(watch.is_over(*OTHER));
    assert_eq!((watch.expected(*OTHER), watch.unlisted(&[])), (None, vec![]));
    let watch = watching();
    read_by(&watch, SERVER, Some(Row { kind: Kind::Released, ..row(2) }));
    assert!(watch.is_over(*OTHER));
}

// Seeded fault: the lease of a session is forgotten when its row is absent.
#[tokio::test(start_paused = true)]
async fn a_session_whose_row_vanishes_is_watched_for_a_wait_of_its_own_lease() {
    let watch = OtherSessions::new(LEASE);
    let long = Session::new(LEASE * 4).renewal(Timestamp::from_millis(1));
    let long = Write { id: *OTHER, expires: NewExpiry::In(LEASE), ..long };
    read_by(&watch, SERVER, long.apply_to(None, Clocks::default().at(Timestamp::from_millis(1))));
    read_by(&watch, SERVER, None);
    for _ in 0..LEASE.as_secs() {
        assert!(!watch.is_over(*OTHER));
        sleep(LEASE / 6).await;
        read_by(&watch, SERVER, None);
    }
    assert!(watch.is_over(*OTHER));
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_lease_can_t_be_read_is_never_over() {
    let watch = OtherSessions::new(LEASE);
    for _ in 0..1_000 {
        read_by(&watch, SERVER, Some(Row { state: bytes::Bytes::from_static(b"later"), ..row(1) }));
        sleep(LEASE / 6).await;
    }
    assert!(!watch.is_over(*OTHER));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_has_not_changed_for_ten_waits_is_long_over_and_one_that_is_gone_is_forgotten() {
    let watch = watching();
    reads(&watch, 1, WAIT * 10 - STEP).await;
    assert_eq!(watch.long_over(), []);
    reads(&watch, 1, STEP * 2).await;
    assert_eq!(watch.long_over(), [*OTHER]);
    watch.ended(*OTHER);
    assert_eq!(watch.long_over(), []);
    assert!(watch.is_over(*OTHER));
    sleep(REMEMBERED).await;
    watch.read(Instant::now());
    assert!(watch.state.lock().others.is_empty());
}

#[tokio::test(start_paused = true)]
async fn sessions_are_read_each_sixth_of_the_shortest_lease_and_as_soon_as_a_wait_is_over_or_a_new_one_is_named() {
    let begin = Instant::now();
    let alone = OtherSessions::new(LEASE);
    alone.due().await;
    assert_eq!(begin.elapsed(), LEASE / 6);
    let begin = Instant::now();
    let watch = watching();
    watch.due().await;
    assert_eq!(begin.elapsed(), STEP);
    reads(&watch, 1, WAIT - STEP - Duration::from_secs(1)).await;
    watch.due().await;
    assert_eq!(begin.elapsed(), WAIT);
    watch.is_over(RecordId::from_bytes([8; 32]));
    watch.due().await;
    assert_eq!(begin.elapsed(), WAIT, "at once");
}

#[tokio::test(start_paused = true)]
async fn only_a_session_that_is_alive_says_how_often_sessions_are_read_and_a_new_one_is_read_at_once() {
    let took = async |watch: &OtherSessions| {
        let begin = Instant::now();
        watch.due().await;
        begin.elapsed()
    };
    let watch = watching();
    reads(&watch, 1, WAIT).await;
    read(&watch, 1);
    assert!(watch.is_over(*OTHER));
    assert_eq!(took(&watch).await, LEASE / 6);
    let watch = OtherSessions::new(MIN_LEASE / 10);
    assert!(took(&watch).await >= MIN_LEASE / 6);
    watch.is_over(*OTHER);
    assert_eq!(took(&watch).await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_absent_session_is_watched_for_a_wait_of_the_longest_lease_that_it_may_have_had() {
    for (own, lease) in [(SHORT, UNKNOWN_LEASE), (LEASE * 2, LEASE * 2)] {
        let (watch, end) = (OtherSessions::new(own), Instant::now() + lease * 5 / 4);
        while Instant::now() < end {
            read_by(&watch, SERVER, None);
            assert!(!watch.is_over(*OTHER), "{own:?}");
            tokio::time::sleep_until(end.min(Instant::now() + STEP)).await;
        }
        read_by(&watch, SERVER, None);
        assert!(watch.is_over(*OTHER), "{own:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn neither_an_absent_session_nor_one_that_was_not_read_since_is_long_over() {
    let watch = watching();
    sleep(WAIT * WAITS).await;
    assert_eq!(watch.long_over(), []);
    let watch = OtherSessions::new(LEASE);
    for _ in 0..8 * WAITS {
        read_by(&watch, SERVER, None);
        sleep(LEASE / 6).await;
    }
    assert!(watch.is_over(*OTHER));
    assert_eq!(watch.long_over(), []);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_over_is_remembered_for_an_hour_after_a_row_last_named_it() {
    let hour = REMEMBERED.as_secs() / 5;
    let (named, absent) = (watching(), OtherSessions::new(LEASE));
    named.ended(*OTHER);
    absent.is_over(*OTHER);
    for at in 0..hour * 2 {
        named.read(Instant::now());
        if at % (hour / 2) == 0 {
            assert!(named.is_over(*OTHER));
        }
        absent.read(Instant::now());
        let rows: Vec<_> = absent.unlisted(&[]).into_iter().map(|id| (id, None)).collect();
        absent.note(SERVER, Instant::now(), rows);
        sleep(LEASE / 6).await;
    }
    assert!(named.state.lock().others.contains_key(&*OTHER));
    assert!(absent.state.lock().others.is_empty());
}
