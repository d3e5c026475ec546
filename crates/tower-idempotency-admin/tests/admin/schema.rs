//! As much of JSON Schema as the API's description uses. A word that is not known fails.

use serde_json::{Map, Value};

/// Returns what in `value` is not as `schema` says; references are looked up in `document`.
pub(crate) fn violations(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let schema = resolved(document, schema);
    let Some(rules) = schema.as_object() else { return vec![format!("{at}: {schema} is no schema")] };
    let mut found = Vec::new();
    for (rule, says) in rules {
        let is_kept = match rule.as_str() {
            "description" | "format" => true,
            "type" => types(says).any(|name| is_of(value, name)),
            "enum" => says.as_array().is_some_and(|values| values.contains(value)),
            "pattern" => value.as_str().is_none_or(|text| matches(says, text)),
            "minimum" => value.as_i64().is_none_or(|number| says.as_i64() <= Some(number)),
            "maximum" => value.as_i64().is_none_or(|number| says.as_i64() >= Some(number)),
            "minItems" => value.as_array().is_none_or(|items| says.as_u64() <= Some(items.len() as u64)),
            "maxItems" => value.as_array().is_none_or(|items| says.as_u64() >= Some(items.len() as u64)),
            "minLength" | "maxLength" => true,
            "anyOf" => {
                let mut ways = says.as_array().into_iter().flatten();
                ways.any(|way| violations(document, way, value, at).is_empty())
            }
            "items" => {
                for (number, item) in value.as_array().into_iter().flatten().enumerate() {
                    found.extend(violations(document, says, item, &format!("{at}[{number}]")));
                }
                true
            }
            "required" => value.as_object().is_none_or(|members| {
                says.as_array()
                    .into_iter()
                    .flatten()
                    .all(|name| name.as_str().is_some_and(|name| members.contains_key(name)))
            }),
            "properties" | "additionalProperties" => {
                found
                    .extend(value.as_object().into_iter().flat_map(|members| of_members(document, rules, members, at)));
                true
            }
            other => panic!("the description has {other}, which this does not check"),
        };
        if !is_kept {
            found.push(format!("{at}: {value} against {rule}: {says}"));
        }
    }
    found
}

/// Checks the members of an object that `properties` names, and the others.
fn of_members(document: &Value, rules: &Map<String, Value>, members: &Map<String, Value>, at: &str) -> Vec<String> {
    let named = rules.get("properties").and_then(Value::as_object);
    let others = rules.get("additionalProperties");
    let one = |(name, member): (&String, &Value)| {
        let at = format!("{at}.{name}");
        match (named.and_then(|named| named.get(name)), others) {
            (Some(schema), _) => violations(document, schema, member, &at),
            (None, Some(Value::Bool(false))) => vec![format!("{at} is not described")],
            (None, Some(schema @ Value::Object(_))) => violations(document, schema, member, &at),
            (None, _) => Vec::new(),
        }
    };
    members.iter().flat_map(one).collect()
}

/// What a reference leads to, with the words next to it.
pub(crate) fn resolved(document: &Value, schema: &Value) -> Value {
    let Some(path) = schema["$ref"].as_str() else { return schema.clone() };
    let found = document.pointer(path.trim_start_matches('#')).unwrap_or_else(|| panic!("{path} leads nowhere"));
    let mut found = resolved(document, found);
    for (name, value) in schema.as_object().into_iter().flatten().filter(|(name, _)| *name != "$ref") {
        found[name] = value.clone();
    }
    found
}

fn types(says: &Value) -> impl Iterator<Item = &str> {
    let several = says.as_array().into_iter().flatten().filter_map(Value::as_str);
    says.as_str().into_iter().chain(several)
}

fn is_of(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type is called {other}"),
    }
}

/// The three patterns of the description.
fn matches(pattern: &Value, text: &str) -> bool {
    let is_hex = || text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    match pattern.as_str() {
        Some("^[0-9a-f]{64}$") => text.len() == 64 && is_hex(),
        Some("^[0-9a-f]{32}$") => text.len() == 32 && is_hex(),
        Some("^[0-9]+$") => !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()),
        other => panic!("{other:?} is not checked"),
    }
}
