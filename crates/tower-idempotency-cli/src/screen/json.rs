//! Operations as JSON. Fences are strings: readers of JSON round large numbers.

use serde_json::{Map, Value, json};
use tower_idempotency::clock::Timestamp;
use tower_idempotency::engine::Cause;
use tower_idempotency::operations::{Answer, OperationRecord, OperationState, Server};

use super::time::{hex, time};

/// Returns what is known of an operation.
pub(crate) fn operation(operation: &OperationRecord, now: Timestamp) -> Value {
    let is_damaged = matches!(operation.state, OperationState::Damaged { .. });
    let age = now.as_millis().saturating_sub(operation.since.as_millis()) / 1_000;
    json!({
        "id": operation.id.to_string(),
        "state": operation.state.kind().name(),
        "status": operation.state.status(),
        "bytes": bytes(operation),
        "reason": match &operation.state { OperationState::Damaged { reason } => Some(reason), _ => None },
        "cause": operation.state.cause().map(Cause::name),
        "policy": policy(operation),
        "label": operation.label(),
        "attempt": (!is_damaged).then_some(operation.attempt),
        "fence": (operation.fence.0 > 0).then(|| operation.fence.to_string()),
        "began": known(operation.began),
        "since": known(operation.since),
        "seconds_in_state": (!is_damaged).then_some(age),
        "expires": operation.expires.map(time),
        "scope": operation.scope().map(|digest| hex(&digest)),
        "trace_id": operation.trace_id().map(|id| hex(&id)),
        "server": match operation.server {
            Server::None => None,
            Server::Here => Some("here"),
            _ => Some("elsewhere"),
        },
        "session": operation.session.map(|session| session.short()),
    })
}

/// Returns the policy under which an interrupted run was claimed.
pub(super) fn policy(operation: &OperationRecord) -> Option<String> {
    match &operation.state {
        OperationState::Interrupted { policy, .. } => Some(format!("{policy:?}").to_lowercase()),
        _ => None,
    }
}

/// Returns the length of the recorded outcome.
pub(super) fn bytes(operation: &OperationRecord) -> Option<u64> {
    match operation.state {
        OperationState::Completed { bytes, .. } => Some(bytes),
        _ => None,
    }
}

/// Returns a time that is 0 if it is not known.
pub(super) fn known(at: Timestamp) -> Option<String> {
    (at.as_millis() > 0).then(|| time(at))
}

/// Returns a recorded outcome. Bytes that are no text are in hexadecimal.
pub(crate) fn answer(answer: &Answer) -> Value {
    match answer {
        Answer::Http(response) => {
            let mut headers = Map::new();
            for name in response.headers().keys() {
                let values = response.headers().get_all(name).iter().map(|value| text(value.as_bytes())).collect();
                headers.insert(name.to_string(), Value::Array(values));
            }
            json!({ "status": response.status().as_u16(), "headers": headers, "body": text(response.body()) })
        }
        Answer::Bytes(bytes) => json!({ "body": text(bytes) }),
        _ => Value::Null,
    }
}

fn text(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => json!({ "hex": hex(bytes) }),
    }
}
