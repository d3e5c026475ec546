//! The tool that a plan calls over MCP.

use super::{PlanError, Settings, read};
use crate::mcp::{KEY_PLACE, Tool};

/// Reads which tool is called, and checks that the bodies are arguments.
pub(super) fn tool(settings: &Settings, is_called: bool) -> Result<Option<Tool>, PlanError> {
    let Settings { tool, key_from, key_header, data, other_data, declined, server_error, rate_limited, slow, .. } =
        settings;
    if !is_called {
        for (field, value) in [("tool", tool), ("key_from", key_from)] {
            let value =
                value.as_deref().map(|value| read(field, value, "a field of this profile: add `mcp`", |_| None));
            value.unwrap_or(Ok(()))?;
        }
        return Ok(None);
    }
    let name = tool.clone().unwrap_or_default();
    let name = read("tool", &name, "the name of a tool, which the profile mcp needs", |name| {
        Some(name.to_owned()).filter(|name| !name.is_empty())
    })?;
    let place = key_from.as_deref().map(|text| {
        let form = "a place in a call, as in \"json:/params/arguments/idempotency_key\"";
        read("key_from", text, form, |text| text.strip_prefix("json:").filter(|at| is_place(at)).map(str::to_owned))
    });
    let key_place = match (place.transpose()?, key_header) {
        (Some(_), Some(name)) => read("key_header", name, "free to be given with `key_from`", |_| None)?,
        (None, Some(_)) => None,
        (place, None) => Some(place.unwrap_or_else(|| KEY_PLACE.to_owned())),
    };
    let tool = Tool { name, key_place };
    let bodies = [
        ("data", data),
        ("other_data", other_data),
        ("declined", declined),
        ("server_error", server_error),
        ("rate_limited", rate_limited),
        ("slow", slow),
    ];
    for (field, body) in bodies {
        let arguments = |text: &str| serde_json::from_str(text).ok().filter(serde_json::Value::is_object);
        let body = body.as_deref().unwrap_or("{}");
        let arguments = read(field, body, "a JSON object, the arguments of the tool", arguments)?;
        read(field, body, "a body that has an object where `key_from` says", |_| {
            tool.call(arguments, Some("key"), &0.into()).map(drop)
        })?;
    }
    Ok(Some(tool))
}

/// Whether a key can be at this place of a call.
fn is_place(pointer: &str) -> bool {
    let parts: Vec<_> = pointer.split('/').collect();
    let is_free = |name: &str| !matches!(name, "" | "name" | "arguments" | "_meta" | "progressToken");
    match parts[..] {
        ["", "params", name] => is_free(name),
        ["", "params", "_meta", name] => is_free(name),
        ["", "params", "arguments", _, ..] => !pointer.ends_with('/'),
        _ => false,
    }
}
