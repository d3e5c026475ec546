//! JSON that differs from a plan's in one detail.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The most depths at which a value is changed: the first ones, and the deepest.
const DEPTHS: usize = 8;

/// The most members that are left out, one after the other, and the most strings that are made long.
const MEMBERS: usize = 6;
const STRINGS: usize = 3;

/// What comes before a difference: more than some servers look at.
const BLANKS: usize = 9_000;
const LONG: usize = 1_100;

/// Returns the JSON with one detail changed, and what it is: a value at each depth in an object and in a list, the
/// order of a list, a type, the last digit of a number that no double holds, a member less, and all strings in other
/// letters or with a blank more.
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
        ("another last digit of a number that no double holds", found.big.as_deref(), same_double),
    ];
    let more =
        more.into_iter().filter_map(|(label, path, change)| Some((label.to_owned(), changed(&json, path?, change)?)));
    all.extend(more);
    all.extend(lesser(&json).map(|lesser| ("JSON without one of its members".to_owned(), lesser)));
    let texts = |label: &str, change: fn(&str) -> String| {
        let changed = with_texts(&json, change);
        (changed != json).then(|| (label.to_owned(), changed.to_string()))
    };
    all.extend(texts("strings in other letters", other_case));
    all.extend(texts("strings with a blank at their ends", |text| format!("{text} ")));
    all
}

/// Returns pairs of JSON that differ in one detail, and what it is. A server may refuse the first one of a pair; there
/// may be more pairs with the same detail.
pub(crate) fn pairs(body: &str) -> Vec<(&'static str, [String; 2])> {
    let Some((json, (_, other))) = serde_json::from_str(body).ok().zip(details(body).into_iter().next()) else {
        return Vec::new();
    };
    let blanks = " ".repeat(BLANKS);
    let mut pairs = vec![("a difference after 9,000 blanks", [format!("{blanks}{body}"), format!("{blanks}{other}")])];
    let mut found = Found::default();
    found.walk(&json, &mut String::new(), 0, false);
    for path in found.strings.iter().take(STRINGS) {
        let long = ["x", "y"].map(|end| {
            changed(&json, path, |text| Some(format!("{}{}{end}", text.as_str()?, "x".repeat(LONG)).into()))
        });
        if let [Some(one), Some(other)] = long {
            pairs.push(("a difference after 1,100 characters of a string", [one, other]));
        }
    }
    pairs.extend(lesser(&json).map(|lesser| ("JSON with a member more", [lesser, body.to_owned()])));
    pairs
}

/// The JSON without one of its members each.
fn lesser(json: &Value) -> impl Iterator<Item = String> {
    let members = json.as_object().filter(|members| members.len() > 1);
    let names = members.into_iter().flat_map(Map::keys).take(MEMBERS);
    names.filter_map(move |name| {
        let mut members = members?.clone();
        members.remove(name);
        Some(Value::Object(members).to_string())
    })
}

/// The JSON with each of its strings changed.
fn with_texts(json: &Value, change: fn(&str) -> String) -> Value {
    match json {
        Value::String(text) => change(text).into(),
        Value::Array(items) => items.iter().map(|item| with_texts(item, change)).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, value)| (name.clone(), with_texts(value, change))).collect()
        }
        _ => json.clone(),
    }
}

/// The text in capitals, or in small letters if it has capitals only.
fn other_case(text: &str) -> String {
    Some(text.to_uppercase()).filter(|upper| upper != text).unwrap_or_else(|| text.to_lowercase())
}

