//! Another request with the same key never gets an outcome.

use crate::*;

#[test]
fn an_outcome_for_another_request_is_found() {
    for policy in ALL {
        let history = History::new(policy);
        tell(&history, [outcome("charged")]);
        history.answered(history.sent(KEY, OTHER), outcome("charged"));
        effects(&history, 1);
        assert_breaks(5, &history);
    }
}

#[test]
fn it_is_found_too_before_the_owner_is_answered() {
    for policy in ALL {
        let history = History::new(policy);
        let sent = send(&history);
        history.answered(history.sent(KEY, OTHER), declined());
        history.answered(sent, Told::Nothing);
        assert_breaks(5, &history);
    }
}

#[test]
fn a_refusal_of_another_request_is_good_whatever_the_owner_was_told() {
    for policy in ALL {
        let history = History::new(policy);
        tell(&history, [outcome("charged")]);
        history.answered(history.sent(KEY, OTHER), refused("key-reused"));
        tell(&history, [outcome("charged")]);
        effects(&history, 1);
        assert_good(&history);
        assert!(history.unsettled().is_empty(), "the owner's last answer is what counts");
    }
}
