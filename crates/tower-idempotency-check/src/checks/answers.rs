//! What several checks ask of an answer.

use crate::dialect::{Dialect, Rule};
use crate::finding::Severity;
use crate::http::message::{Answer, shown};
use crate::http::volatile::{Difference, differences};
use crate::probe::{Probe, SETTLE_TIMEOUT, Stop};

/// Notes where a retry's answer is not the first one.
pub(super) fn compare(probe: &Probe<'_>, first: &Answer, again: &Answer) {
    if again.status != first.status {
        let what = format!("a retry gets {}, and the first request got {}", again.summary(), first.summary());
        probe.differs(Severity::Wrong, Rule::Retry, "status", what);
    } else if !again.is_same(first) {
        let how = if again.says_same(first) { "the same JSON, written in another way" } else { "another body" };
        let what = format!("a retry gets {how}: {}, and not {}", again.summary(), first.summary());
        let severity = if probe.dialect().may_show_newer { Severity::Note } else { Severity::Wrong };
        probe.differs(severity, Rule::Retry, "body", what);
    }
    let anew = probe.shared(|shared| shared.anew.clone());
    for difference in headers(first, again).into_iter().filter(|difference| !anew.contains(&difference.name)) {
        let (severity, what) = of_header(probe.dialect(), &difference);
        probe.differs(severity, Rule::Retry, &difference.name, what);
    }
}

/// The headers in which a retry's answer differs from the first one.
pub(super) fn headers(first: &Answer, again: &Answer) -> Vec<Difference> {
    differences(&first.headers, &again.headers, first.body == again.body)
}

/// What is wrong with a header of a replay, and how bad that is.
fn of_header(dialect: &Dialect, difference: &Difference) -> (Severity, String) {
    let lines = |lines: &[String]| match lines {
        [] => "none".to_owned(),
        lines => lines.iter().map(|line| format!("{:?}", shown(line))).collect::<Vec<_>>().join(" and "),
    };
    let is_free = !dialect.replays_headers || difference.is_joined() || difference.is_addition();
    let severity = if is_free { Severity::Note } else { Severity::Wrong };
    let how = if difference.again.is_empty() { "lacks" } else { "differs in" };
    let Difference { name, first, again } = difference;
    (severity, format!("a retry's answer {how} the header {name}: first {}, and then {}", lines(first), lines(again)))
}

/// The headers that say of an answer that it is a replay. The last one may also say of the first answer what it is.
const MARKS: [&str; 4] = ["idempotent-replayed", "idempotency-replayed", "x-idempotent-replayed", "idempotency-status"];

/// Whether an answer says of itself that it is a replay.
pub(super) fn is_marked(answer: &Answer) -> bool {
    has_mark(answer, &MARKS)
}

/// Notes that the first answer says that it is a replay.
pub(super) fn note_if_marked(probe: &Probe<'_>, first: &Answer) {
    if has_mark(first, &MARKS[..3]) {
        let what = "the first answer says that it is a replay, so its client believes that the operation ran before";
        probe.found(Severity::Wrong, Rule::Marker, what);
    }
}

fn has_mark(answer: &Answer, marks: &[&str]) -> bool {
    let is_no = |value: &str| ["false", "?0", "0", "no", "miss"].iter().any(|no| value.eq_ignore_ascii_case(no));
    let is_in_body = || answer.json().is_some_and(|body| body["replayed"] == true);
    marks.iter().any(|mark| answer.header(mark).is_some_and(|value| !is_no(value))) || is_in_body()
}

/// Notes that a key is still "in flight" after all that waiting.
pub(super) fn note_if_stuck(probe: &Probe<'_>, after: &str, again: &Answer) {
    if again.says_wait() {
        let within = SETTLE_TIMEOUT.as_secs();
        let what = format!("{within} s after {after}, its retry still gets {}: does it ever end?", again.summary());
        probe.found(Severity::Note, Rule::InFlight, what);
    }
}

/// Sends the first request again, after something else has happened: its answer is still there.
pub(super) async fn still_there(probe: &Probe<'_>, label: &str, key: &str, first: &Answer) -> Result<(), Stop> {
    let before = probe.ledger().await?;
    let again = probe.settled("the first request again", &probe.keyed(key)).await?;
    compare(probe, first, &again);
    if probe.effects(&before, []).await? > 0 {
        probe.counted(Severity::Dangerous, Rule::Retry, format!("after {label}, the first request runs again"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use Severity::{Note, Wrong};

    // Each mark with each value.
    #[test]
    fn an_answer_is_marked_unless_the_mark_says_no() {
        for mark in MARKS {
            for (value, is_yes) in [("true", true), ("?1", true), ("false", false), ("?0", false), ("MISS", false)] {
                let mut answer = Answer::of(200, "");
                answer.headers.insert(mark, value.parse().unwrap());
                assert_eq!(is_marked(&answer), is_yes, "{mark}: {value}");
            }
        }
        assert!(is_marked(&Answer::of(200, r#"{"replayed":true}"#)));
        assert!(!is_marked(&Answer::of(200, r#"{"replayed":false}"#)));
    }

    // Each kind of difference with each profile.
    #[test]
    fn a_header_that_a_replay_changes_is_wrong_unless_the_profile_or_http_permits_it() {
        let columns = Dialect::columns(["draft", "stripe", "acp", "iceberg"]);
        for (name, first, again, expected) in [
            ("location", &["/1"][..], &[][..], [Wrong, Note, Wrong, Note]),
            ("location", &["/1"], &["/2"], [Wrong, Note, Wrong, Note]),
            ("location", &[], &["/1"], [Wrong, Note, Wrong, Note]),
            ("x-order", &["1"], &[], [Wrong, Note, Wrong, Note]),
            ("x-order", &["1"], &["2"], [Wrong, Note, Wrong, Note]),
            ("x-order", &[], &["1"], [Note; 4]),
            ("vary", &["a", "b"], &["a, b"], [Note; 4]),
            ("vary", &["a", "b"], &["b, a"], [Wrong, Note, Wrong, Note]),
            ("last-modified", &["Mon, 21"], &["Mon", "21"], [Wrong, Note, Wrong, Note]),
        ] {
            let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
            let difference = Difference { name: name.to_owned(), first: lines(first), again: lines(again) };
            let found = columns.map(|dialect| of_header(&dialect, &difference).0);
            assert_eq!(found, expected, "{difference:?}");
        }
    }
}
