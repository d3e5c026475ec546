//! At most one effect per key, where the policy promises it.

use crate::*;

#[test]
fn a_second_effect_is_found() {
    for policy in AT_MOST_ONE {
        let history = History::new(policy);
        tell(&history, [outcome("charged")]);
        effects(&history, 2);
        assert_breaks(1, &history);
    }
}

#[test]
fn a_second_effect_after_a_crash_is_found() {
    for policy in AT_MOST_ONE {
        let history = History::new(policy);
        tell(&history, [Told::Nothing]);
        effects(&history, 1);
        history.crashed();
        tell(&history, [outcome("charged")]);
        effects(&history, 1);
        assert_breaks(1, &history);
    }
}

#[test]
fn two_effects_of_which_nobody_was_told_are_found() {
    for policy in AT_MOST_ONE {
        let history = History::new(policy);
        tell(&history, [Told::Nothing, refused("outcome-unknown")]);
        effects(&history, 2);
        assert_breaks(1, &history);
    }
}

#[test]
fn under_rerun_a_second_effect_after_a_crash_is_good() {
    let history = History::new(Policy::Rerun);
    tell(&history, [Told::Nothing]);
    effects(&history, 1);
    history.crashed();
    tell(&history, [outcome("charged"), outcome("charged")]);
    effects(&history, 1);
    assert_good(&history);
}

#[test]
fn an_effect_that_nobody_asked_for_is_found() {
    for policy in ALL {
        let history = History::new(policy);
        effects(&history, 1);
        assert_breaks(1, &history);
    }
}

#[test]
fn one_effect_without_any_answer_is_good() {
    for policy in ALL {
        let history = History::new(policy);
        drop(send(&history));
        tell(&history, [Told::Nothing]);
        history.crashed();
        effects(&history, 1);
        assert_good(&history);
    }
}
