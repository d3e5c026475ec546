//! The file of `idem settle --from`: each line is a change as the API of the operators' page takes it, together with
//! what `idem export` has written of the operation.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};
use tower_idempotency::operations::{Action, Answer, Change};
use tower_idempotency::{Fence, RecordId};

use super::answer;
use crate::text::unmarked;

/// What a file says.
pub(super) struct Read {
    pub(super) changes: Vec<Numbered>,
    /// How many of them give an answer.
    pub(super) answers: usize,
    /// How many lines have no action.
    pub(super) undecided: usize,
}

/// A change, and its line.
pub(super) struct Numbered {
    pub(super) line: usize,
    pub(super) change: Change,
}

#[derive(Deserialize)]
struct Line {
    id: String,
    /// A damaged record may have none.
    fence: Option<String>,
    action: Option<String>,
    answer: Option<Given>,
    /// What is known of the operation.
    #[serde(flatten)]
    known: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    status: Option<u16>,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: String,
    #[serde(default)]
    encoding: Encoding,
}

#[derive(Default, Deserialize)]
enum Encoding {
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    #[serde(rename = "base64")]
    Base64,
}

/// What `idem export` writes of an operation, next to its id and its fence.
const KNOWN: [&str; 17] = [
    "state", "status", "bytes", "reason", "cause", "policy", "label", "attempt", "began", "since", "seconds_in_state",
    "expires", "scope", "trace_id", "server", "session", "derived_keys",
];

/// Reads all lines. The error names the line.
pub(super) fn read(text: &[u8]) -> Result<Read, String> {
    let mut read = Read { changes: Vec::new(), answers: 0, undecided: 0 };
    let mut lines = HashMap::new();
    for (at, text) in unmarked(text)?.split(|byte| *byte == b'\n').enumerate() {
        let line = at + 1;
        if text.trim_ascii().is_empty() {
            continue;
        }
        let (id, change) = parse(text).map_err(|error| format!("line {line}: {error}"))?;
        if let Some(before) = lines.insert(id, line) {
            return Err(format!("lines {before} and {line} are for one operation"));
        }
        match change {
            None => read.undecided += 1,
            Some(change) => {
                read.answers += usize::from(matches!(change.action, Action::Answer(_)));
                read.changes.push(Numbered { line, change });
            }
        }
    }
    Ok(read)
}

fn parse(line: &[u8]) -> Result<(RecordId, Option<Change>), String> {
    let Line { id, fence, action, answer, known } = serde_json::from_slice(line).map_err(|error| unread(&error))?;
    if let Some(unknown) = known.keys().find(|name| !KNOWN.contains(&name.as_str())) {
        return Err(format!("there is no field `{unknown}`; what is to be done are `action` and `answer`"));
    }
    let id: RecordId = id.parse().map_err(|_| "`id` has 64 hex digits".to_owned())?;
    let fence = fence.map(|fence| fence.parse().map(Fence)).transpose();
    let fence = fence.map_err(|_| "`fence` is a number in quotation marks".to_owned())?;
    let action = match (action.as_deref(), answer) {
        (None, None) => return Ok((id, None)),
        (Some("release"), None) => Action::Release,
        (Some("answer"), Some(given)) => Action::Answer(given.answer()?),
        (Some("answer"), None) => return Err("the action `answer` needs an `answer`".to_owned()),
        (Some("release") | None, Some(_)) => return Err("an `answer` needs the action `answer`".to_owned()),
        (Some(_), _) => return Err("the action is `answer` or `release`".to_owned()),
    };
    let fence = fence.ok_or("a change needs the `fence`")?;
    Ok((id, Some(Change::new(id, fence, action))))
}

/// Returns what is wrong with a line, without a value of it, which may be a secret.
fn unread(error: &serde_json::Error) -> String {
    let said = error.to_string();
    match said.rsplit_once(", expected ") {
        Some((_, expected)) if error.is_data() && !said.starts_with("unknown field") => format!("expected {expected}"),
        _ => said,
    }
}

impl Given {
    fn answer(self) -> Result<Answer, String> {
        let body = match self.encoding {
            Encoding::Utf8 => Bytes::from(self.body),
            Encoding::Base64 => {
                STANDARD.decode(self.body.trim()).map_err(|_| "the body is not Base64".to_owned())?.into()
            }
        };
        let Some(status) = self.status else {
            if !self.headers.is_empty() {
                return Err(
                    "an answer with headers needs a `status`; without one it is the outcome of a consumer".to_owned()
                );
            }
            return answer::outcome(body);
        };
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        answer::http(status, headers, body).map(Answer::Http)
    }
}

#[cfg(test)]
mod tests;
