//! The rules at the head of `own.rs`.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, advance};

use super::script::{START, id};
use crate::backend::{Clocks, Expect, GRACE, Kind, NewExpiry, Row, Token, Write};
use crate::session::own::{Renewed, Said, Session, dead};

const LEASE: Duration = Duration::from_secs(30);

/// Returns the row that a renewal makes of the present one.
fn made(renewal: &Write, there: Option<&Row>) -> Row {
    renewal.apply_to(there, Clocks::default().at(START)).unwrap()
}

/// Returns a session that was begun now, and its row.
fn begun() -> (Session, Row) {
    let session = Session::new(LEASE);
    let renewal = session.renewal(START);
    let row = made(&renewal, None);
    assert_eq!(session.renewed(&renewal, Some(&row), Instant::now()), Renewed::Yes);
    (session, row)
}

#[test]
fn a_session_s_row_says_how_long_its_lease_is_and_which_bounds_are_over() {
    for lease in [Duration::from_millis(1), LEASE, Duration::from_secs(86_400 * 400)] {
        let row = made(&Session::new(lease).renewal(START), None);
        assert_eq!(Said::by(&row), Some(Said { lease, over_before: START }));
        assert_eq!(row.until, Some(START.plus(lease)));
        let cut = Row { state: row.state.slice(..16), ..row.clone() };
        let long = Row { state: [&row.state[..], &[0]].concat().into(), ..row.clone() };
        let later = Row { state: [&[2], &row.state[1..]].concat().into(), ..row.clone() };
        for row in [cut, long, later, Row { state: Bytes::new(), ..row }] {
            assert_eq!(Said::by(&row), None);
        }
    }
}

// Seeded faults: a session is held before the database has answered; its lease counts from the answer; it is held with
// less than half of its lease.
#[tokio::test(start_paused = true)]
async fn a_lease_counts_from_the_first_copy_that_was_sent_and_a_claim_needs_half_of_it() {
    let session = Session::new(LEASE);
    let renewal = session.renewal(START);
    assert!(!session.holds_half(), "the database has not answered");
    let sent = Instant::now();
    advance(LEASE / 4).await;
    assert_eq!(session.renewed(&renewal, Some(&made(&renewal, None)), sent), Renewed::Yes);
    assert!(session.holds_half());
    advance(LEASE / 4).await;
    assert!(session.holds_half(), "half of it is left");
    advance(Duration::from_millis(1)).await;
    assert!(!session.holds_half());
}

// Seeded faults: a renewal has the token of the one before; it expects no row; it is of another session.
#[tokio::test(start_paused = true)]
async fn a_renewal_replaces_the_one_before_under_a_token_of_its_own() {
    let (session, row) = begun();
    let renewal = session.renewal(START);
    assert_eq!((renewal.id, renewal.expect, renewal.kind), (row.id, Expect::Token(row.token), Kind::Session));
    assert_ne!(renewal.token, row.token);
    let later = made(&renewal, Some(&row));
    assert_eq!(session.renewed(&renewal, Some(&later), Instant::now()), Renewed::Yes);
    assert_eq!(session.renewal(START).expect, Expect::Token(renewal.token));
}

// Seeded faults: the session is given up, or counts as renewed; the next renewal expects the old token again.
#[tokio::test(start_paused = true)]
async fn a_session_that_has_another_token_of_this_process_is_renewed_anew() {
    let (session, row) = begun();
    advance(LEASE * 3 / 4).await;
    let renewal = session.renewal(START);
    let other = Row { token: Token([9; 16]), ..row };
    assert_eq!(session.renewed(&renewal, Some(&other), Instant::now()), Renewed::Again);
    assert!(!session.holds_half(), "nothing was renewed");
    assert_eq!((session.renewal(START).id, session.renewal(START).expect), (other.id, Expect::Token(other.token)));
}

// Seeded faults: a dead session is still held, or renewed; its runs count as another process's; the new session expects
// a row.
#[tokio::test(start_paused = true)]
async fn a_session_that_was_declared_dead_is_not_renewed_and_its_runs_stay_this_process_s() {
    for is_gone in [true, false] {
        let (session, row) = begun();
        let renewal = session.renewal(START);
        let marked = made(&dead(row.id, Expect::Token(row.token)), Some(&row));
        let there = if is_gone { None } else { Some(&marked) };
        assert_eq!(session.renewed(&renewal, there, Instant::now()), Renewed::Dead);
        assert!(!session.holds_half(), "no claim begins under it");
        let next = session.renewal(START);
        assert_ne!(next.id, row.id);
        assert_eq!((next.expect, session.id()), (Expect::Absent, next.id));
        assert!(session.own().contains(&row.id) && session.own().contains(&next.id));
        assert!(session.end().is_none(), "the new one has no row");
    }
}

// Seeded fault: a session is this process's own only once the database has answered.
#[tokio::test]
async fn a_session_is_this_process_s_before_its_row_is_sent() {
    let session = Session::new(LEASE);
    assert!(session.own().is_empty());
    let renewal = session.renewal(START);
    assert!(session.own().contains(&renewal.id));
}

// Seeded faults: a session is renewed each third of a long lease; it is renewed each ten seconds of a short one.
#[tokio::test(start_paused = true)]
async fn a_session_is_renewed_each_third_of_its_lease_and_each_ten_seconds() {
    let period = |lease: u64| Session::new(Duration::from_secs(lease)).period();
    assert_eq!([period(12), period(30), period(300)], [4, 10, 10].map(Duration::from_secs));
}

// Seeded faults: a session is ended whatever its token; its row goes at once, or stays for ever.
#[tokio::test(start_paused = true)]
async fn a_session_is_ended_by_its_own_token_and_its_row_is_kept_for_an_hour() {
    let (session, row) = begun();
    let end = session.end().unwrap();
    assert_eq!((end.id, end.expect, end.kind), (row.id, Expect::Token(row.token), Kind::Released));
    assert_eq!(end.expires, NewExpiry::In(Duration::from_secs(3_600).max(GRACE)));
    assert!(Session::new(LEASE).end().is_none(), "it was never begun");
    assert_eq!(dead(id(1), Expect::Absent).expect, Expect::Absent);
}
