//! What else can be asked: unsettled keys, figures, what an answer counts as.

use crate::*;

#[test]
fn a_key_is_unsettled_while_its_last_answer_is_no_outcome() {
    let history = History::new(Policy::Rerun);
    tell(&history, [Told::Nothing]);
    assert_eq!(history.unsettled(), [KEY]);
    tell(&history, [outcome("charged"), Told::Nothing]);
    assert!(history.unsettled().is_empty(), "nothing is no answer");
    tell(&history, [refused("in-flight")]);
    assert_eq!(history.unsettled(), [KEY]);
}

#[test]
fn a_forgotten_key_leaves_its_violations_and_its_place_in_the_figures() {
    let history = History::new(Policy::Refuse);
    tell(&history, [outcome("charged")]);
    history.forget(KEY);
    assert_breaks(2, &history);
    assert_eq!((history.keys(), history.acknowledged()), (1, 1));
    history.effect(KEY);
    assert_eq!(history.violations().len(), 2, "no request asked for an effect that comes later");
}

#[test]
fn keys_are_judged_one_by_one_whatever_clone_was_told() {
    let history = History::new(Policy::Refuse);
    for number in 0..3 {
        let (key, clone) = (format!("key {number}"), history.clone());
        clone.answered(clone.sent(&key, CHARGE), outcome("charged"));
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
    assert_eq!(Told::of(&problem), refused("outcome-unknown"));
    let charged = answer(StatusCode::OK, "text/plain", "charged");
    assert_eq!(Told::of(&charged), outcome("200 charged"));
    let declined = answer(StatusCode::PAYMENT_REQUIRED, "text/plain", "declined");
    let bytes = Bytes::from_static(b"402 declined");
    assert_eq!(Told::of(&declined), Told::Outcome { bytes, success: false, recorded: true });
}
