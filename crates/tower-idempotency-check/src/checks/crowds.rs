//! Many keys at once.

use std::time::Instant;

use serde_json::Value;

use crate::dialect::Rule;
use crate::finding::Severity;
use crate::http::message::{Answer, Message};
use crate::probe::{Probe, Stop};

use super::answers::{compare, still_there};

/// How many keys come at once.
const KEYS: usize = 50;

/// How often other keys come between a request and its retry.
const CROWDS: usize = 6;

/// A request with a key of its own each.
fn crowd(probe: &Probe<'_>) -> Vec<Message> {
    (0..KEYS).map(|_| probe.keyed(&probe.new_key())).collect()
}

/// What an operation is called in its answer: `Location`, and the members of the JSON whose names end in `id`. A time,
/// for example, names none: two operations may have the same.
fn named(answer: &Answer) -> Vec<String> {
    fn walk(value: &Value, names: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    if name.to_ascii_lowercase().ends_with("id") {
                        names.push(member.to_string());
                    }
                    walk(member, names);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, names)),
            _ => {}
        }
    }
    let mut names: Vec<_> = answer.header("location").map(str::to_owned).into_iter().collect();
    walk(&answer.json().unwrap_or_default(), &mut names);
    names
}

pub(super) async fn keys_at_once(probe: &Probe<'_>) -> Result<(), Stop> {
    // Names tell operations apart if they do so for two that come one after the other.
    let are_named = named(&probe.first().await?.1) != named(&probe.first().await?.1);
    let (messages, before) = (crowd(probe), probe.ledger().await?);
    let first = probe.at_once("requests with a key of their own", &messages).await?;
    let again = probe.at_once("the same again", &messages).await?;
    let done = |answer: &Result<Answer, _>| answer.as_ref().ok().filter(|answer| answer.is_success()).cloned();
    let first: Vec<_> = first.iter().map(done).collect();
    let answers = || first.iter().flatten();
    let names: Vec<_> = answers().map(named).collect();
    let doubled = names.iter().filter(|name| names.iter().filter(|other| other == name).count() > 1).count();
    if are_named && doubled > 0 {
        let what =
            format!("of {} requests with keys of their own at once, {doubled} get the answer of another", names.len());
        probe.found(Severity::Dangerous, Rule::Scope, what);
    }
    let retries = first.iter().zip(again.iter().map(done)).filter_map(|(first, again)| Some((first.as_ref()?, again?)));
    let strange: Vec<_> = retries.filter(|(first, again)| !again.says_same(first)).collect();
    if strange.iter().any(|(_, again)| answers().any(|other| again.says_same(other))) {
        let what = "after requests with keys of their own at once, a key's retry gets the answer of another key";
        probe.found(Severity::Dangerous, Rule::Scope, what);
    } else if let Some((first, again)) = strange.first() {
        compare(probe, first, again);
    }
    let effects = probe.effects(&before, []).await?;
    if effects > KEYS {
        let what = format!("{KEYS} requests with keys of their own, and their retries, have {effects} effects");
        probe.counted(Severity::Dangerous, Rule::Retry, what);
    }
    Ok(())
}

/// A store may know the last keys only.
pub(super) async fn after_many_keys(probe: &Probe<'_>) -> Result<(), Stop> {
    let began = Instant::now();
    let (key, first) = probe.first().await?;
    let mut done = 0;
    for _ in 0..CROWDS {
        let answers = probe.at_once("requests with other keys", &crowd(probe)).await?;
        done += answers.iter().flatten().filter(|answer| answer.is_success()).count();
    }
    if done < KEYS * CROWDS / 2 {
        return Err(Stop::Skip("the server does not take so many requests"));
    }
    probe.is_kept(began)?;
    still_there(probe, &format!("{done} other keys"), &key, &first).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_called_by_its_ids_and_its_location() {
        for (location, body, expected) in [
            (None, r#"{"id":7,"at":"2026-11-27T15:00:00Z"}"#, &["7"][..]),
            (None, r#"{"data":[{"orderId":"a"}],"n":1}"#, &["\"a\""]),
            (Some("/7"), r#"{"ok":true}"#, &["/7"]),
            (Some("/7"), "no JSON", &["/7"]),
            (None, r#"{"at":1795791600123,"status":"done"}"#, &[]),
        ] {
            let mut answer = Answer::of(201, body);
            if let Some(location) = location {
                answer.headers.insert("location", location.parse().unwrap());
            }
            assert_eq!(named(&answer), expected, "{location:?} {body}");
        }
    }
}
