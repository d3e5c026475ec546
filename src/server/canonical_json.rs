//! JSON in the one way in which RFC 8785 writes it.
//!
//! It is read into a tree of our own: `serde_json::Value` gives some member names a meaning, depending on features that other
//! crates switch on.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;

use serde::Serialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// How `serde_json` names the only member of a number, where its feature `arbitrary_precision` is on.
const NUMBER: &str = "$serde_json::private::Number";

/// The canonical form of `body`; `None` where it is not JSON, or where its form could be that of a text which means
/// something else: an object has a member twice, or the value of a number is not the one that RFC 8785 writes for it,
/// because a double does not hold it.
pub(super) fn canonical(body: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(body).ok()?;
    let read = Cell::new(0);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let json = Reader { numbers: &read }.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    let mut written = 0;
    let all_held = numbers(text).inspect(|_| written += 1).all(is_held);
    // Where there is another number of them, what was taken for a number was an object.
    (all_held && written == read.get()).then(|| serde_json_canonicalizer::to_vec(&json).ok())?
}

/// JSON of which every number is a double. In which order members stand is the canonicalizer's matter.
#[derive(Serialize)]
#[serde(untagged)]
enum Json {
    Null,
    Bool(bool),
    Number(f64),
    String(String),
    Array(Vec<Self>),
    Object(HashMap<String, Self>),
}

/// Reads JSON in which no object has a member twice, and counts its numbers.
#[derive(Clone, Copy)]
struct Reader<'a> {
    numbers: &'a Cell<usize>,
}

impl Reader<'_> {
    fn number(self, value: f64) -> Json {
        self.numbers.set(self.numbers.get() + 1);
        Json::Number(value)
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without repeated members")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    // What a double does not hold is found out by the digits.
    #[allow(clippy::cast_precision_loss, reason = "see above")]
    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(self.number(value as f64))
    }

    #[allow(clippy::cast_precision_loss, reason = "see above")]
    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(self.number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(self.number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(element) = elements.next_element_seed(self)? {
            array.push(element);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut object = HashMap::new();
        while let Some(name) = members.next_key::<String>()? {
            if name == NUMBER {
                let digits = members.next_value::<String>()?;
                return digits.parse().map(|value| self.number(value)).map_err(A::Error::custom);
            }
            if object.insert(name, members.next_value_seed(self)?).is_some() {
                return Err(A::Error::custom("a member is repeated"));
            }
        }
        Ok(Json::Object(object))
    }
}

/// The numbers in a text that is JSON.
fn numbers(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let begin = rest.find(|c: char| c == '"' || c == '-' || c.is_ascii_digit())?;
            rest = &rest[begin..];
            if let Some(string) = rest.strip_prefix('"') {
                rest = behind_string(string);
                continue;
            }
            let of_number = |c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E');
            let end = rest.find(|c| !of_number(c)).unwrap_or(rest.len());
            let (number, behind) = rest.split_at(end);
            rest = behind;
            return Some(number);
        }
    })
}

fn behind_string(string: &str) -> &str {
    let mut escaped = false;
    let end = string.find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    end.map_or("", |end| &string[end + 1..])
}

/// Whether a double holds the number, so that the canonical form has the same value.
fn is_held(number: &str) -> bool {
    let Ok(double) = number.parse::<f64>() else { return false };
    let Ok(canonical) = serde_json_canonicalizer::to_string(&double) else { return false };
    let value = decimal(number);
    value.is_some() && value == decimal(&canonical)
}

/// Sign, digits and power of ten of a number: one way to write each value.
fn decimal(number: &str) -> Option<(bool, String, i64)> {
    let (negative, number) = number.strip_prefix('-').map_or((false, number), |rest| (true, rest));
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Some((false, String::new(), 0));
    }
    let significant = digits.trim_end_matches('0');
    let zeros = i64::try_from(digits.len() - significant.len()).ok()?;
    let exponent = exponent.parse::<i64>().ok()?.checked_sub(i64::try_from(fraction.len()).ok()?)?;
    Some((negative, significant.to_owned(), exponent.checked_add(zeros)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn form(text: &str) -> Option<String> {
        canonical(text.as_bytes()).map(|form| String::from_utf8(form).unwrap())
    }

    #[test]
    fn the_same_json_has_one_form() {
        let same = [
            (r#"{ "b": 1.0, "a": [1e2, "\u0065"], "\u0063": null }"#, r#"{"a":[100,"e"],"b":1,"c":null}"#),
            (r#"{"amount": 19.99, "n": -0.0}"#, r#"{"amount":19.99,"n":0}"#),
            ("  [1E-7, 0.1, 9007199254740994] ", "[1e-7,0.1,9007199254740994]"),
            // By UTF-16 code units, as RFC 8785, section 3.2.3, wants it.
            ("{\"\u{fb33}\":1,\"\u{1f600}\":2}", "{\"\u{1f600}\":2,\"\u{fb33}\":1}"),
        ];
        for (text, expected) in same {
            assert_eq!(form(text).as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_could_mean_something_else_has_none() {
        let without = [
            "",
            "{",
            "{\"a\":1} x",
            "{'a':1}",
            "\u{feff}{}",
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"[{"x":{"a":1,"a":2}}]"#,
            "9007199254740993",
            "12345678901234567890",
            "0.10000000000000000555",
            "1e400",
            "1e-400",
            "1e99999999999999999999",
            r#""\ud800""#,
            // With a feature of serde_json's, a number comes as such an object.
            r#"{"$serde_json::private::Number":"5"}"#,
            r#"{"a":{"\u0024serde_json::private::Number":"5"},"b":6}"#,
        ];
        for text in without {
            assert_eq!(form(text), None, "{text}");
        }
        assert_eq!(canonical(b"\"\xff\""), None);
        assert_eq!(form(&format!("{}{}", "[".repeat(200), "]".repeat(200))), None, "too deep to be read");
    }

    #[test]
    fn members_that_serde_json_gives_a_meaning_have_none_here() {
        let raw = |inside: &str| format!("{{\"$serde_json::private::RawValue\":{}}}", serde_json::json!(inside));
        for inside in ["5", "{\"a\":1,\"a\":2}", "9007199254740993", "["] {
            assert_eq!(form(&raw(inside)), Some(raw(inside)), "{inside}");
        }
        let mut deep = "5".to_owned();
        for _ in 0..12 {
            deep = raw(&format!("{}{deep}{}", "[".repeat(100), "]".repeat(100)));
        }
        assert_eq!(form(&deep), Some(deep.clone()), "read no deeper than it is");
    }

    #[test]
    fn digits_in_strings_are_no_numbers() {
        let text = r#"{"9007199254740993":"9007199254740993 \" 1e400","a\\":1,"b":"-"}"#;
        assert_eq!(numbers(text).collect::<Vec<_>>(), ["1"]);
        assert!(form(text).is_some());
    }

    proptest! {
        #[test]
        fn what_has_one_form_is_the_same_value(number in "-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,24})?([eE][+-]?[0-9]{1,3})?") {
            // Compared as decimals, which no rounding touches.
            if let Some(form) = form(&number) {
                prop_assert_eq!(decimal(&form), decimal(&number));
            }
        }

        #[test]
        fn a_form_has_itself_as_its_form(value in any_json()) {
            if let Some(canonical) = form(&value.to_string()) {
                prop_assert_eq!(form(&canonical), Some(canonical.clone()));
                prop_assert_eq!(form(&serde_json::to_string_pretty(&value).unwrap()), Some(canonical));
            }
        }
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i32>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            ".{0,8}".prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::hash_map(".{0,4}", inner, 0..4)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }
}
