//! What becomes of errors, and of old keys.

use std::time::Duration;

use crate::dialect::{Dialect, Rule};
use crate::finding::Severity;
use crate::http::message::Answer;
use crate::probe::{Probe, Stop};

use super::answers::{compare, is_marked, note_if_stuck};

pub(super) async fn declined(probe: &Probe<'_>) -> Result<(), Stop> {
    let body = probe.endpoint.settings.declined.as_ref().ok_or(Stop::Needs("declined"))?;
    let message = probe.keyed(&probe.new_key()).with_body(body);
    let first = probe.send("a request that is declined", &message).await?;
    if !first.is_client_error() {
        return Err(Stop::Other(format!("the `declined` request gets {}", first.summary())));
    }
    let again = probe.settled("the same again", &message).await?;
    compare(probe, &first, &again);
    Ok(())
}

pub(super) async fn server_error(probe: &Probe<'_>) -> Result<(), Stop> {
    let body = probe.endpoint.settings.server_error.as_ref().ok_or(Stop::Needs("server_error"))?;
    let before = probe.ledger().await?;
    let message = probe.keyed(&probe.new_key()).with_body(body);
    let first = probe.send("a request that fails", &message).await?;
    if !first.is_server_error() {
        return Err(Stop::Other(format!("the `server_error` request gets {}", first.summary())));
    }
    let again = probe.settled("the same again", &message).await?;
    note_if_stuck(probe, "a failed request", &again);
    let effects = probe.effects(&before, [&first, &again]).await?;
    for (severity, is_counted, what) in of_failure(probe.dialect(), &first, &again, effects, probe.can_count()) {
        if is_counted {
            probe.counted(severity, Rule::Errors, what);
        } else {
            probe.found(severity, Rule::Errors, what);
        }
    }
    Ok(())
}

/// What is wrong with the retry of a request that has failed, how bad that is, and whether a count says so.
fn of_failure(
    dialect: &Dialect,
    first: &Answer,
    again: &Answer,
    effects: usize,
    can_count: bool,
) -> Vec<(Severity, bool, String)> {
    let mut found = Vec::new();
    if effects > 1 {
        let what = format!("a request that has failed after its effect runs again: {effects} effects");
        // ACP wants it so.
        let severity = if dialect.name == "acp" { Severity::Note } else { Severity::Dangerous };
        found.push((severity, true, what));
    }
    if again.is_success() && effects != 1 && can_count {
        let what = format!("the retry of a failed request gets {}, and there are {effects} effects", again.summary());
        found.push((Severity::Dangerous, true, what));
    }
    let is_replayed = again.status == first.status && again.says_same(first);
    match dialect.replays_500 {
        Some(true) if !is_replayed => {
            let what = format!("the retry of a failed request gets {}, and not the error", again.summary());
            found.push((Severity::Note, false, what));
        }
        Some(false) if is_replayed && is_marked(again) => {
            found.push((Severity::Wrong, false, format!("a 5xx is stored and replayed: {}", again.summary())));
        }
        _ => {}
    }
    found
}

/// How bad it is that a 429 is replayed.
fn of_limited(dialect: &Dialect, again: &Answer) -> Option<Severity> {
    let severity = if dialect.name == "stripe" { Severity::Wrong } else { Severity::Note };
    is_marked(again).then_some(severity)
}

pub(super) async fn rate_limited(probe: &Probe<'_>) -> Result<(), Stop> {
    let body = probe.endpoint.settings.rate_limited.as_ref().ok_or(Stop::Needs("rate_limited"))?;
    let (key, first) = probe.first().await?;
    if is_marked(&first) || !is_marked(&probe.settled("the same again", &probe.keyed(&key)).await?) {
        return Err(Stop::Skip("the server does not mark replays alone, so that a replayed 429 can't be seen"));
    }
    let message = probe.keyed(&probe.new_key()).with_body(body);
    let first = probe.send("a request that is limited", &message).await?;
    if !first.is_limited() {
        return Err(Stop::Other(format!("the `rate_limited` request gets {}", first.summary())));
    }
    let again = probe.send("the same again", &message).await?;
    if let Some(severity) = of_limited(probe.dialect(), &again) {
        let what = "a 429 is replayed: the client, which has had no effect, is refused for as long as its key lives";
        probe.found(severity, Rule::Errors, what);
    }
    Ok(())
}

