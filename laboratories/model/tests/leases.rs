//! Sessions keep their promises whenever a process, a clock, the network or the database is late, wrong or away, and
//! each fault that is seeded is seen.
//!
//! ```text
//! cargo test -p model --test leases -- --nocapture                               # the short form
//! cargo test -p model --release --test leases -- --include-ignored --nocapture   # all accidents at all rates
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod explore;

use explore::{is_seen_to_break, keeps_its_promises};
use model::{Accidents, LeaseFault, Leases, Occasion, Rates};
use stateright::{Expectation, Model};

const NONE: Accidents = Accidents {
    lost: 0,
    late: 0,
    cuts: 0,
    outages: 0,
    refusals: 0,
    restarts: 0,
    failovers: 0,
    clocks: 0,
    years: 0,
    pauses: 0,
    opened: 0,
};
const CUT: Accidents = Accidents { cuts: 1, lost: 1, ..NONE };
const AWAY: Accidents = Accidents { outages: 1, restarts: 1, ..NONE };
const REFUSING: Accidents = Accidents { refusals: 1, ..NONE };
const REPLACED: Accidents = Accidents { failovers: 1, ..NONE };
const REPLACED_AND_CUT: Accidents = Accidents { cuts: 1, ..REPLACED };
const SET: Accidents = Accidents { clocks: 2, cuts: 1, ..NONE };
const YEARS: Accidents = Accidents { years: 1, cuts: 1, ..NONE };
const STANDS_STILL: Accidents = Accidents { pauses: 1, lost: 1, ..NONE };
const OPENED: Accidents = Accidents { opened: 1, cuts: 1, ..NONE };

const TAKEN_OVER: &str = "a session is taken over";
const DROPPED: &str = "a handler is dropped before its lease ends";
const NOT_JUDGED: &str = "a session that looks over is not judged without an own lease";
const HELD_TOO_LITTLE: &str = "an observation starts over after too short a lease";
const OTHER_SERVER: &str = "an observation starts over with another server";
const READ_TOO_LATE: &str = "an observation starts over after a late read";
const STAYS_ABSENT: &str = "a session is over because it stays absent";
const RENEWED_LATE: &str = "a session is renewed after its lease was over";
const RENEWED_AGAIN: &str = "a session is renewed again after a late answer";
const TWICE: &str = "a renewal is carried out twice";
const OLDER: &str = "a session is renewed over an older token";
const REFUSED: &str = "a renewal wins against a declaration";
const LOST: &str = "an owner loses its session";

