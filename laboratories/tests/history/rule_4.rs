//! No outcome before its record was durable.

use crate::*;

#[test]
fn an_outcome_that_is_forgotten_in_a_crash_is_found() {
    for policy in ALL {
        for slug in ["outcome-unknown", "not-replayable", "key-reused", "credentials-changed"] {
            let history = History::new(policy);
            tell(&history, [outcome("charged")]);
            history.crashed();
            tell(&history, [refused(slug)]);
            effects(&history, 1);
            assert_breaks(4, &history);
        }
    }
}

#[test]
fn an_outcome_that_is_forgotten_without_any_crash_is_found() {
    for policy in ALL {
        for told in [outcome("charged"), unrecorded("charged")] {
            let history = History::new(policy);
            tell(&history, [told, refused("outcome-unknown")]);
            effects(&history, 1);
            assert_breaks(4, &history);
        }
    }
}

#[test]
fn come_again_or_nothing_is_a_good_answer_to_a_retry() {
    for policy in ALL {
        let history = History::new(policy);
        tell(&history, [outcome("charged")]);
        for slug in ["in-flight", "store-unavailable", "store-full", "overloaded", "shutting-down"] {
            tell(&history, [refused(slug), Told::Nothing]);
            history.crashed();
        }
        tell(&history, [outcome("charged")]);
        effects(&history, 1);
        assert_good(&history);
    }
}

#[test]
fn an_unrecorded_outcome_may_be_forgotten_in_a_crash() {
    for policy in ALL {
        let history = History::new(policy);
        tell(&history, [unrecorded("charged"), unrecorded("charged")]);
        history.crashed();
        tell(&history, [refused("outcome-unknown")]);
        effects(&history, 1);
        assert_good(&history);
    }
}

/// The answer reached the client before the crash; who writes it down may be later.
#[test]
fn an_unrecorded_outcome_belongs_to_the_life_in_which_it_was_asked_for() {
    let history = History::new(Policy::Refuse);
    let sent = send(&history);
    history.crashed();
    history.answered(sent, unrecorded("charged"));
    tell(&history, [refused("outcome-unknown")]);
    effects(&history, 1);
    assert_good(&history);
}

#[test]
fn a_request_that_was_sent_before_the_outcome_was_given_may_be_refused() {
    for policy in ALL {
        let history = History::new(policy);
        let (first, second) = (send(&history), send(&history));
        history.answered(first, outcome("charged"));
        history.answered(second, refused("outcome-unknown"));
        effects(&history, 1);
        assert_good(&history);
    }
}

#[test]
fn an_outcome_after_refusals_is_good() {
    for policy in ALL {
        let history = History::new(policy);
        tell(&history, [refused("outcome-unknown"), refused("in-flight"), outcome("charged")]);
        effects(&history, 1);
        assert_good(&history);
    }
}