pub(super) async fn retention(probe: &Probe<'_>) -> Result<(), Stop> {
    let retention = probe.endpoint.retention.ok_or(Stop::Needs("retention"))?;
    let before = probe.ledger().await?;
    let (key, first) = probe.first().await?;
    tokio::time::sleep(retention / 2).await;
    let again = probe.settled("after half of the retention", &probe.keyed(&key)).await?;
    compare(probe, &first, &again);
    let effects = probe.effects(&before, [&first, &again]).await?;
    probe.once(effects, Rule::Retention, "a key is forgotten before its retention is over");
    tokio::time::sleep(retention / 2 + Duration::from_secs(2)).await;
    let late = probe.send("after the retention", &probe.keyed(&key)).await?;
    if probe.can_count() && probe.effects(&before, [&first, &again, &late]).await? < 2 {
        let what = format!("after its retention a key is still known: {}", late.summary());
        probe.counted(Severity::Note, Rule::Retention, what);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use Severity::{Dangerous, Note, Wrong};

    fn marked(answer: &Answer, is_marked: bool) -> Answer {
        let mut answer = answer.clone();
        if is_marked {
            answer.headers.insert("idempotent-replayed", "true".parse().unwrap());
        }
        answer
    }

    // Each answer, marked or not, counted or not, with each number of effects and each profile.
    #[test]
    fn the_retry_of_a_failure_is_judged_by_its_answer_its_mark_its_effects_and_the_profile() {
        let [first, another, success] =
            [(500, "1"), (503, "2"), (201, "3")].map(|(status, body)| Answer::of(status, body));
        let columns = Dialect::columns(["draft", "stripe", "acp", "iceberg"]);
        let severities = |again: &Answer, effects, can_count| {
            columns.map(|dialect| {
                let found = of_failure(&dialect, &first, again, effects, can_count);
                // A list that is cut makes them doubtful.
                assert!(found.iter().all(|(_, is_counted, what)| *is_counted == what.contains("effects")), "{found:?}");
                found.into_iter().map(|(severity, ..)| severity).collect::<Vec<_>>()
            })
        };
        let (none, danger, twice) = (Vec::new, || vec![Dangerous], || vec![Dangerous; 2]);
        for (again, is_marked, effects, can_count, expected) in [
            (&first, false, 0, true, [none(), none(), none(), none()]),
            (&first, false, 1, true, [none(), none(), none(), none()]),
            (&first, true, 1, true, [none(), none(), vec![Wrong], vec![Wrong]]),
            (&first, true, 1, false, [none(), none(), vec![Wrong], vec![Wrong]]),
            (&first, false, 2, true, [danger(), danger(), vec![Note], danger()]),
            (&first, true, 2, true, [danger(), danger(), vec![Note, Wrong], vec![Dangerous, Wrong]]),
            (&another, false, 1, true, [none(), vec![Note], none(), none()]),
            (&another, true, 1, true, [none(), vec![Note], none(), none()]),
            (&another, false, 2, false, [danger(), vec![Dangerous, Note], vec![Note], danger()]),
            (&success, false, 0, true, [danger(), vec![Dangerous, Note], danger(), danger()]),
            (&success, true, 0, false, [none(), vec![Note], none(), none()]),
            (&success, false, 1, true, [none(), vec![Note], none(), none()]),
            (&success, false, 2, true, [twice(), vec![Dangerous, Dangerous, Note], vec![Note, Dangerous], twice()]),
            (&success, false, 2, false, [danger(), vec![Dangerous, Note], vec![Note], danger()]),
        ] {
            let found = severities(&marked(again, is_marked), effects, can_count);
            assert_eq!(found, expected, "{} {is_marked} {effects} {can_count}", again.status);
        }
    }

    #[test]
    fn a_replayed_429_is_seen_by_its_mark_and_is_wrong_where_the_profile_says_so() {
        let limited = Answer::of(429, "");
        let columns = Dialect::columns(["draft", "stripe", "acp", "iceberg"]);
        for (is_marked, expected) in [(false, [None; 4]), (true, [Some(Note), Some(Wrong), Some(Note), Some(Note)])] {
            let again = marked(&limited, is_marked);
            assert_eq!(columns.map(|dialect| of_limited(&dialect, &again)), expected);
        }
    }
}
