//! The page of meanings says what becomes of a call after each answer.

use std::sync::Arc;

use testkit::meanings::{Row, rejections, statuses};
use tower_idempotency_outbox::State;

use crate::ends::{Case, after};
use crate::home::{Home, over_both};
use crate::server::answer;

over_both!(each_status_and_each_refusal_leads_where_the_page_says);

const REPLAY: (&str, &str) = ("idempotent-replayed", "true");

/// The state, whether the operation may have taken place, and whether there is another try.
type End = (State, bool, bool);
const DELIVERED: End = (State::Delivered, true, false);
const REFUSED: End = (State::Refused, false, false);
const GIVEN_UP: End = (State::GivenUp, true, false);

/// A call that is given up after another try.
fn again(may_have_taken_place: bool) -> End {
    (State::GivenUp, may_have_taken_place, true)
}

fn case(status: u16, line: Option<(&'static str, &'static str)>, is_lost: bool) -> Case {
    (Arc::new(move || answer(status, line.as_slice(), "")), is_lost)
}

/// Where an answer leads that says nothing but its status, and whether it is a replay.
fn of_status(status: u16, row: &Row, is_replay: bool, is_lost: bool) -> End {
    match (row.get("outbox"), is_replay, is_lost) {
        ("delivered", ..) => DELIVERED,
        // It is the answer of the operation, whatever was lost before.
        (_, true, _) => {
            if (400..500).contains(&status) && status != 408 {
                REFUSED
            } else {
                GIVEN_UP
            }
        }
        ("refused", _, false) => REFUSED,
        ("given up", ..) => GIVEN_UP,
        ("another try", _, false) => again(row.get("a client knows") != "refused"),
        // It says nothing of the try that was lost. No redirect is followed.
        _ if status < 400 => GIVEN_UP,
        _ => again(true),
    }
}

/// Where an answer leads that says this of the operation.
fn of_effect(status: u16, says: &str, is_lost: bool) -> End {
    let (token, parameters) = says.split_once(';').unwrap_or((says, ""));
    let may_have_taken_place = token != "none" || is_lost;
    let is_again = match parameters {
        // The credentials may be replaced.
        _ if status == 401 => true,
        "retry" => true,
        "retry=?0" => false,
        // The status says so. A conflict that says that nothing was done is a refusal.
        _ => status >= 500 || may_have_taken_place,
    };
    match token {
        "done" if says.contains("=200") => DELIVERED,
        "done" if says.contains("=402") => REFUSED,
        "done" => GIVEN_UP,
        _ if is_again => again(may_have_taken_place),
        _ if may_have_taken_place => GIVEN_UP,
        _ => REFUSED,
    }
}

async fn each_status_and_each_refusal_leads_where_the_page_says(home: impl Home) {
    let (mut cases, mut expected) = (Vec::new(), Vec::new());
    for is_lost in [false, true] {
        for (status, row) in statuses() {
            for is_replay in [false, true] {
                cases.push(case(status, is_replay.then_some(REPLAY), is_lost));
                let name = format!("{status}, a replay: {is_replay}, after one that was lost: {is_lost}");
                expected.push((name, of_status(status, &row, is_replay, is_lost)));
            }
        }
        let of_the_layer = rejections().into_iter().map(|row| (row.statuses()[0], row.get("says")));
        let tokens = ["none", "pending", "unknown", "none;retry", "unknown;retry", "none;retry=?0", "unknown;retry=?0"];
        let ends = ["done", "done;status=200", "done;status=402", "done;status=500"];
        let of_others = tokens.into_iter().chain(ends).flat_map(|says| [401, 409, 503].map(|status| (status, says)));
        for (status, says) in of_the_layer.chain(of_others) {
            cases.push(case(status, Some(("idempotency-effect", says)), is_lost));
            let end = of_effect(status, says, is_lost);
            expected.push((format!("{status} {says}, after one that was lost: {is_lost}"), end));
        }
    }
    let found = after(&home, cases).await;
    for ((name, expected), found) in expected.into_iter().zip(found) {
        assert_eq!(found, expected, "{name}");
    }
}
