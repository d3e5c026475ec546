//! JSON that differs from a plan's in one detail.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The most depths at which a value is changed: the first ones, and the deepest.
const DEPTHS: usize = 8;

/// The most members that are left out, one after the other, and the most lists and strings that are changed alone.
const MEMBERS: usize = 6;
const ALONE: usize = 4;

/// What comes before a difference: more than some servers look at.
const BLANKS: usize = 9_000;
const LONG: usize = 1_100;

/// What a string has at its end, so that it can be written in another way: two blanks and a letter with its accent.
const END: &str = "  \u{e9}";

/// Returns the JSON with one detail changed, and what it is: a value at each depth in an object and in a list, the
/// order and the items of a list, a type, the last digit of a number that no double holds, a member less, and all
/// strings in other letters or with a character more.
pub(crate) fn details(body: &str) -> Vec<(String, String)> {
    let Some(json) = serde_json::from_str(body).ok().filter(|json: &Value| json.is_object() || json.is_array()) else {
        return Vec::new();
    };
    let places = places(&json);
    // Of each depth, one in an object and one in a list.
    let mut leaves = BTreeMap::new();
    for place in KINDS.iter().flat_map(|is| places.iter().filter(|place| is(place.value))) {
        leaves.entry((place.depth, place.is_item)).or_insert(place);
    }
    let deepest = leaves.keys().last().map(|(depth, _)| *depth);
    leaves.retain(|(depth, _), _| *depth < DEPTHS || Some(*depth) == deepest);
    let mut all = Vec::new();
    for ((depth, is_item), place) in leaves {
        let label = format!("another value at depth {depth}, {}", if is_item { "in a list" } else { "in an object" });
        all.extend(changed(&json, place, other_value).map(|body| (label, body)));
    }
    let lists = places.iter().filter(|place| place.value.is_array()).take(ALONE);
    // The first value of each kind gets other types.
    let typed = KINDS.iter().filter_map(|is| places.iter().find(|place| is(place.value)));
    for place in lists.chain(typed) {
        for (label, other) in others(place.value).into_iter().filter(|(_, other)| other != place.value) {
            all.extend(changed(&json, place, |_| Some(other.clone())).map(|body| (label.to_owned(), body)));
        }
    }
    let digit = "another last digit of a number that no double holds";
    let big = places.iter().find_map(|place| changed(&json, place, same_double));
    all.extend(big.map(|body| (digit.to_owned(), body)));
    all.extend(lesser(&json).map(|lesser| ("JSON without one of its members".to_owned(), lesser)));
    let texts = |label: &str, change: fn(&str) -> String| {
        let changed = with_texts(&json, change);
        (changed != json).then(|| (label.to_owned(), changed.to_string()))
    };
    all.extend(texts("strings in other letters", other_case));
    all.extend(texts("strings with a blank at their ends", |text| format!("{text} ")));
    all.extend(texts("strings with a blank before them", |text| format!(" {text}")));
    all.extend(texts("strings with a character that is not seen", |text| format!("{text}\u{200b}")));
    all.extend(texts("strings in letters of full width", |text| text.chars().map(wide).collect()));
    all
}

/// JSON, and what differs from it in one detail each, with that detail.
type Group = (String, Vec<(&'static str, String)>);

/// Returns JSON with what differs from it in one detail. A server may refuse the first one of a group; there may be
/// more groups with the same details.
pub(crate) fn groups(body: &str) -> Vec<Group> {
    let Some((json, (_, other))) = serde_json::from_str(body).ok().zip(details(body).into_iter().next()) else {
        return Vec::new();
    };
    let blanks = " ".repeat(BLANKS);
    let late = vec![("a difference after 9,000 blanks", format!("{blanks}{other}"))];
    let mut groups = vec![(format!("{blanks}{body}"), late)];
    for place in places(&json).iter().filter(|place| place.value.is_string()).take(ALONE) {
        let ended = |end: &str| changed(&json, place, |text| Some(format!("{}{end}", text.as_str()?).into()));
        let (one, other) = (format!("{}x", "x".repeat(LONG)), format!("{}y", "x".repeat(LONG)));
        let long = [("a difference after 1,100 characters of a string", other.as_str())];
        // With its accent by itself, it is the same letter to Unicode, and not the same text.
        let forms = [
            ("a string with a blank less between its words", " \u{e9}"),
            ("a string with a letter less its accent", "  e"),
            ("a string with a letter in another form of Unicode", "  e\u{301}"),
        ];
        for (end, others) in [(one.as_str(), &long[..]), (END, &forms)] {
            let others = others.iter().filter_map(|(label, end)| Some((*label, ended(end)?))).collect();
            groups.extend(ended(end).map(|first| (first, others)));
        }
    }
    groups.extend(lesser(&json).map(|lesser| (lesser, vec![("JSON with a member more", body.to_owned())])));
    groups
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

/// The kinds of values that can be changed. A number comes first: another one is likely to be valid.
const KINDS: [fn(&Value) -> bool; 3] = [Value::is_number, Value::is_string, Value::is_boolean];

/// A value, and where it is.
struct Place<'a> {
    /// As a JSON Pointer.
    path: String,
    depth: usize,
    is_item: bool,
    value: &'a Value,
}

/// All values of the JSON, each before those in it.
fn places(json: &Value) -> Vec<Place<'_>> {
    fn walk<'a>(place: Place<'a>, places: &mut Vec<Place<'a>>) {
        let (path, depth, is_item) = (place.path.clone(), place.depth + 1, place.value.is_array());
        let members: Vec<(String, &Value)> = match place.value {
            Value::Object(members) => members.iter().map(|(name, value)| (escaped(name), value)).collect(),
            Value::Array(items) => items.iter().enumerate().map(|(at, value)| (at.to_string(), value)).collect(),
            _ => Vec::new(),
        };
        places.push(place);
        for (name, value) in members {
            walk(Place { path: format!("{path}/{name}"), depth, is_item, value }, places);
        }
    }
    let mut places = Vec::new();
    walk(Place { path: String::new(), depth: 0, is_item: false, value: json }, &mut places);
    places
}

