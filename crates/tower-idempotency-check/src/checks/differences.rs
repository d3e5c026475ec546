//! A key that is used for another request, or by another account.

use std::collections::BTreeSet;
use std::time::Instant;

use http::Method;

use crate::dialect::{Dialect, Rule};
use crate::finding::Severity;
use crate::http::message::{Answer, Message};
use crate::probe::{Probe, Stop};

use super::answers::{compare, still_there};

/// Why a plan has no other body.
pub(super) const NO_OTHER_BODY: Stop =
    Stop::Skip("the body has no number to change: it needs `--other-data`, or `other_data` in a plan");

/// Sends another request with a key that was used, and notes what is wrong with its answer and with what follows.
async fn refused(probe: &Probe<'_>, label: &str, change: impl FnOnce(Message) -> Message) -> Result<(), Stop> {
    let before = probe.ledger().await?;
    let (key, first) = probe.first().await?;
    let other = probe.send(label, &change(probe.keyed(&key))).await?;
    expect_reused(probe, label, &first, &other);
    let effects = probe.effects(&before, [&first, &other]).await?;
    probe.once(effects, Rule::Reused, format!("{label} with the key of the first request has an effect"));
    still_there(probe, label, &key, &first).await
}

/// Notes what is wrong with the refusal of a key that belongs to another request.
fn expect_reused(probe: &Probe<'_>, label: &str, first: &Answer, other: &Answer) {
    if let Some((severity, what)) = of_reused(probe.dialect(), label, first, other) {
        probe.found(severity, Rule::Reused, what);
    }
}

/// What is wrong with the answer to another request with a key that was used, and how bad that is.
fn of_reused(dialect: &Dialect, label: &str, first: &Answer, other: &Answer) -> Option<(Severity, String)> {
    if other.is_success() {
        let what = match other.says_same(first) {
            true => format!("{label} gets the answer of the first request, and its client believes that it was done"),
            false => format!("{label} with the key of the first request runs: {}", other.summary()),
        };
        return Some((Severity::Dangerous, what));
    }
    let wanted = dialect.reused;
    if other.status.as_u16() != wanted {
        // The draft only recommends the status; one that says "wait" leads astray.
        let is_free = dialect.reused_code.is_none() && other.is_client_error() && !other.says_wait();
        let severity = if is_free { Severity::Note } else { Severity::Wrong };
        return Some((severity, format!("{label} gets {}, and not {wanted}", other.summary())));
    }
    let code = dialect.reused_code.filter(|code| !String::from_utf8_lossy(&other.body).contains(code))?;
    Some((Severity::Wrong, format!("{label} is refused without {code}: {}", other.summary())))
}

pub(super) async fn other_body(probe: &Probe<'_>) -> Result<(), Stop> {
    let other = probe.endpoint.other_body.as_ref().ok_or(NO_OTHER_BODY)?;
    refused(probe, "another body", |message| message.with_body(other)).await
}

/// Sends JSON with this key that differs in one detail each. Which refusal each gets is for `other_body` to judge: a
/// server may also find that the detail is not valid.
pub(super) async fn other_detail(probe: &Probe<'_>) -> Result<(), Stop> {
    let details = crate::details::details(&probe.endpoint.request.body);
    if details.is_empty() {
        return Err(Stop::Skip("the body is no JSON object or list with a value in it"));
    }
    let (before, began) = (probe.ledger().await?, Instant::now());
    let (key, first) = probe.first().await?;
    for (label, body) in details {
        probe.is_kept(began)?;
        let other = probe.settled(&label, &probe.keyed(&key).with_body(body)).await?;
        if other.is_success() {
            expect_reused(probe, &label, &first, &other);
            return Ok(());
        }
    }
    let effects = probe.effects(&before, [&first]).await?;
    probe.once(effects, Rule::Reused, "a body that differs in a detail is refused, and has an effect");
    still_there(probe, "bodies that differ in a detail", &key, &first).await?;
    let mut seen = BTreeSet::new();
    for (body, others) in crate::details::groups(&probe.endpoint.request.body) {
        let Some((label, _)) = others.first().filter(|(label, _)| !seen.contains(label)) else { continue };
        let message = probe.keyed(&probe.new_key());
        let first = probe.send(&format!("the first one, for {label}"), &message.clone().with_body(body)).await?;
        if !first.is_success() {
            continue;
        }
        for (label, other) in others {
            seen.insert(label);
            let other = probe.settled(label, &message.clone().with_body(other)).await?;
            if other.is_success() {
                expect_reused(probe, label, &first, &other);
                return Ok(());
            }
        }
    }
    Ok(())
}

pub(super) async fn other_query(probe: &Probe<'_>) -> Result<(), Stop> {
    if probe.dialect().is_key_per_path {
        return Err(Stop::Skip("the profile compares the body only"));
    }
    let join = if probe.endpoint.request.target.contains('?') { '&' } else { '?' };
    let change = |message: Message| {
        let target = format!("{}{join}idem-check=1", message.target);
        Message { target, ..message }
    };
    elsewhere(probe, "another query", change).await
}

/// The draft speaks of the payload alone: another query or path may also be an operation of its own. It must not get
/// the first answer, though.
async fn elsewhere(probe: &Probe<'_>, label: &str, change: impl FnOnce(Message) -> Message) -> Result<(), Stop> {
    if probe.dialect().reused_code.is_some() {
        return refused(probe, label, change).await;
    }
    let (key, first) = probe.first().await?;
    let before = probe.ledger().await?;
    let other = probe.settled(label, &change(probe.keyed(&key))).await?;
    if probe.is_first(&first, &other, &before).await? {
        let what = format!("{label} gets the answer of the first request, which is of another resource");
        probe.found(Severity::Wrong, Rule::Target, what);
    }
    still_there(probe, label, &key, &first).await
}

