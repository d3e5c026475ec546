//! Another request of the same kind: a body in which one number is another one, or JSON in which one detail is.

use std::collections::BTreeMap;

use serde_json::Value;

/// Returns the body with its first number raised by one, if it has one. JSON stays JSON, and a form a form.
pub(crate) fn other(body: &str) -> Option<String> {
    let mut begin = None;
    for (at, character) in body.char_indices().chain([(body.len(), ' ')]) {
        match begin {
            None if character.is_ascii_digit() && is_value(&body[..at]) => begin = Some(at),
            Some(begin) if !character.is_ascii_digit() => {
                let digits = &body[begin..at];
                // A longer one is no amount.
                let Ok(number) = digits.parse::<u64>() else { break };
                return Some(format!("{}{}{}", &body[..begin], number.saturating_add(1), &body[at..]));
            }
            _ => {}
        }
    }
    None
}

/// Whether a value may begin after this text, as in `{"amount":` and `amount=`.
fn is_value(before: &str) -> bool {
    before.is_empty() || before.trim_end().ends_with([':', '=', '[', ','])
}

/// The most depths at which a value is changed: the first ones, and the deepest.
const DEPTHS: usize = 8;

/// Returns the JSON with one detail changed, and what it is: a value at each depth in an object and in a list, the
/// order of a list, and a type.
pub(crate) fn details(body: &str) -> Vec<(String, String)> {
    let Some(json) = serde_json::from_str(body).ok().filter(|json: &Value| json.is_object() || json.is_array()) else {
        return Vec::new();
    };
    let mut found = Found::default();
    found.walk(&json, &mut String::new(), 0, false);
    let depths: Vec<_> = found.leaves.keys().map(|(depth, _)| *depth).collect();
    let deepest = depths.last().copied();
    let is_kept = |depth: usize| depth < DEPTHS || Some(depth) == deepest;
    let leaves = found.leaves.iter().filter(|((depth, _), _)| is_kept(*depth));
    let mut all: Vec<_> = leaves
        .filter_map(|((depth, is_item), path)| {
            let place = if *is_item { "in a list" } else { "in an object" };
            Some((format!("another value at depth {depth}, {place}"), changed(&json, path, other_value)?))
        })
        .collect();
    let more = [
        ("another order of a list", found.list.as_deref(), reversed as fn(&Value) -> Option<Value>),
        ("a value of another type", found.typed.as_ref().map(|(_, path)| path.as_str()), other_type),
    ];
    let more =
        more.into_iter().filter_map(|(label, path, change)| Some((label.to_owned(), changed(&json, path?, change)?)));
    all.extend(more);
    all
}

/// Where the values are that can be changed, as JSON Pointers.
#[derive(Default)]
struct Found {
    /// Of each depth, one in an object and one in a list. A number comes first: another one is likely to be valid.
    leaves: BTreeMap<(usize, bool), String>,
    ranks: BTreeMap<(usize, bool), u8>,
    /// A list whose order can be another one.
    list: Option<String>,
    /// The value that gets another type, and its rank.
    typed: Option<(u8, String)>,
}

impl Found {
    fn walk(&mut self, value: &Value, path: &mut String, depth: usize, is_item: bool) {
        if self.list.is_none() && reversed(value).is_some() {
            self.list = Some(path.clone());
        }
        let length = path.len();
        let members: Vec<(String, &Value)> = match value {
            Value::Object(members) => members.iter().map(|(name, value)| (escaped(name), value)).collect(),
            Value::Array(items) => items.iter().enumerate().map(|(at, value)| (at.to_string(), value)).collect(),
            _ => return self.leaf(value, path, depth, is_item),
        };
        for (name, member) in members {
            path.push('/');
            path.push_str(&name);
            self.walk(member, path, depth + 1, value.is_array());
            path.truncate(length);
        }
    }

