//! JSON-RPC 2.0, and so MCP.

use serde_json::Value;

use crate::answer::{Answer, Says};

/// The statuses with which servers refuse what they have not read.
pub(crate) const UNREAD: &[u16] = &[400, 404, 405, 406, 413, 415, 422];

/// Returns what a response says (JSON-RPC 2.0, section 5). A batch, and what is no response, says nothing.
pub(crate) fn judge(answer: &Answer<'_>) -> Option<Says> {
    let body = answer.json()?;
    // A response has an `id`, also an error without a request: null.
    if body.get("jsonrpc")? != "2.0" || body.get("id").is_none() || body.get("method").is_some() {
        return None;
    }
    let error = &body["error"];
    match body.get("result") {
        // MCP's server asks for input before it goes on. The client sends another call with it.
        Some(result) if error.is_null() && result["resultType"] == "input_required" => return Some(Says::NotStarted),
        // Also one of a tool over MCP with `isError`: it may have had an effect before it failed.
        Some(_) if error.is_null() => return Some(Says::Done),
        None | Some(Value::Null) if !error.is_null() => {}
        _ => return None,
    }
    // An error of another form says that the call has failed, and not how.
    let Some(code) = error["code"].as_i64() else { return Some(Says::Unknown) };
    Some(match code {
        // Parse error, invalid request, method not found, invalid params.
        -32700 | -32600 | -32601 | -32602 => Says::NotStarted,
        // MCP: headers, capabilities or a revision that the server does not take; it asks for a visit of a URL first.
        -32022..=-32020 | -32042 => Says::NotStarted,
        // An error without an `id` is of a request that was not read: its session is unknown.
        _ if body["id"].is_null() && UNREAD.contains(&answer.status.as_u16()) => Says::NotStarted,
        // Internal error, and the server's own.
        -32603 | -32099..=-32000 => Says::Failed,
        // MCP: the client has cancelled the call, which may have had its effect by then.
        -32800 => Says::Unknown,
        _ => Says::Refused,
    })
}