pub(super) async fn other_path(probe: &Probe<'_>) -> Result<(), Stop> {
    let path = probe.endpoint.settings.other_path.as_ref().ok_or(Stop::Needs("other_path"))?;
    let change = |message| Message { target: path.clone(), ..message };
    let alone = probe.send("another path, with a key of its own", &change(probe.keyed(&probe.new_key()))).await?;
    if !alone.is_success() {
        return Err(Stop::Other(format!("{path} has to take the same body, and gets {}", alone.summary())));
    }
    if !probe.dialect().is_key_per_path {
        return elsewhere(probe, "another path", change).await;
    }
    let (key, first) = probe.first().await?;
    let before = probe.ledger().await?;
    let other = probe.send("another path", &change(probe.keyed(&key))).await?;
    if probe.is_first(&first, &other, &before).await? {
        probe.found(Severity::Dangerous, Rule::Scope, "another path gets the answer of the first one");
    } else if other.status.as_u16() == probe.dialect().reused {
        let what = format!("a key on another path is refused: {}", other.summary());
        probe.found(Severity::Wrong, Rule::Scope, what);
    }
    Ok(())
}

pub(super) async fn other_method(probe: &Probe<'_>) -> Result<(), Stop> {
    let method = if probe.endpoint.request.method == Method::PUT { Method::POST } else { Method::PUT };
    let (key, first) = probe.first().await?;
    let before = probe.ledger().await?;
    // Most servers have no such operation, and say so.
    let other = probe.settled("another method", &Message { method, ..probe.keyed(&key) }).await?;
    if probe.is_first(&first, &other, &before).await? {
        let what = "another method with the key gets the answer of the first request";
        probe.found(Severity::Dangerous, Rule::Target, what);
    }
    still_there(probe, "another method", &key, &first).await
}

pub(super) async fn other_account(probe: &Probe<'_>) -> Result<(), Stop> {
    let (name, value) = probe.endpoint.other_account.as_ref().ok_or(Stop::Needs("other_account"))?;
    let alone =
        probe.send("another account, with a key of its own", &probe.keyed(&probe.new_key()).set(name, value)).await?;
    if !alone.is_success() {
        return Err(Stop::Other(format!("the other account's own request gets {}", alone.summary())));
    }
    let (key, first) = probe.first().await?;
    let before = probe.ledger().await?;
    let other = probe.settled("another account, the same key", &probe.keyed(&key).set(name, value)).await?;
    if probe.is_first(&first, &other, &before).await? {
        let what = "another account with the same key gets the answer of the first one";
        probe.found(Severity::Dangerous, Rule::Scope, what);
    }
    let cookie = first.header("set-cookie");
    if cookie.is_some() && cookie == other.header("set-cookie") {
        let what = "another account with the same key gets the Set-Cookie of the first one, and so its session";
        probe.found(Severity::Dangerous, Rule::Scope, what);
    }
    still_there(probe, "another account", &key, &first).await
}

pub(super) async fn same_meaning(probe: &Probe<'_>) -> Result<(), Stop> {
    let body: Option<serde_json::Value> = serde_json::from_str(&probe.endpoint.request.body).ok();
    let Some(body) = body.filter(serde_json::Value::is_object) else {
        return Err(Stop::Skip("the body is no JSON object"));
    };
    let before = probe.ledger().await?;
    let (key, first) = probe.first().await?;
    let written = format!("{body:#}\n");
    let other = probe.settled("the same JSON, written in another way", &probe.keyed(&key).with_body(written)).await?;
    if probe.dialect().compares_meaning {
        compare(probe, &first, &other);
    } else if !other.is_success() {
        let what =
            format!("JSON is compared by its bytes: {}. Tell the API's clients to save the body", other.summary());
        probe.found(Severity::Note, Rule::Reused, what);
    }
    let effects = probe.effects(&before, [&first, &other]).await?;
    probe.once(effects, Rule::Reused, "the same JSON, written in another way, runs again with the same key");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use Severity::{Dangerous, Note, Wrong};

    // Each status and code with each profile.
    #[test]
    fn a_key_of_another_request_is_refused_as_the_profile_says() {
        let first = Answer::of(201, "1");
        let (of_stripe, of_acp) = ("idempotency_error", "idempotency_conflict");
        let columns = Dialect::columns(["draft", "stripe", "acp", "iceberg"]);
        for (status, body, expected) in [
            (201, "1", [Some(Dangerous); 4]),
            (201, "2", [Some(Dangerous); 4]),
            (422, "", [None, Some(Wrong), Some(Wrong), None]),
            (422, of_acp, [None, Some(Wrong), None, None]),
            (400, "", [Some(Note), Some(Wrong), Some(Wrong), Some(Note)]),
            (400, of_stripe, [Some(Note), None, Some(Wrong), Some(Note)]),
            (409, of_stripe, [Some(Wrong); 4]),
            (429, of_acp, [Some(Wrong); 4]),
            (500, of_acp, [Some(Wrong); 4]),
        ] {
            let found = columns.map(|dialect| of_reused(&dialect, "it", &first, &Answer::of(status, body)));
            assert_eq!(found.map(|found| found.map(|(severity, _)| severity)), expected, "{status} {body}");
        }
    }
}
