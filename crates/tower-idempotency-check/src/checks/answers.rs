//! What several checks ask of an answer.

use crate::dialect::Rule;
use crate::finding::Severity;
use crate::http::message::Answer;
use crate::probe::{Probe, SETTLED_WITHIN, Stop};

/// Notes where a retry's answer is not the first one.
pub(super) fn compare(probe: &Probe<'_>, first: &Answer, again: &Answer) {
    if again.status != first.status {
        let what = format!("a retry gets {}, and the first request got {}", again.summary(), first.summary());
        probe.found(Severity::Wrong, Rule::Retry, what);
    } else if !again.is_same(first) {
        let what = format!("a retry gets another body: {}, and not {}", again.summary(), first.summary());
        probe.found(Severity::Wrong, Rule::Retry, what);
    } else if again.header("content-type") != first.header("content-type") {
        probe.found(Severity::Wrong, Rule::Retry, "a retry gets another Content-Type");
    }
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
