//! The checker that judges all laboratories, judged: it finds each kind of bad history, and passes the good ones.

mod figures;
mod rule_1;
mod rule_2;
mod rule_3;
mod rule_4;
mod rule_5;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use testkit::Answer;
use testkit::history::{History, Policy, Sent, Told};

const ALL: [Policy; 4] = [Policy::Refuse, Policy::Rerun, Policy::Reconcile, Policy::Atomic];
/// Those that promise at most one effect.
const AT_MOST_ONE: [Policy; 3] = [Policy::Refuse, Policy::Reconcile, Policy::Atomic];

const KEY: &str = "key";
const CHARGE: &str = "a charge of 10 euros";
const OTHER: &str = "a charge of 20 euros";

fn outcome(text: &'static str) -> Told {
    Told::outcome(text)
}

fn refused(slug: &str) -> Told {
    Told::Refused(slug.to_owned())
}

/// An outcome which says that nothing happened.
fn declined() -> Told {
    Told::Outcome { bytes: Bytes::from_static(b"declined"), success: false, recorded: true }
}

fn unrecorded(text: &'static str) -> Told {
    outcome(text).unrecorded()
}

fn send(history: &History) -> Sent {
    history.sent(KEY, CHARGE)
}

/// One request after the other, each answered before the next is sent.
fn tell(history: &History, all: impl IntoIterator<Item = Told>) {
    for told in all {
        history.answered(send(history), told);
    }
}

fn effects(history: &History, count: usize) {
    for _ in 0..count {
        history.effect(KEY);
    }
}

#[track_caller]
fn assert_good(history: &History) {
    assert_eq!(history.violations(), [""; 0], "{history:?}");
}

/// Asserts that one violation is found, of this rule and of no other.
#[track_caller]
fn assert_breaks(rule: u8, history: &History) {
    let violations = history.violations();
    assert_eq!(violations.len(), 1, "{violations:?}, {history:?}");
    assert!(violations[0].starts_with(&format!("{KEY}: rule {rule}: ")), "{violations:?}");
}