/// The name of a scene, its accidents, and the sights that it must show.
type Scene = (&'static str, Accidents, &'static [&'static str]);

/// The scenes that run with each rate of the clocks, and with leases that differ.
const SCENES: [Scene; 4] = [
    ("calls are lost or late", Accidents { lost: 1, late: 1, ..NONE }, &[TWICE, RENEWED_AGAIN]),
    ("the owner is cut off", CUT, &[TAKEN_OVER, DROPPED, RENEWED_LATE, TWICE, REFUSED]),
    ("the owner stands still", STANDS_STILL, &[TAKEN_OVER, DROPPED, RENEWED_LATE]),
    ("an observer opens the store", OPENED, &[TAKEN_OVER, DROPPED]),
];
const SCENES_OF_THE_DATABASE: [Scene; 5] = [
    ("the database is away and started again", AWAY, &[HELD_TOO_LITTLE, OTHER_SERVER, READ_TOO_LATE, RENEWED_LATE]),
    ("the database refuses writes", REFUSING, &[HELD_TOO_LITTLE, NOT_JUDGED]),
    ("a standby takes over", REPLACED, &[OTHER_SERVER, OLDER]),
    ("the clock is set", SET, &[TAKEN_OVER, DROPPED, RENEWED_LATE]),
    ("the clock is years ahead", YEARS, &[TAKEN_OVER, DROPPED, STAYS_ABSENT, LOST]),
];

const RATES: [Rates; 3] = [Rates::Equal, Rates::OwnerSlow, Rates::ObserverSlow];

/// A lease is twelve times as long as a call may take.
fn leases(rates: Rates, accidents: Accidents, fault: Option<LeaseFault>) -> Leases {
    Leases { lease: 12, observers: 12, rates, accidents, fault }
}

fn is_played((name, accidents, goals): Scene, rates: Rates) {
    keeps_its_promises(&format!("{name}, {rates:?}"), leases(rates, accidents, None), &[goals]);
}

#[test]
fn sessions_keep_what_is_promised_of_them_whatever_processes_do_and_however_fast_their_clocks_are() {
    for rates in RATES {
        SCENES.into_iter().for_each(|scene| is_played(scene, rates));
    }
}

#[test]
fn sessions_keep_what_is_promised_of_them_whatever_the_database_does() {
    SCENES_OF_THE_DATABASE.into_iter().for_each(|scene| is_played(scene, Rates::Equal));
}

#[test]
fn processes_whose_leases_differ_judge_each_other_by_the_session_s_own() {
    for (lease, observers) in [(12, 24), (24, 12)] {
        for (name, accidents, _) in SCENES.iter().chain(&SCENES_OF_THE_DATABASE[..1]) {
            let leases = Leases { lease, observers, ..leases(Rates::Equal, *accidents, None) };
            keeps_its_promises(&format!("{name}, leases of {lease} and {observers}"), leases, &[]);
        }
    }
}

#[test]
#[ignore = "the long form: see the head of this file"]
fn sessions_keep_what_is_promised_of_them_in_every_order_of_events() {
    for rates in RATES {
        SCENES_OF_THE_DATABASE.into_iter().for_each(|scene| is_played(scene, rates));
        is_played(("a standby takes over, the owner is cut off", REPLACED_AND_CUT, &[TAKEN_OVER, DROPPED]), rates);
    }
}

#[test]
fn all_that_must_be_seen_of_sessions_now_and_then_is_looked_for() {
    for property in leases(Rates::Equal, NONE, None).properties() {
        let mut goals = SCENES.iter().chain(&SCENES_OF_THE_DATABASE).flat_map(|(_, _, goals)| *goals);
        let is_sought = property.expectation == Expectation::Always || goals.any(|goal| *goal == property.name);
        assert!(is_sought, "{}", property.name);
    }
}

const HANDLERS: &str = "no handler takes a step that others may run again";
const LEASE: &str = "no lease is believed for longer than it lasts";
const LIVING: &str = "no process that reaches its database is taken for dead";
const IN_TIME: &str = "who is dead is known for dead in time";

#[test]
fn every_seeded_fault_of_sessions_breaks_a_promise() {
    use LeaseFault as Fault;
    use Rates::{Equal, OwnerSlow};
    for (fault, rates, accidents, promise) in [
        (Fault::JudgedByTheDatabase, Equal, SET, LEASE),
        (Fault::JudgedByTheDatabase, Equal, SET, LIVING),
        (Fault::JudgedByTheDatabase, Equal, SET, HANDLERS),
        (Fault::CountedFromTheAnsweredCopy, Equal, SET, LEASE),
        (Fault::WaitsNoLonger, OwnerSlow, CUT, LEASE),
        (Fault::NotStartedOver(Occasion::HeldTooLittle), Equal, REFUSING, LIVING),
        (Fault::NotStartedOver(Occasion::OtherServer), Equal, REPLACED_AND_CUT, LEASE),
        (Fault::TrustedAfterAPeriod, Equal, REPLACED_AND_CUT, LEASE),
        (Fault::DeclaredToAnotherServer, Equal, REPLACED_AND_CUT, LEASE),
        (Fault::TrustedAtOnce, Equal, Accidents { clocks: 1, ..OPENED }, LEASE),
        (Fault::JudgesWithoutItsOwnLease, Equal, REFUSING, LIVING),
        (Fault::AbsentIsDead, Equal, YEARS, LEASE),
        (Fault::AbsentIsDead, Equal, YEARS, HANDLERS),
        (Fault::HandlersGoOn, Equal, CUT, HANDLERS),
        (Fault::HandlerPolledFirst, Equal, STANDS_STILL, HANDLERS),
    ] {
        is_seen_to_break(&format!("{fault:?}, {rates:?}"), leases(rates, accidents, Some(fault)), promise);
    }
    for (fault, lease, observers, accidents, promise) in [
        (Fault::WaitsByItsOwnLease, 24, 12, CUT, LEASE),
        (Fault::WaitsByItsOwnLease, 12, 24, CUT, IN_TIME),
        (Fault::MindsItsOwnLeaseOnly, 12, 24, AWAY, LIVING),
        (Fault::NotStartedOver(Occasion::ReadTooLate), 12, 24, AWAY, LIVING),
    ] {
        let leases = Leases { lease, observers, ..leases(Equal, accidents, Some(fault)) };
        is_seen_to_break(&format!("{fault:?}, leases of {lease} and {observers}"), leases, promise);
    }
}
