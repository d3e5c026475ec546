use super::*;

/// An error with a text and a cause.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Caused(&'static str, #[source] Option<Box<Self>>);

#[test]
fn each_cause_is_named_once() {
    for (texts, line) in [
        (&["away"][..], "away"),
        (&["away", "no route", "cable"], "away: no route: cable"),
        (&["away: no route", "no route", "cable"], "away: no route: cable"),
    ] {
        let error = texts.iter().rev().fold(None, |cause, text| Some(Box::new(Caused(text, cause))));
        assert_eq!(with_causes(&*error.unwrap()), line);
    }
}
