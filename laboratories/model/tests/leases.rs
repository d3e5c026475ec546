//! Sessions keep what is promised of them whenever the process, the network or the database is late or away, and each
//! fault that is seeded is seen.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod explore;

use explore::{is_seen_to_break, keeps_its_promises};
use model::{Accidents, LeaseFault, Leases};
use stateright::{Expectation, Model};

const NONE: Accidents =
    Accidents { lost: 0, late: 0, cuts: 0, outages: 0, restarts: 0, failovers: 0, clocks: 0, pauses: 0 };
const LATE: Accidents = Accidents { lost: 1, late: 1, ..NONE };
const CUT: Accidents = Accidents { cuts: 1, lost: 1, ..NONE };
const AWAY: Accidents = Accidents { outages: 1, restarts: 1, ..NONE };
const REPLACED: Accidents = Accidents { failovers: 1, lost: 1, ..NONE };
const SET: Accidents = Accidents { clocks: 1, lost: 1, ..NONE };
const STANDS_STILL: Accidents = Accidents { pauses: 1, ..NONE };

const TAKEN_OVER: &str = "a session is taken over";
const DROPPED: &str = "a handler is dropped before its lease ends";
const NOT_BELIEVED: &str = "a lease that is over is not believed to be";
const RENEWED_LATE: &str = "a session is renewed after its lease was over";
const TWICE: &str = "a renewal is carried out twice";
const OLDER: &str = "a session is renewed over an older token";

/// What goes wrong, what is seen of it, and what is seen where handlers are dropped before their lease ends.
const SCENES: [(&str, Accidents, &[&str], &[&str]); 6] = [
    ("calls are lost or late", LATE, &[TWICE], &[]),
    ("the process is cut off", CUT, &[TAKEN_OVER, RENEWED_LATE, TWICE], &[DROPPED]),
    ("the database is away and started again", AWAY, &[TAKEN_OVER, NOT_BELIEVED, RENEWED_LATE], &[DROPPED]),
    ("a standby takes over", REPLACED, &[OLDER, NOT_BELIEVED, RENEWED_LATE], &[]),
    ("the clock is set", SET, &[NOT_BELIEVED, RENEWED_LATE], &[]),
    ("the process stands still", STANDS_STILL, &[TAKEN_OVER, RENEWED_LATE], &[DROPPED]),
];

/// A lease is fifteen times as long as a call may take.
fn leases(accidents: Accidents, drops: bool, fault: Option<LeaseFault>) -> Leases {
    Leases { lease: 15, drops, accidents, fault }
}

#[test]
fn sessions_keep_what_is_promised_of_them() {
    for (name, accidents, goals, goals_of_dropping) in SCENES {
        for drops in [false, true] {
            let name = format!("{name}, handlers {}", if drops { "are dropped" } else { "go on" });
            let of_dropping = if drops { goals_of_dropping } else { &[] };
            keeps_its_promises(&name, leases(accidents, drops, None), &[goals, of_dropping]);
        }
    }
}

#[test]
fn all_that_must_be_seen_of_sessions_now_and_then_is_looked_for() {
    for property in leases(NONE, false, None).properties() {
        let mut goals = SCENES.iter().flat_map(|(_, _, goals, of_dropping)| goals.iter().chain(*of_dropping));
        assert!(property.expectation == Expectation::Always || goals.any(|goal| *goal == property.name));
    }
}

const HANDLERS: &str = "no handler still runs that others may run again";
const LEASE: &str = "no lease is believed for longer than it lasts";

#[test]
fn every_seeded_fault_of_sessions_breaks_a_promise() {
    for (fault, accidents, promise) in [
        (LeaseFault::CountedFromTheResend, LATE, LEASE),
        (LeaseFault::ResendWithoutWrite, LATE, LEASE),
        (LeaseFault::HandlersGoOn, CUT, HANDLERS),
        (LeaseFault::TrustedAtOnce, SET, HANDLERS),
        (LeaseFault::TrustedAfterAPeriod, SET, HANDLERS),
        (LeaseFault::TrustedAfterAPeriod, REPLACED, HANDLERS),
    ] {
        is_seen_to_break(&format!("{fault:?}"), leases(accidents, true, Some(fault)), promise);
    }
}
