//! Operations as JSON. Numbers that may exceed 2^53 are texts: many readers of JSON round them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tower_idempotency::clock::Timestamp;
use tower_idempotency::engine::Cause;
use tower_idempotency::operations::{Listing, OperationRecord, OperationState, Server};
use tower_idempotency::store::Store;

use crate::overview::Summary;
use crate::site::Site;
use crate::text::{hex, is_known, rfc3339};

pub(super) fn time(time: Timestamp) -> Value {
    json!(rfc3339(time))
}

/// Returns a time that is 0 if it is not known.
fn known(at: Timestamp) -> Option<Value> {
    is_known(at).then(|| time(at))
}

pub(super) fn operation<St: Store>(site: &Site<St>, operation: &OperationRecord) -> Value {
    let policy = match operation.state {
        OperationState::Interrupted { policy, .. } => Some(format!("{policy:?}").to_lowercase()),
        _ => None,
    };
    let (bytes, reason) = match &operation.state {
        OperationState::Completed { bytes, .. } => (Some(bytes.to_string()), None),
        OperationState::Damaged { reason } => (None, Some(reason)),
        _ => (None, None),
    };
    let server = match operation.server {
        Server::Here => Some("here"),
        Server::Elsewhere => Some("elsewhere"),
        _ => None,
    };
    json!({
        "id": operation.id.to_string(),
        "fence": operation.fence.0.to_string(),
        "state": operation.state.kind().to_string(),
        "label": operation.label(),
        "scope": operation.scope().map(|scope| hex(&scope)),
        "derived_keys": site.derived_keys(operation).collect::<BTreeMap<_, _>>(),
        "trace_id": operation.trace_id().map(|trace| hex(&trace)),
        "attempt": operation.attempt,
        "began": known(operation.began),
        "since": known(operation.since),
        "expires": operation.expires.map(time),
        "server": server,
        "session": operation.session.map(|session| session.short()),
        "cause": operation.state.cause().map(Cause::name),
        "policy": policy,
        "status": operation.state.status(),
        "bytes": bytes,
        "reason": reason,
    })
}

pub(super) fn listing<St: Store>(site: &Site<St>, listing: &Listing) -> Value {
    let operations: Vec<_> = listing.operations.iter().map(|listed| operation(site, listed)).collect();
    let next = listing.next.map(|next| next.to_string());
    json!({ "operations": operations, "next": next, "now": time(listing.now) })
}

pub(super) fn summary(summary: &Summary) -> Value {
    json!({ "count": summary.count, "has_more": summary.has_more, "oldest": summary.oldest.map(time) })
}
