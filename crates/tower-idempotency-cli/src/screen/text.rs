//! Operations as text.

use std::fmt::Write as _;

use tower_idempotency::clock::Timestamp;
use tower_idempotency::operations::{Answer, OperationRecord, OperationState, Server};

use super::json::{bytes, known, policy};
use super::time::{ago, hex, time};

/// Returns a table of operations, with their whole ids or the digits that logs have.
pub(crate) fn list(operations: &[OperationRecord], full_ids: bool, now: Timestamp) -> String {
    let width = if full_ids { 64 } else { 8 };
    let mut table = format!(
        "{:width$}  {:11}  {:13}  {:6}  {:8}  {:12}  {:7}  {:18}  LABEL",
        "ID", "STATE", "CAUSE", "STATUS", "BYTES", "FOR", "ATTEMPT", "FENCE"
    );
    for operation in operations {
        let id = if full_ids { operation.id.to_string() } else { operation.id.short() };
        let state = operation.state.kind();
        let row = match &operation.state {
            OperationState::Damaged { reason } => {
                let fence = Some(operation.fence).filter(|fence| fence.0 > 0);
                format!("\n{id}  {state:11}  {reason}; fence {}", or_dash(fence))
            }
            _ => format!(
                "\n{id}  {state:11}  {:13}  {:6}  {:8}  {:12}  {:7}  {:18}  {}",
                or_dash(operation.state.cause()),
                or_dash(operation.state.status()),
                or_dash(bytes(operation)),
                ago(operation.since, now),
                operation.attempt,
                operation.fence.to_string(),
                operation.label().unwrap_or("-"),
            ),
        };
        table.push_str(&row);
    }
    table
}

/// Returns all that is known of an operation, a line for each.
pub(crate) fn details(operation: &OperationRecord, now: Timestamp) -> String {
    let mut lines = vec![("id", operation.id.to_string()), ("state", operation.state.kind().to_string())];
    if let OperationState::Damaged { reason } = &operation.state {
        lines.push(("reason", reason.clone()));
        return aligned(&lines);
    }
    let server = match operation.server {
        Server::None => "none",
        Server::Here => "this process",
        _ => "another process, which was alive when it was last looked at",
    };
    let known = [
        ("for", Some(ago(operation.since, now))),
        ("label", Some(or_dash(operation.label()))),
        ("status", Some(or_dash(operation.state.status()))),
        ("outcome", bytes(operation).map(|bytes| format!("{bytes} bytes"))),
        ("cause", operation.state.cause().map(|cause| cause.to_string())),
        ("claimed under", policy(operation)),
        ("attempt", Some(operation.attempt.to_string())),
        ("fence", Some(operation.fence.to_string())),
        ("began", Some(or_dash(known(operation.began)))),
        ("since", Some(time(operation.since))),
        ("expires", Some(or_dash(operation.expires.map(time)))),
        ("scope", Some(or_dash(operation.scope().map(|digest| hex(&digest))))),
        ("trace id", Some(or_dash(operation.trace_id().map(|id| hex(&id))))),
        ("server", Some(server.to_owned())),
        ("session", operation.session.map(|session| session.short())),
    ];
    lines.extend(known.into_iter().filter_map(|(name, value)| Some((name, value?))));
    aligned(&lines)
}

/// Returns a recorded outcome. A terminal obeys none of its characters.
pub(crate) fn answer(answer: &Answer) -> String {
    match answer {
        Answer::Http(response) => {
            let mut text = response.status().to_string();
            for (name, value) in response.headers() {
                let _ = write!(text, "\n{name}: {}", shown(value.as_bytes()));
            }
            format!("{text}\n\n{}", shown(response.body()))
        }
        Answer::Bytes(bytes) => shown(bytes),
        _ => "an outcome of a form that is not known".to_owned(),
    }
}

/// Returns a text in which controls are escaped, which a terminal would obey. The operators' page also writes out what
/// is not seen (`text.rs` of tower-idempotency-admin): there a text is a part of a sentence, and here it is what was
/// asked for.
pub(super) fn shown(bytes: &[u8]) -> String {
    let mut text = String::new();
    for char in String::from_utf8_lossy(bytes).chars() {
        if char.is_control() && !matches!(char, '\n' | '\t') {
            text.extend(char.escape_default());
        } else {
            text.push(char);
        }
    }
    text
}

pub(super) fn aligned(lines: &[(&str, String)]) -> String {
    lines.iter().map(|(name, value)| format!("{name:14} {value}")).collect::<Vec<_>>().join("\n")
}

pub(super) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_terminal_obeys_no_body_and_no_header() {
        let mut response = http::Response::new(Bytes::from_static(b"\x1b]0;title\x07\x9b31m\nnext\tline"));
        response.headers_mut().insert("x", http::HeaderValue::from_bytes(b"\x9b2J").unwrap());
        let shown = answer(&Answer::Http(response));
        assert!(shown.chars().all(|char| !char.is_control() || matches!(char, '\n' | '\t')), "{shown:?}");
        assert!(shown.contains("next\tline"));
    }
}
