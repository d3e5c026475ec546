//! How a key is written.

use crate::dialect::Rule;
use crate::finding::Severity;
use crate::probe::{Probe, Stop};

use super::answers::compare;

pub(super) async fn missing(probe: &Probe<'_>) -> Result<(), Stop> {
    let before = probe.ledger().await?;
    let answer = probe.send("without a key", &probe.plain()).await?;
    let dialect = probe.dialect();
    if dialect.is_key_required {
        let has_code = dialect.missing_code.is_none_or(|code| String::from_utf8_lossy(&answer.body).contains(code));
        if answer.status.as_u16() != 400 || !has_code {
            let what = format!("a request without a key gets {}", answer.summary());
            probe.found(Severity::Wrong, Rule::Missing, what);
        }
        if probe.can_count() && probe.effects(&before, [&answer]).await? > 0 {
            let what = "a request without a key has an effect, although a key is required";
            probe.counted(Severity::Dangerous, Rule::Missing, what);
        }
        return Ok(());
    }
    if answer.is_success() {
        let again = probe.send("without a key again", &probe.plain()).await?;
        let effects = probe.effects(&before, [&answer, &again]).await?;
        if again.is_success() && probe.can_count() && effects < 2 {
            let what = "two requests without a key have one effect: what was not asked for is deduplicated";
            probe.counted(Severity::Dangerous, Rule::Missing, what);
        }
    }
    Ok(())
}

/// Sends a request twice whose keys are not valid. It has to be refused, or not to be taken for another operation.
async fn invalid(probe: &Probe<'_>, label: &str, keys: &[&str]) -> Result<(), Stop> {
    let before = probe.ledger().await?;
    let message = keys.iter().fold(probe.plain(), |message, key| message.with(&probe.endpoint.key_header, *key));
    let first = probe.send(label, &message).await?;
    if first.is_client_error() {
        if probe.can_count() && probe.effects(&before, [&first]).await? > 0 {
            probe.counted(Severity::Dangerous, Rule::Syntax, format!("{label} is refused, and has an effect"));
        }
        return Ok(());
    }
    if !first.is_success() {
        let what = format!("{label} gets {}, and not a client's error", first.summary());
        probe.found(Severity::Wrong, Rule::Syntax, what);
        return Ok(());
    }
    let again = probe.settled(&format!("{label}, again"), &message).await?;
    let effects = probe.effects(&before, [&first, &again]).await?;
    let what = match effects {
        0 | 1 => format!("with {label}, the request runs as one with a key: {}", first.summary()),
        _ => format!("with {label}, the request runs as one without a key: two have {effects} effects"),
    };
    // A field that can't be parsed may be ignored (RFC 9651, section 4.2), where a request needs no key.
    let severity = if probe.dialect().is_key_required { Severity::Dangerous } else { Severity::Note };
    probe.found(severity, Rule::Syntax, what);
    Ok(())
}

pub(super) async fn empty(probe: &Probe<'_>) -> Result<(), Stop> {
    invalid(probe, "an empty key", &[""]).await
}

pub(super) async fn doubled(probe: &Probe<'_>) -> Result<(), Stop> {
    invalid(probe, "two different keys", &[&probe.new_key(), &probe.new_key()]).await
}

pub(super) async fn malformed(probe: &Probe<'_>) -> Result<(), Stop> {
    invalid(probe, "a key whose quotes do not end", &[&format!("\"{}", probe.new_key())]).await
}

