//! Calls of a tool over MCP: what belongs to one call and is no part of the operation.

use serde_json::json;

use crate::dialect::Rule;
use crate::finding::Severity;
use crate::probe::{Probe, Stop};

use super::answers::compare;

/// Sends a call under several `id`s: each client counts its own from the beginning.
pub(super) async fn other_id(probe: &Probe<'_>) -> Result<(), Stop> {
    let (before, key) = (probe.ledger().await?, probe.new_key());
    let first = probe.succeeds("a call under the id 7", &probe.keyed(&key).under(7)).await?;
    let mut answers = vec![first.clone()];
    for id in [json!(7), json!(0), json!("a-1")] {
        // Within a session, no `id` comes twice.
        probe.forget_sessions();
        let again = probe.settled(&format!("the same under the id {id}"), &probe.keyed(&key).under(id)).await?;
        compare(probe, &first, &again);
        answers.push(again);
    }
    let effects = probe.effects(&before, &answers).await?;
    probe.once(effects, Rule::Retry, format!("calls with one key under several ids have {effects} effects"));
    Ok(())
}

/// Sends a call again in another session, as after a restart of the client.
pub(super) async fn other_session(probe: &Probe<'_>) -> Result<(), Stop> {
    let before = probe.ledger().await?;
    let (key, first) = probe.first().await?;
    if !probe.forget_sessions() {
        return Err(Stop::Skip("the server has no sessions"));
    }
    let again = probe.settled("the same in another session", &probe.keyed(&key)).await?;
    compare(probe, &first, &again);
    let session = first.header("mcp-session-id");
    if session.is_some() && session == again.header("mcp-session-id") {
        let what = "a retry in another session gets the session of the first call, and some clients go on in that";
        probe.found(Severity::Wrong, Rule::Scope, what);
    }
    let effects = probe.effects(&before, [&first, &again]).await?;
    probe.once(effects, Rule::Retry, format!("a call and its retry in another session have {effects} effects"));
    Ok(())
}
