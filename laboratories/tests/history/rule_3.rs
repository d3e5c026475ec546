//! All outcomes given for a key are identical.

use crate::*;

#[test]
fn another_outcome_is_found() {
    for policy in ALL {
        for other in [outcome("charged again"), declined(), unrecorded("charged again")] {
            let history = History::new(policy);
            tell(&history, [outcome("charged"), other]);
            effects(&history, 1);
            assert_breaks(3, &history);
        }
    }
}

#[test]
fn another_outcome_after_a_crash_is_found() {
    for policy in ALL {
        let history = History::new(policy);
        tell(&history, [outcome("charged")]);
        history.crashed();
        tell(&history, [outcome("charged again")]);
        effects(&history, 1);
        assert_breaks(3, &history);
    }
}

#[test]
fn two_outcomes_for_requests_that_were_sent_at_once_are_found() {
    for policy in ALL {
        let history = History::new(policy);
        let (first, second) = (send(&history), send(&history));
        history.answered(second, outcome("charged"));
        history.answered(first, outcome("charged again"));
        effects(&history, 1);
        assert_breaks(3, &history);
    }
}

#[test]
fn another_outcome_than_the_unrecorded_one_is_found_before_a_crash() {
    for policy in ALL {
        let history = History::new(policy);
        tell(&history, [unrecorded("charged"), outcome("charged again")]);
        effects(&history, 1);
        assert_breaks(3, &history);
    }
}

#[test]
fn under_rerun_another_outcome_than_the_unrecorded_one_is_good_after_a_crash() {
    let history = History::new(Policy::Rerun);
    tell(&history, [unrecorded("charged")]);
    history.crashed();
    tell(&history, [outcome("charged again"), outcome("charged again")]);
    effects(&history, 2);
    assert_good(&history);
}

#[test]
fn an_outcome_that_was_recorded_after_all_binds_for_ever() {
    let history = History::new(Policy::Rerun);
    tell(&history, [unrecorded("charged"), outcome("charged")]);
    history.crashed();
    tell(&history, [outcome("charged again")]);
    effects(&history, 2);
    assert_breaks(3, &history);
}

#[test]
fn duplicates_that_are_told_the_same_are_good() {
    for policy in ALL {
        let history = History::new(policy);
        let (first, second, third) = (send(&history), send(&history), send(&history));
        history.answered(third, refused("in-flight"));
        history.answered(second, outcome("charged"));
        history.answered(first, outcome("charged"));
        tell(&history, [outcome("charged")]);
        effects(&history, 1);
        assert_good(&history);
    }
}