pub(super) async fn long(probe: &Probe<'_>) -> Result<(), Stop> {
    const LONGEST: usize = 255;
    if probe.dialect().are_keys_uuids {
        return other_form(probe, LONGEST).await;
    }
    let before = probe.ledger().await?;
    // The quotes count, for a server that knows of none.
    let key = padded(&probe.new_key(), if probe.is_quoted() { LONGEST - 2 } else { LONGEST });
    let first = probe.send("a key of 255 characters", &probe.keyed(&key)).await?;
    if !first.is_success() {
        let what = format!("a key of {LONGEST} characters is refused: {}", first.summary());
        // The draft leaves the form of keys to the API.
        let severity = if probe.dialect().name == "draft" { Severity::Note } else { Severity::Wrong };
        probe.found(severity, Rule::Syntax, what);
        return Ok(());
    }
    let again = probe.settled("the same again", &probe.keyed(&key)).await?;
    compare(probe, &first, &again);
    // Two keys that differ at their ends only.
    let (one, other) = (format!("{key}{}", "a".repeat(745)), format!("{key}{}b", "a".repeat(744)));
    let one = probe.send("a key of 1,000 characters", &probe.keyed(&one)).await?;
    let other = probe.send("another one with the same beginning", &probe.keyed(&other)).await?;
    let effects = probe.effects(&before, [&first, &again, &one, &other]).await?;
    let expected = 1 + usize::from(one.is_success()) + usize::from(other.is_success());
    let is_cut = if probe.can_count() { effects < expected } else { other.is_success() && other.says_same(&one) };
    if is_cut {
        let what = "keys that differ after their beginning are one: a long key is cut";
        probe.counted(Severity::Dangerous, Rule::Syntax, what);
    }
    if one.is_server_error() {
        probe.found(Severity::Wrong, Rule::Syntax, format!("a key of 1,000 characters gets {}", one.summary()));
    }
    Ok(())
}

/// Sends keys that are not of the form that the profile asks for.
async fn other_form(probe: &Probe<'_>, longest: usize) -> Result<(), Stop> {
    invalid(probe, "a key of 255 characters", &[&padded(&probe.new_key(), longest)]).await?;
    // With the digit of version 4.
    let mut other = probe.new_key();
    other.replace_range(14..15, "4");
    invalid(probe, "a UUID of version 4", &[&other]).await
}

/// Sends a UUID in small letters, and then in capitals: it is the same key (RFC 9562, section 4).
async fn case_of_uuid(probe: &Probe<'_>) -> Result<(), Stop> {
    let before = probe.ledger().await?;
    let (key, first) = probe.first().await?;
    let other = probe.settled("the same UUID in capitals", &probe.keyed(&key.to_uppercase())).await?;
    if !other.is_success() {
        let what = format!("a UUID in capitals is refused: {}", other.summary());
        probe.found(Severity::Wrong, Rule::Syntax, what);
    } else if probe.effects(&before, [&first, &other]).await? > 1 {
        probe.counted(Severity::Wrong, Rule::Syntax, "a UUID in capitals is another key: both requests run");
    }
    Ok(())
}

pub(super) async fn case(probe: &Probe<'_>) -> Result<(), Stop> {
    if probe.dialect().are_keys_uuids {
        return case_of_uuid(probe).await;
    }
    // A UUID in capitals may be the same UUID (RFC 9562, section 4), so this is none.
    let key = format!("{}-a", probe.new_key().to_lowercase());
    let first = probe.send("a key in small letters", &probe.keyed(&key)).await?;
    if !first.is_success() {
        return Err(Stop::Skip("the server refuses a key that is no UUID, and a UUID may be written in either case"));
    }
    let before = probe.ledger().await?;
    let other = probe.settled("the same key in capitals", &probe.keyed(&key.to_uppercase())).await?;
    if probe.is_first(&first, &other, &before).await? {
        let what = "keys that differ in case alone are one: an operation of another key is taken for done";
        probe.found(Severity::Dangerous, Rule::Syntax, what);
    }
    Ok(())
}

fn padded(key: &str, length: usize) -> String {
    format!("{key}{}", "k".repeat(length - key.len()))
}

pub(super) async fn quoted(probe: &Probe<'_>) -> Result<(), Stop> {
    let before = probe.ledger().await?;
    let (key, first) = probe.first().await?;
    let form = if probe.is_quoted() { "the same key without quotes" } else { "the same key in quotes" };
    let other = probe.settled(form, &probe.keyed_as(&key, !probe.is_quoted())).await?;
    let what = match (other.is_success(), probe.effects(&before, [&first, &other]).await?) {
        (false, _) => format!("{form} is refused: {}", other.summary()),
        (true, 0 | 1) => return Ok(()),
        (true, _) => format!("{form} is no key, or another one: both requests run"),
    };
    probe.found(Severity::Note, Rule::Syntax, what);
    Ok(())
}
