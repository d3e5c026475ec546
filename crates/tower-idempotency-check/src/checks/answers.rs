//! What several checks ask of an answer.

use crate::dialect::{Dialect, Rule};
use crate::finding::Severity;
use crate::http::message::{Answer, shown};
use crate::http::volatile::{Difference, differences};
use crate::probe::{Probe, SETTLED_WITHIN, Stop};

/// Notes where a retry's answer is not the first one.
pub(super) fn compare(probe: &Probe<'_>, first: &Answer, again: &Answer) {
    if again.status != first.status {
        let what = format!("a retry gets {}, and the first request got {}", again.summary(), first.summary());
        probe.found(Severity::Wrong, Rule::Retry, what);
    } else if !again.is_same(first) {
        let what = format!("a retry gets another body: {}, and not {}", again.summary(), first.summary());
        probe.found(Severity::Wrong, Rule::Retry, what);
    }
    for difference in headers(first, again).into_iter().filter(|difference| !probe.is_anew(&difference.name)) {
        let (severity, what) = of_header(probe.dialect(), &difference);
        probe.found(severity, Rule::Retry, what);
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

/// Whether an answer says of itself that it is a replay.
pub(super) fn is_marked(answer: &Answer) -> bool {
    const MARKS: [&str; 4] =
        ["idempotent-replayed", "idempotency-replayed", "x-idempotent-replayed", "idempotency-status"];
    let is_in_body = || answer.json().is_some_and(|body| body["replayed"] == true);
    MARKS.iter().any(|mark| answer.headers.contains_key(*mark)) || is_in_body()
}

/// Notes that a key is still "in flight" after all that waiting.
pub(super) fn note_if_stuck(probe: &Probe<'_>, after: &str, again: &Answer) {
    if again.says_wait() {
        let within = SETTLED_WITHIN.as_secs();
        let what = format!("{within} s after {after}, its retry still gets {}: does it ever end?", again.summary());
        probe.found(Severity::Note, Rule::InFlight, what);
    }
}

/// Sends the first request again, after something else has happened: its answer is still there.
pub(super) async fn still_there(probe: &Probe<'_>, label: &str, key: &str, first: &Answer) -> Result<(), Stop> {
    let before = probe.before().await?;
    let again = probe.settled("the first request again", &probe.keyed(key)).await?;
    compare(probe, first, &again);
    if probe.can_count() && probe.effects(&before, []).await? > 0 {
        probe.counted(Severity::Dangerous, Rule::Retry, format!("after {label}, the first request runs again"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use Severity::{Note, Wrong};

    // Each kind of difference with each profile.
    #[test]
    fn a_header_that_a_replay_changes_is_wrong_unless_the_profile_or_http_permits_it() {
        for (name, first, again, expected) in [
            ("location", &["/1"][..], &[][..], [Wrong, Note, Wrong]),
            ("location", &["/1"], &["/2"], [Wrong, Note, Wrong]),
            ("location", &[], &["/1"], [Wrong, Note, Wrong]),
            ("x-order", &["1"], &[], [Wrong, Note, Wrong]),
            ("x-order", &["1"], &["2"], [Wrong, Note, Wrong]),
            ("x-order", &[], &["1"], [Note; 3]),
            ("vary", &["a", "b"], &["a, b"], [Note; 3]),
            ("vary", &["a", "b"], &["b, a"], [Wrong, Note, Wrong]),
            ("last-modified", &["Mon, 21"], &["Mon", "21"], [Wrong, Note, Wrong]),
        ] {
            let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
            let difference = Difference { name: name.to_owned(), first: lines(first), again: lines(again) };
            let found = Dialect::ALL.map(|dialect| of_header(&dialect, &difference).0);
            assert_eq!(found, expected, "{difference:?}");
        }
    }
}
