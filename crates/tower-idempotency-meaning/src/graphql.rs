//! GraphQL over HTTP: the answer to a mutation.

use std::time::Duration;

use serde_json::Value;

use crate::answer::{Answer, Says};

/// The codes of errors (`extensions.code`) that come before anything is executed: those of Apollo Server and of the
/// servers that follow it.
const NOT_STARTED: [&str; 8] = [
    "ACCESS_DENIED", "BAD_USER_INPUT", "FORBIDDEN", "GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED",
    "OPERATION_RESOLUTION_FAILURE", "PERSISTED_QUERY_NOT_FOUND", "PERSISTED_QUERY_NOT_SUPPORTED",
];

/// The one that says that the credentials are missing or no longer accepted.
const UNAUTHENTICATED: &str = "UNAUTHENTICATED";

/// Those that say that the same request may be sent again.
const TRY_LATER: [&str; 3] = ["RATE_LIMITED", "THROTTLED", "TOO_MANY_REQUESTS"];

/// Returns what an answer says. One that has both no `data` and no errors says nothing.
pub(crate) fn judge(answer: &Answer<'_>) -> Option<Says> {
    let body = answer.json()?;
    let no_errors = Vec::new();
    let errors = body.get("errors").map_or(Some(&no_errors), Value::as_array)?;
    match body.get("data") {
        // A part of it was executed, whatever else has failed. A field that is null by its own error is executed too.
        Some(Value::Object(_)) => return Some(Says::Done),
        None | Some(Value::Null) if !errors.is_empty() => {}
        _ => return None,
    }
    // A field's own selection is executed after the field, so that the mutation itself may have taken effect.
    if errors.iter().any(|error| error["path"].as_array().is_some_and(|path| path.len() > 1)) {
        return Some(Says::Unknown);
    }
    let codes = || errors.iter().map(|error| error["extensions"]["code"].as_str().unwrap_or_default());
    let is_early = |code| TRY_LATER.contains(&code) || code == UNAUTHENTICATED || NOT_STARTED.contains(&code);
    Some(if codes().all(|code| TRY_LATER.contains(&code)) {
        Says::TryLater(restored_in(&body["extensions"]["cost"]))
    } else if codes().all(|code| code == UNAUTHENTICATED) {
        Says::Unauthenticated
    } else if codes().all(is_early) {
        Says::NotStarted
    } else {
        Says::Unknown
    })
}

/// Returns how long it takes until a query of this cost can be paid, as Shopify's APIs say it: the points that are
/// missing, by the points that come back in a second.
fn restored_in(cost: &Value) -> Option<Duration> {
    let status = &cost["throttleStatus"];
    let missing = cost["requestedQueryCost"].as_f64()? - status["currentlyAvailable"].as_f64()?;
    let seconds = missing / status["restoreRate"].as_f64().filter(|rate| *rate > 0.0)?;
    Duration::try_from_secs_f64(seconds.max(0.0).ceil()).ok()
}
