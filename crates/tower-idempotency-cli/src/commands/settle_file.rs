//! The file of `idem settle --from`: each line is a change as the API of the operators' page takes it, together with
//! what `idem export` has written of the operation.

use std::collections::HashMap;

use tower_idempotency::RecordId;
use tower_idempotency::internals::written::WrittenChange;
use tower_idempotency::operations::Change;

use crate::text::unmarked;

/// What a file says.
pub(super) struct FileRead {
    /// The changes, each with the number of its line.
    pub(super) changes: Vec<(usize, Change)>,
    /// How many lines have no action.
    pub(super) undecided: usize,
}

/// What `idem export` writes of an operation, next to its id and its fence.
const KNOWN: [&str; 17] = [
    "state", "status", "bytes", "reason", "cause", "policy", "label", "attempt", "began", "since", "seconds_in_state",
    "expires", "scope", "trace_id", "server", "session", "derived_keys",
];

/// Reads all lines. The error names the line.
pub(super) fn read(text: &[u8]) -> Result<FileRead, String> {
    let mut read = FileRead { changes: Vec::new(), undecided: 0 };
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
            Some(change) => read.changes.push((line, change)),
        }
    }
    Ok(read)
}

fn parse(line: &[u8]) -> Result<(RecordId, Option<Change>), String> {
    let written: WrittenChange = serde_json::from_slice(line).map_err(|error| match error.is_data() {
        // The error itself may quote a value, which may be a secret.
        true => format!("it does not have the form that `idem settle --help` shows, at column {}", error.column()),
        false => error.to_string(),
    })?;
    if written.action.as_ref().is_some_and(|action| !["answer", "release"].contains(&action.as_str())) {
        return Err("the action is `answer` or `release`".to_owned());
    }
    written.read(&KNOWN)
}

#[cfg(test)]
mod tests;