    fn leaf(&mut self, value: &Value, path: &str, depth: usize, is_item: bool) {
        let rank = match value {
            Value::Number(_) => 3,
            Value::String(_) => 2,
            Value::Bool(_) => 1,
            _ => return,
        };
        let held = self.ranks.entry((depth, is_item)).or_default();
        if rank > *held {
            *held = rank;
            self.leaves.insert((depth, is_item), path.to_owned());
        }
        if self.typed.as_ref().is_none_or(|(held, _)| rank > *held) {
            self.typed = Some((rank, path.to_owned()));
        }
    }
}

/// A name as a part of a JSON Pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The JSON with the value at this place changed.
fn changed(json: &Value, path: &str, change: impl Fn(&Value) -> Option<Value>) -> Option<String> {
    let mut json = json.clone();
    let value = json.pointer_mut(path)?;
    *value = change(value)?;
    Some(json.to_string())
}

fn other_value(value: &Value) -> Option<Value> {
    Some(match value {
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(number), ..) => number.checked_add(1).unwrap_or(number - 1).into(),
            (_, Some(number), _) => (number + 1).into(),
            (.., number) => (number? + 1.0).into(),
        },
        Value::String(text) => format!("{text}x").into(),
        Value::Bool(is) => (!is).into(),
        _ => return None,
    })
}

/// The list with its order reversed, unless that is the same list.
fn reversed(value: &Value) -> Option<Value> {
    let mut items = value.as_array()?.clone();
    items.reverse();
    Some(Value::Array(items)).filter(|reversed| reversed != value)
}

/// A number or a truth value as a string, and a string as a list of it.
fn other_type(value: &Value) -> Option<Value> {
    match value {
        Value::Number(_) | Value::Bool(_) => Some(value.to_string().into()),
        Value::String(_) => Some(vec![value.clone()].into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{details, other};

    #[test]
    fn one_detail_of_json_is_another_one() {
        let body = r#"{"a/b":5,"n":{"deep":{"on":true}},"tags":["x","y"],"z":null}"#;
        let expected = [
            (
                "another value at depth 1, in an object",
                r#"{"a/b":6,"n":{"deep":{"on":true}},"tags":["x","y"],"z":null}"#,
            ),
            ("another value at depth 2, in a list", r#"{"a/b":5,"n":{"deep":{"on":true}},"tags":["xx","y"],"z":null}"#),
            (
                "another value at depth 3, in an object",
                r#"{"a/b":5,"n":{"deep":{"on":false}},"tags":["x","y"],"z":null}"#,
            ),
            ("another order of a list", r#"{"a/b":5,"n":{"deep":{"on":true}},"tags":["y","x"],"z":null}"#),
            ("a value of another type", r#"{"a/b":"5","n":{"deep":{"on":true}},"tags":["x","y"],"z":null}"#),
        ];
        assert_eq!(details(body), expected.map(|(label, body)| (label.to_owned(), body.to_owned())));
        for body in ["", "amount=5", "5", "{}", r#"{"a":null}"#, "[[1,1]"] {
            assert_eq!(details(body), [], "{body}");
        }
        // However deep a body is, it is sent a bounded number of times.
        let deep = format!("{}1{}", r#"{"a":"#.repeat(60), "}".repeat(60));
        assert_eq!(details(&deep).len(), 2);
        let wide = (0..60).fold("1".to_owned(), |inner, _| format!(r#"{{"v":[1,2],"a":{inner}}}"#));
        let labels: Vec<_> = details(&wide).into_iter().map(|(label, _)| label).collect();
        assert_eq!(labels.len(), 6 + 1 + 2, "{labels:?}");
    }

    #[test]
    fn one_number_is_another_one() {
        for (body, expected) in [
            ("amount=5&currency=usd", Some("amount=6&currency=usd")),
            (r#"{"id":"a1","amount": 99}"#, Some(r#"{"id":"a1","amount": 100}"#)),
            ("7", Some("8")),
            ("name=alice", None),
            ("", None),
        ] {
            assert_eq!(other(body).as_deref(), expected, "{body}");
        }
    }
}