/// The next number whose double is the same.
fn same_double(value: &Value) -> Option<Value> {
    let number = value.as_u64()?;
    let next = [number.checked_sub(1), number.checked_add(1)].into_iter().flatten();
    next.map(Value::from).find(|next| next.as_f64() == value.as_f64())
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
    strings: Vec<String>,
    /// A number with a neighbour that is the same as a double.
    big: Option<String>,
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
        if value.is_string() {
            self.strings.push(path.to_owned());
        }
        if self.big.is_none() && same_double(value).is_some() {
            self.big = Some(path.to_owned());
        }
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
            // Beyond what a double counts in ones, one more is the same.
            (.., number) => [number? + 1.0, number? / 2.0].into_iter().find(|other| Some(*other) != number)?.into(),
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
    use super::{details, pairs};

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
            ("JSON without one of its members", r#"{"n":{"deep":{"on":true}},"tags":["x","y"],"z":null}"#),
            ("JSON without one of its members", r#"{"a/b":5,"tags":["x","y"],"z":null}"#),
            ("JSON without one of its members", r#"{"a/b":5,"n":{"deep":{"on":true}},"z":null}"#),
            ("JSON without one of its members", r#"{"a/b":5,"n":{"deep":{"on":true}},"tags":["x","y"]}"#),
            ("strings in other letters", r#"{"a/b":5,"n":{"deep":{"on":true}},"tags":["X","Y"],"z":null}"#),
            ("strings with a blank at their ends", r#"{"a/b":5,"n":{"deep":{"on":true}},"tags":["x ","y "],"z":null}"#),
        ];
        assert_eq!(details(body), expected.map(|(label, body)| (label.to_owned(), body.to_owned())));
        for body in ["", "amount=5", "5", "{}", r#"{"a":null}"#, "[[1,1]"] {
            assert_eq!(details(body), [], "{body}");
        }
        // A number gets another type rather than a string, and that rather than a truth value.
        for (body, typed) in [
            (r#"{"a":"x","b":5}"#, r#"{"a":"x","b":"5"}"#),
            (r#"{"a":true,"b":"x"}"#, r#"{"a":true,"b":["x"]}"#),
            (r#"{"a":5,"b":6}"#, r#"{"a":"5","b":6}"#),
            (r#"{"a":true}"#, r#"{"a":"true"}"#),
        ] {
            let found = details(body).into_iter().find(|(label, _)| label == "a value of another type");
            assert_eq!(found.unwrap().1, typed, "{body}");
        }
        // However deep a body is, it is sent a bounded number of times.
        let deep = format!("{}1{}", r#"{"a":"#.repeat(60), "}".repeat(60));
        assert_eq!(details(&deep).len(), 2);
        let wide = (0..60).fold("1".to_owned(), |inner, _| format!(r#"{{"v":[1,2],"a":{inner}}}"#));
        let labels: Vec<_> = details(&wide).into_iter().map(|(label, _)| label).collect();
        assert_eq!(labels.len(), 6 + 1 + 2 + 2, "{labels:?}");
    }

    // Each number, and each of its neighbours: no detail is the body itself.
    #[test]
    fn a_detail_is_never_the_same_json() {
        for (number, has_double) in [
            ("9007199254740993", true),
            ("9007199254740992", true),
            ("9007199254740994", false),
            ("18446744073709551615", true),
            ("-3", false),
            ("0.1", false),
            ("1e17", false),
            ("123456789012345678901234", false),
        ] {
            let body = format!(r#"{{"n":{number}}}"#);
            let json: serde_json::Value = serde_json::from_str(&body).unwrap();
            let details = details(&body);
            let read = |body: &str| serde_json::from_str::<serde_json::Value>(body).unwrap();
            assert!(details.iter().all(|(_, other)| read(other) != json), "{details:?}");
            assert_eq!(details.iter().any(|(label, _)| label.contains("double")), has_double, "{details:?}");
        }
    }

    #[test]
    fn a_pair_differs_in_what_comes_late_or_in_a_member_that_the_plan_has() {
        let found = pairs(r#"{"n":5,"s":"a","t":["b"]}"#);
        let of = |label: &str| -> Vec<_> {
            found.iter().filter(|(held, _)| held.contains(label)).map(|(_, pair)| pair).collect()
        };
        let [[one, other]] = of("blanks")[..] else { panic!("{found:?}") };
        assert_eq!(
            [one, other].map(|body| body.trim_start()),
            [r#"{"n":5,"s":"a","t":["b"]}"#, r#"{"n":6,"s":"a","t":["b"]}"#]
        );
        let long = of("string");
        assert_eq!(long.len(), 2);
        for [one, other] in long {
            let at = one.bytes().zip(other.bytes()).position(|(one, other)| one != other).unwrap();
            assert!(at > 1_024 && one.len() == other.len(), "{one}");
        }
        let less: Vec<_> = of("more").into_iter().map(|[one, _]| one.as_str()).collect();
        assert_eq!(less, [r#"{"s":"a","t":["b"]}"#, r#"{"n":5,"t":["b"]}"#, r#"{"n":5,"s":"a"}"#]);
        for body in ["", "amount=5", "{}", r#"{"a":null}"#] {
            assert_eq!(pairs(body), [], "{body}");
        }
    }
}
