//! One effect for each success that a client got.

use crate::*;

#[test]
fn a_success_without_its_effect_is_found() {
    for policy in ALL {
        let history = History::new(policy);
        tell(&history, [outcome("charged"), outcome("charged")]);
        assert_breaks(2, &history);
    }
}

#[test]
fn an_unrecorded_success_without_its_effect_is_found_too() {
    for policy in ALL {
        let history = History::new(policy);
        tell(&history, [unrecorded("charged")]);
        history.crashed();
        assert_breaks(2, &history);
    }
}

#[test]
fn an_outcome_which_says_that_nothing_happened_needs_no_effect() {
    for policy in ALL {
        let history = History::new(policy);
        tell(&history, [declined(), declined()]);
        assert_good(&history);
    }
}

#[test]
fn an_effect_counts_whenever_it_is_told() {
    for policy in ALL {
        let history = History::new(policy);
        effects(&history, 1);
        tell(&history, [outcome("charged")]);
        assert_good(&history);
    }
}