/// A name as a part of a JSON Pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The JSON with the value at this place changed.
fn changed(json: &Value, place: &Place<'_>, change: impl Fn(&Value) -> Option<Value>) -> Option<String> {
    let other = change(place.value)?;
    let mut json = json.clone();
    *json.pointer_mut(&place.path)? = other;
    Some(json.to_string())
}

fn other_value(value: &Value) -> Option<Value> {
    Some(match value {
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(number), ..) => number.checked_add(1).unwrap_or_else(|| number - 1).into(),
            (_, Some(number), _) => (number + 1).into(),
            // Beyond what a double counts in ones, one more is the same.
            (.., number) => [number? + 1.0, number? / 2.0].into_iter().find(|other| Some(*other) != number)?.into(),
        },
        Value::String(text) => format!("{text}x").into(),
        Value::Bool(is) => (!is).into(),
        _ => return None,
    })
}

/// What a server takes for the value that compares lists as sets, or types loosely.
fn others(value: &Value) -> Vec<(&'static str, Value)> {
    match value {
        Value::Number(number) => vec![
            ("a number as a string", number.to_string().into()),
            ("a number as a truth value", (number.as_f64() != Some(0.0)).into()),
        ],
        // Some languages take a text without digits for zero.
        Value::String(text) => vec![
            ("a string as a number", text.parse().unwrap_or(0_u64).into()),
            ("a string as a truth value", (!text.is_empty()).into()),
            ("a string as a list of it", vec![value.clone()].into()),
        ],
        Value::Bool(is) => vec![
            ("a truth value as a string", is.to_string().into()),
            ("a truth value as a number", u8::from(*is).into()),
        ],
        Value::Array(items) => vec![
            ("another order of a list", items.iter().rev().cloned().collect()),
            ("a list with its last item twice", items.iter().chain(items.last()).cloned().collect()),
            ("a list with an item less", items.iter().take(items.len().saturating_sub(1)).cloned().collect()),
        ],
        _ => Vec::new(),
    }
}

/// The letter as wide as one of Chinese, which is the same letter to some servers.
fn wide(letter: char) -> char {
    char::from_u32(u32::from(letter) + 0xfee0).filter(|_| letter.is_ascii_graphic()).unwrap_or(letter)
}

#[cfg(test)]
mod tests {
    use super::{details, groups};

