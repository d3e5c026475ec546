//! The checker's other results: unsettled keys, figures, and the kinds of answers.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use testkit::Answer;
use testkit::history::{ClientAnswer, History, Policy};

use crate::{CHARGE, KEY, breaks, play, played};

#[test]
fn a_key_is_unsettled_while_its_last_answer_is_no_outcome() {
    let history = played(Policy::Rerun, "nothing");
    assert_eq!(history.unsettled(), [KEY]);
    play(&history, "charged nothing other=key-reused");
    assert!(history.unsettled().is_empty(), "nothing is no answer, and another request is not the owner");
    play(&history, "in-flight");
    assert_eq!(history.unsettled(), [KEY]);
}

#[test]
fn a_forgotten_key_leaves_its_violations_and_its_place_in_the_figures() {
    let history = played(Policy::Refuse, "charged");
    history.forget(KEY);
    assert!(breaks(2, &history.violations()), "{history:?}");
    assert_eq!((history.keys(), history.acknowledged()), (1, 1));
    history.effect(KEY);
    assert_eq!(history.violations().len(), 2, "no request asked for an effect that comes later");
}

#[test]
fn keys_are_judged_one_by_one_whatever_clone_was_told() {
    let history = History::new(Policy::Refuse);
    for number in 0..3 {
        let (key, clone) = (format!("key {number}"), history.clone());
        clone.answered(clone.sent(&key, CHARGE), ClientAnswer::outcome("charged"));
        (0..number).for_each(|_| clone.effect(&key));
    }
    assert_eq!((history.keys(), history.acknowledged()), (3, 3));
    let violations = history.violations();
    let begins = |line: usize, begin: &str| violations[line].starts_with(begin);
    assert!(violations.len() == 2 && begins(0, "key 0: rule 2") && begins(1, "key 2: rule 1"), "{violations:?}");
}

fn answer(status: StatusCode, media_type: &'static str, body: &'static str) -> Answer {
    let headers = HeaderMap::from_iter([(http::header::CONTENT_TYPE, HeaderValue::from_static(media_type))]);
    Answer { status, headers, body: Bytes::from_static(body.as_bytes()), trailers: None }
}

#[test]
fn a_problem_is_a_refusal_and_any_other_answer_an_outcome() {
    let problem = answer(
        StatusCode::CONFLICT,
        "application/problem+json",
        r#"{"type":"https://docs.example/problem#outcome-unknown"}"#,
    );
    assert_eq!(ClientAnswer::of(&problem), ClientAnswer::refused("outcome-unknown"));
    let charged = answer(StatusCode::OK, "text/plain", "charged");
    assert_eq!(ClientAnswer::of(&charged), ClientAnswer::outcome("200 charged"));
    let declined = answer(StatusCode::PAYMENT_REQUIRED, "text/plain", "declined");
    let bytes = Bytes::from_static(b"402 declined");
    assert_eq!(ClientAnswer::of(&declined), ClientAnswer::Outcome { bytes, success: false, recorded: true });
}
