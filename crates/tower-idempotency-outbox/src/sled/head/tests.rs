use super::*;
use crate::Call;

const HOUR: u64 = 60 * 60 * 1_000;
/// Both clocks have begun long ago, at another time.
const NOW: Now = Now { wall: 1_000 * HOUR, kept: 500 * HOUR, opening: 7 };

fn head() -> Head {
    Head::new("key", None, String::new(), 0, NOW)
}

#[test]
fn a_call_is_due_by_either_clock_and_a_lease_is_over_by_the_own_one_and_if_its_time_is_too_far_ahead() {
    for (wall, kept, is_due, is_over) in [
        (0, 0, true, true),
        (1, 0, true, true),
        (0, 1, true, false),
        (1, 1, false, false),
        (48, 48, false, false),
        (49, 48, true, false),
        (48, 49, false, true),
    ] {
        let mut head = Head { due: NOW.wall + wall * HOUR, due_kept: NOW.kept + kept * HOUR, ..head() };
        for state in ["waiting", "sending", "delivered", "refused", "given_up", "damaged"] {
            head.state = serde_json::from_value(state.into()).unwrap();
            let expected = state == "waiting" && is_due || state == "sending" && is_over;
            assert_eq!(head.is_due(NOW), expected, "{state}, due in {wall} h and in {kept} h");
        }
    }
}

#[test]
fn how_long_ago_the_first_try_was_lies_between_the_two_clocks() {
    let hours = |hours: u64| Duration::from_millis(hours * HOUR);
    // How long ago by either clock, a negative time for one that is ahead.
    for (wall, kept, same_opening, other_opening) in [
        (3, 3, (3, Some(3)), (3, Some(3))),
        (9, 3, (3, Some(3)), (3, Some(9))),
        (3, 9, (9, Some(9)), (9, Some(9))),
        (-3, 3, (3, Some(3)), (3, None)),
        (3, -3, (0, Some(0)), (0, Some(3))),
    ] {
        for (opening, (at_least, at_most)) in [(NOW.opening, same_opening), (NOW.opening + 1, other_opening)] {
            let ago = |now: u64, ago: i64| Some(now.saturating_add_signed(-ago * HOUR as i64));
            let (first_try, first_kept) = (ago(NOW.wall, wall), ago(NOW.kept, kept));
            let head = Head { first_try, first_kept, first_opening: Some(opening), ..head() };
            let Age { at_least: least, at_most: most } = head.tried_for(NOW);
            let expected = (hours(at_least), at_most.map_or(Duration::MAX, hours));
            assert_eq!((least, most), expected, "{wall} h and {kept} h ago, opening {opening}");
        }
    }
    assert_eq!(head().tried_for(NOW).at_most, Duration::ZERO);
}

#[test]
fn what_can_t_be_read_is_damaged_says_why_and_may_have_taken_place() {
    for bytes in [&b"{}"[..], b"", b"\xff", br#"{"state":"paid"}"#] {
        let Head { state, reason, may_have_taken_place, call, answer, partition_key, ended, .. } = Head::of(bytes);
        assert_eq!((state, may_have_taken_place), (State::Damaged, true), "{bytes:?}");
        assert!(reason.is_some_and(|why| why.starts_with("it is no entry: ")), "{bytes:?}");
        // Nothing of it is known.
        assert_eq!((call, answer, partition_key, ended), (0, None, None, None), "{bytes:?}");
    }
}

// Each way to change a head with and without an answer. Seeded faults: an update without an answer takes the last one
// away; one that is no try keeps its try; one that restarts keeps its first try.
#[test]
fn an_update_keeps_what_it_does_not_change() {
    for answer in [None, Some(2)] {
        for (restarts, is_no_try, tries, first_try) in
            [(false, false, 3, Some(5)), (false, true, 2, Some(5)), (true, false, 0, None), (true, true, 0, None)]
        {
            let mut head = Head { tries: 3, first_try: Some(5), answer: Some(1), ..head() };
            let mut update = Update::to(State::Waiting, "why");
            (update.restarts, update.is_no_try) = (restarts, is_no_try);
            head.update(&update, answer, NOW);
            assert_eq!((head.tries, head.first_try, head.answer), (tries, first_try, answer.or(Some(1))));
        }
    }
}

#[test]
fn what_can_t_be_read_says_where_and_does_not_quote_it() {
    let head = Head::of(br#"{"key": "k", "partition_key": null, "destination": "d", "state": "canary"}"#);
    assert!(head.state == State::Damaged && head.key.is_empty());
    let call =
        Call::from_json(r#"{"key": "k", "method": "POST", "uri": "http://a/", "headers": "canary", "body": ""}"#);
    for reason in [head.reason.unwrap(), call.unwrap_err(), Call::from_json("canary").unwrap_err()] {
        assert!(reason.contains("line 1, column") && !reason.contains("canary"), "{reason}");
    }
}
