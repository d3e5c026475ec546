//! The calls of an outbox, as text and as JSON: neither has a key or a body. Fences are strings: readers of JSON round
//! large numbers.

use std::time::SystemTime;

use serde_json::{Value, json};
use tower_idempotency_outbox::Entry;

use super::text::{aligned, or_dash, shown};
use super::time::{ago, time};

/// Returns a table of calls.
pub(crate) fn calls(entries: &[Entry]) -> String {
    let mut table = format!(
        "{:10}  {:9}  {:12}  {:5}  {:11}  {:20}  DESTINATION",
        "POSITION", "STATE", "FOR", "TRIES", "MAY BE DONE", "FENCE"
    );
    for entry in entries {
        table.push_str(&format!(
            "\n{:<10}  {:9}  {:12}  {:<5}  {:11}  {:<20}  {}",
            entry.position,
            entry.state.as_str(),
            ago(entry.stored.into(), SystemTime::now().into()),
            entry.tries,
            yes_or_no(entry.may_have_taken_place),
            entry.fence(),
            or_dash(destination(entry)),
        ));
    }
    table
}

/// Returns what is known of a call, a line for each.
pub(crate) fn call(entry: &Entry) -> String {
    aligned(&[
        ("position", entry.position.to_string()),
        ("state", entry.state.to_string()),
        ("destination", or_dash(destination(entry))),
        ("for", ago(entry.stored.into(), SystemTime::now().into())),
        ("stored", time(entry.stored.into())),
        ("tries", entry.tries.to_string()),
        ("first try", or_dash(entry.first_try.map(|at| time(at.into())))),
        ("due", time(entry.due.into())),
        ("may be done", yes_or_no(entry.may_have_taken_place).to_owned()),
        ("reason", or_dash(entry.reason.as_ref().map(|reason| shown(reason.as_bytes())))),
        ("answer", or_dash(entry.answer.as_ref().map(|answer| answer.status))),
        ("fence", entry.fence().to_string()),
    ])
}

/// Returns the same as a value.
pub(crate) fn call_as_json(entry: &Entry) -> Value {
    json!({
        "position": entry.position.to_string(),
        "state": entry.state.as_str(),
        "destination": destination(entry),
        "stored": time(entry.stored.into()),
        "tries": entry.tries,
        "first_try": entry.first_try.map(|at| time(at.into())),
        "due": time(entry.due.into()),
        "may_have_taken_place": entry.may_have_taken_place,
        "reason": entry.reason,
        "fence": entry.fence().to_string(),
    })
}

/// Returns the parts of a call's request that may have personal data, as text and as a value.
pub(crate) fn request(entry: &Entry) -> (String, Value) {
    let Some(call) = &entry.call else { return ("\nthe request can't be read".to_owned(), Value::Null) };
    let (method, url, key) = (call.method().to_string(), call.uri().to_string(), call.key().as_str());
    let text = aligned(&[
        ("method", method.clone()),
        ("url", url.clone()),
        ("key", key.to_owned()),
        ("partition key", or_dash(call.partition_key().map(|key| shown(key.as_bytes())))),
    ]);
    let value = json!({ "method": method, "url": url, "key": key, "partition_key": call.partition_key() });
    (format!("\n{text}"), value)
}

fn destination(entry: &Entry) -> Option<&str> {
    Some(&*entry.destination).filter(|destination| !destination.is_empty())
}

fn yes_or_no(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}