    #[test]
    fn one_detail_of_json_is_another_one() {
        let body = r#"{"a/b":5,"n":{"deep":{"on":true}},"tags":["x","y"],"z":null}"#;
        let expected = [
            ("another value at depth 1, in an object", r#""a/b":5"#, r#""a/b":6"#),
            ("another value at depth 2, in a list", r#"["x","#, r#"["xx","#),
            ("another value at depth 3, in an object", "true", "false"),
            ("another order of a list", r#"["x","y"]"#, r#"["y","x"]"#),
            ("a list with its last item twice", r#","y"]"#, r#","y","y"]"#),
            ("a list with an item less", r#","y"]"#, "]"),
            ("a number as a string", r#""a/b":5"#, r#""a/b":"5""#),
            ("a number as a truth value", r#""a/b":5"#, r#""a/b":true"#),
            ("a string as a number", r#"["x""#, "[0"),
            ("a string as a truth value", r#"["x""#, "[true"),
            ("a string as a list of it", r#"["x""#, r#"[["x"]"#),
            ("a truth value as a string", "true", r#""true""#),
            ("a truth value as a number", "true", "1"),
            ("JSON without one of its members", r#""a/b":5,"#, ""),
            ("JSON without one of its members", r#""n":{"deep":{"on":true}},"#, ""),
            ("JSON without one of its members", r#""tags":["x","y"],"#, ""),
            ("JSON without one of its members", r#","z":null"#, ""),
            ("strings in other letters", r#""x","y""#, r#""X","Y""#),
            ("strings with a blank at their ends", r#""x","y""#, r#""x ","y ""#),
            ("strings with a blank before them", r#""x","y""#, r#"" x"," y""#),
            ("strings with a character that is not seen", r#""x","y""#, "\"x\u{200b}\",\"y\u{200b}\""),
            ("strings in letters of full width", r#""x","y""#, "\"\u{ff58}\",\"\u{ff59}\""),
        ];
        let expected: Vec<_> =
            expected.into_iter().map(|(label, from, to)| (label.to_owned(), body.replace(from, to))).collect();
        assert_eq!(details(body), expected);
        for body in ["", "amount=5", "5", "{}", r#"{"a":null}"#, "[[1,1]"] {
            assert_eq!(details(body), [], "{body}");
        }
        // Of each kind, the first one gets other types: 0, and no text, are false.
        for (body, label, typed) in [
            (r#"{"a":0,"b":5}"#, "a number as a truth value", r#"{"a":false,"b":5}"#),
            (r#"{"a":"","b":"x"}"#, "a string as a truth value", r#"{"a":false,"b":"x"}"#),
            (r#"{"a":"7"}"#, "a string as a number", r#"{"a":7}"#),
            (r#"{"a":false}"#, "a truth value as a number", r#"{"a":0}"#),
            (r#"{"a":[1]}"#, "a list with its last item twice", r#"{"a":[1,1]}"#),
        ] {
            let found = details(body).into_iter().find(|(held, _)| held == label);
            assert_eq!(found.unwrap().1, typed, "{body}");
        }
        // However deep a body is, it is sent a bounded number of times.
        let deep = format!("{}1{}", r#"{"a":"#.repeat(60), "}".repeat(60));
        assert_eq!(details(&deep).len(), 1 + 2, "{:?}", details(&deep));
        let wide = (0..60).fold("1".to_owned(), |inner, _| format!(r#"{{"v":[1,2],"a":{inner}}}"#));
        let labels: Vec<_> = details(&wide).into_iter().map(|(label, _)| label).collect();
        assert_eq!(labels.len(), 6 + 1 + 3 * super::ALONE + 2 + 2, "{labels:?}");
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
    fn what_differs_in_a_group_comes_late_or_in_another_form_or_in_a_member_that_the_plan_has() {
        let found = groups(r#"{"n":5,"s":"a","t":["b"]}"#);
        let of = |label: &str| -> Vec<[&str; 2]> {
            let all = found.iter().flat_map(|(one, others)| others.iter().map(move |other| (one, other)));
            all.filter(|(_, (held, _))| held.contains(label)).map(|(one, (_, other))| [one.as_str(), other]).collect()
        };
        let [pair] = of("9,000 blanks")[..] else { panic!("{found:?}") };
        assert_eq!(
            pair.map(|body| body.trim_start()),
            [r#"{"n":5,"s":"a","t":["b"]}"#, r#"{"n":6,"s":"a","t":["b"]}"#]
        );
        let long = of("1,100");
        assert_eq!(long.len(), 2);
        for [one, other] in long {
            let at = one.bytes().zip(other.bytes()).position(|(one, other)| one != other).unwrap();
            assert!(at > 1_024 && one.len() == other.len(), "{one}");
        }
        for (label, end) in [("a blank less", " \u{e9}"), ("its accent", "  e"), ("another form", "  e\u{301}")] {
            let expected = [["a  \u{e9}", "b"], ["a", "b  \u{e9}"]];
            let pairs = of(label);
            assert_eq!(pairs.len(), expected.len(), "{found:?}");
            for ([one, other], [s, t]) in pairs.into_iter().zip(expected) {
                assert_eq!(one, format!(r#"{{"n":5,"s":"{s}","t":["{t}"]}}"#));
                assert_eq!(other, one.replace("  \u{e9}", end));
            }
        }
        let less: Vec<_> = of("more").into_iter().map(|[one, _]| one).collect();
        assert_eq!(less, [r#"{"s":"a","t":["b"]}"#, r#"{"n":5,"t":["b"]}"#, r#"{"n":5,"s":"a"}"#]);
        for body in ["", "amount=5", "{}", r#"{"a":null}"#] {
            assert_eq!(groups(body), [], "{body}");
        }
    }
}
