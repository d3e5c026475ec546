//! The canonical form of JSON (RFC 8785).
//!
//! `serde_json_canonicalizer` writes the canonical form of a tree that is read here. `serde_json::Value` is not used,
//! because it loses differences, and two different requests must not have one fingerprint:
//! 1. If an object has a member twice, it keeps the last one.
//! 2. It rounds a number that no double holds. So the digits of each number are compared with those of its canonical
//!    form.
//! 3. It gives some member names a meaning that depends on features that other crates switch on. With
//!    `arbitrary_precision`, a number is read as an object whose only member is called [`NUMBER`].

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::server::pointer::Pointer;

/// The name of a number's only member, if the feature `arbitrary_precision` of `serde_json` is on.
const NUMBER: &str = "$serde_json::private::Number";

/// Begins a form in which texts are marked. No JSON begins so.
const MARKED: u8 = b'~';

/// Returns the canonical form of `body` without these members, or `None` if no form is this value's alone: the body is
/// not JSON, or an object has a member twice. Nor has it one if no double holds the value of a number, unless members
/// are left out: the body's bytes have these, so such a number is compared by its digits.
pub(crate) fn canonical(body: &[u8], left_out: &[Pointer]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(body).ok()?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let mut json = Reader { rest: text }.deserialize(&mut deserializer).ok()?;
    // Only white space may follow.
    deserializer.end().ok()?;
    left_out.iter().for_each(|pointer| json.leave_out(&pointer.tokens));
    if left_out.is_empty() || !json.has_unheld() {
        return serde_json_canonicalizer::to_vec(&json).ok();
    }
    json.mark();
    let mut marked = vec![MARKED];
    serde_json_canonicalizer::to_writer(&json, &mut marked).ok()?;
    Some(marked)
}

/// JSON whose numbers are doubles. The canonicalizer sorts the members.
#[derive(Serialize)]
#[serde(untagged)]
enum Json {
    Null,
    Bool(bool),
    Number(f64),
    /// The digits of a number that no double holds. A value with one has no canonical form.
    #[serde(skip_serializing)]
    Unheld(String),
    String(String),
    Array(Vec<Self>),
    Object(HashMap<String, Self>),
}

impl Json {
    fn has_unheld(&self) -> bool {
        match self {
            Self::Unheld(_) => true,
            Self::Array(elements) => elements.iter().any(Self::has_unheld),
            Self::Object(members) => members.values().any(Self::has_unheld),
            _ => false,
        }
    }

    /// Makes texts of the numbers that no double holds, and marks all texts, so that none is taken for a number.
    fn mark(&mut self) {
        match self {
            Self::Unheld(digits) => *self = Self::String(format!("n{digits}")),
            Self::String(text) => text.insert(0, 's'),
            Self::Array(elements) => elements.iter_mut().for_each(Self::mark),
            Self::Object(members) => members.values_mut().for_each(Self::mark),
            Self::Null | Self::Bool(_) | Self::Number(_) => {}
        }
    }

    /// Removes the member to which these tokens lead, if it is there, and so the objects around it that are empty then.
    /// An element of an array becomes `null`, for others would take its place.
    fn leave_out(&mut self, tokens: &[String]) {
        match (self, tokens) {
            (Self::Object(members), [name]) => _ = members.remove(name),
            (Self::Object(members), [name, inside @ ..]) => {
                let Some(member) = members.get_mut(name) else { return };
                member.leave_out(inside);
                if matches!(member, Self::Object(left) if left.is_empty()) {
                    members.remove(name);
                }
            }
            (Self::Array(elements), [index, inside @ ..]) => {
                let element = Pointer::index(index).and_then(|index| elements.get_mut(index));
                element.into_iter().for_each(|element| match inside {
                    [] => *element = Self::Null,
                    _ => element.leave_out(inside),
                });
            }
            _ => {}
        }
    }
}

/// Reads JSON in which no object has a member twice and a double holds each number.
///
/// Each number is taken from the text, which has all its digits. If an object of the body itself has a member called
/// [`NUMBER`], a number is taken for that, too. Then the text has too few numbers, and the body has no canonical form.
struct Reader<'a> {
    /// The text after the last number that was taken.
    rest: &'a str,
}

impl<'a> Reader<'a> {
    /// Takes the next number of the text. `serde_json` may have rounded the one that it gives.
    fn number<E: Error>(&mut self) -> Result<Json, E> {
        let number = self.next_number().ok_or_else(|| E::custom("the text has fewer numbers"))?;
        Ok(held_by_double(number).map_or_else(|| Json::Unheld(number.to_owned()), Json::Number))
    }

    /// Returns the next number in the text, which is JSON.
    fn next_number(&mut self) -> Option<&'a str> {
        loop {
            // The next string is skipped, because digits in it are no number.
            let begin = self.rest.find(|c: char| c == '"' || c == '-' || c.is_ascii_digit())?;
            self.rest = &self.rest[begin..];
            if let Some(string) = self.rest.strip_prefix('"') {
                self.rest = behind_string(string);
                continue;
            }
            let of_number = |c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E');
            let end = self.rest.find(|c| !of_number(c)).unwrap_or(self.rest.len());
            let (number, behind) = self.rest.split_at(end);
            self.rest = behind;
            return Some(number);
        }
    }
}

impl<'de> DeserializeSeed<'de> for &mut Reader<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Reader<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without repeated members")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Json, E> {
        self.number()
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Json, E> {
        self.number()
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Json, E> {
        self.number()
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(element) = elements.next_element_seed(&mut *self)? {
            array.push(element);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut object = HashMap::new();
        while let Some(name) = members.next_key::<String>()? {
            if name == NUMBER {
                // With `arbitrary_precision`, this object is a number; its digits are taken from the text.
                members.next_value::<String>()?;
                return self.number();
            }
            if object.insert(name, members.next_value_seed(&mut *self)?).is_some() {
                return Err(A::Error::custom("a member is repeated"));
            }
        }
        Ok(Json::Object(object))
    }
}

/// Returns the text behind the closing quote of a string. `string` begins behind the opening one.
fn behind_string(string: &str) -> &str {
    let mut escaped = false;
    let end = string.find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    end.map_or("", |end| &string[end + 1..])
}

/// Returns the value of `number`, if a double holds it: its canonical form then has the same decimal digits.
fn held_by_double(number: &str) -> Option<f64> {
    let double = number.parse().ok()?;
    let canonical = serde_json_canonicalizer::to_string(&double).ok()?;
    (decimal(number)? == decimal(&canonical)?).then_some(double)
}

/// Returns whether a number is negative, its digits and its power of ten, or `None` if no `i64` holds the power. Each
/// value has one such form.
fn decimal(number: &str) -> Option<(bool, String, i64)> {
    let (negative, number) = number.strip_prefix('-').map_or((false, number), |rest| (true, rest));
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        // Zero, with a minus or without one.
        return Some((false, String::new(), 0));
    }
    let significant = digits.trim_end_matches('0');
    let zeros = i64::try_from(digits.len() - significant.len()).ok()?;
    let exponent = exponent.parse::<i64>().ok()?.checked_sub(i64::try_from(fraction.len()).ok()?)?;
    Some((negative, significant.to_owned(), exponent.checked_add(zeros)?))
}

#[cfg(test)]
mod tests {
    use arbtest::arbitrary::{Result, Unstructured};
    use arbtest::arbtest;
    use serde_json::Value;

    use super::*;

    fn form(text: &str) -> Option<String> {
        canonical(text.as_bytes(), &[]).map(|form| String::from_utf8(form).unwrap())
    }

    #[test]
    fn the_same_json_has_one_form() {
        let same = [
            (r#"{ "b": 1.0, "a": [1e2, "\u0065"], "\u0063": null }"#, r#"{"a":[100,"e"],"b":1,"c":null}"#),
            (r#"{"amount": 19.99, "n": -0.0}"#, r#"{"amount":19.99,"n":0}"#),
            ("  [1E-7, 0.1, 9007199254740994] ", "[1e-7,0.1,9007199254740994]"),
            // RFC 8785, section 3.2.3, sorts by UTF-16 code units.
            ("{\"\u{fb33}\":1,\"\u{1f600}\":2}", "{\"\u{1f600}\":2,\"\u{fb33}\":1}"),
        ];
        for (text, expected) in same {
            assert_eq!(form(text).as_deref(), Some(expected));
        }
    }

    #[test]
    fn members_are_left_out_where_they_are() {
        let without = |pointers: &[&str], text: &str| {
            let pointers: Vec<_> = pointers.iter().map(|text| Pointer::new(text).unwrap()).collect();
            String::from_utf8(canonical(text.as_bytes(), &pointers).unwrap()).unwrap()
        };
        let call = r#"{"id":7,"params":{"_meta":{"key":"k"},"amount":5,"id":1},"list":[{"id":1,"a":2},3]}"#;
        assert_eq!(
            without(
                &["/id", "/params/_meta/key", "/list/0/id", "/list/1", "/list/00", "/none/of/these", "/id/x"],
                call
            ),
            r#"{"list":[{"a":2},null],"params":{"amount":5,"id":1}}"#
        );
        // What has nothing else in it is as if it had not been sent, and a number that is left out may be any.
        let nested = r#"{"a":{"b":{"c":12345678901234567890}},"d":{}}"#;
        assert_eq!([without(&["/a/b/c"], nested), without(&["/a/b"], nested)], [r#"{"d":{}}"#; 2]);
        // One that stays is compared by its digits, and not taken for a text.
        assert_eq!(without(&["/d"], nested), r#"~{"a":{"b":{"c":"n12345678901234567890"}}}"#);
        let number = without(&["/id"], r#"{"id":1,"a":12345678901234567891,"b":"x"}"#);
        assert_eq!(number, without(&["/id"], r#"{"b":"x","id":2,"a":12345678901234567891}"#));
        for other in [r#"{"a":12345678901234567892,"b":"x"}"#, r#"{"a":"12345678901234567891","b":"x"}"#] {
            assert_ne!(number, without(&["/id"], other));
        }
        assert_eq!(canonical(nested.as_bytes(), &[]), None);
        assert_eq!(without(&["/id"], "[1]"), "[1]");
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
            // With a feature of `serde_json`, a number is read as such an object.
            r#"{"$serde_json::private::Number":"5"}"#,
            r#"{"$serde_json::private::Number":5}"#,
            r#"[{"$serde_json::private::Number":5},6]"#,
            r#"{"a":{"\u0024serde_json::private::Number":"5"},"b":6}"#,
        ];
        for text in without {
            assert_eq!(form(text), None, "{text}");
        }
        assert_eq!(canonical(b"\"\xff\"", &[]), None);
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
        let mut reader = Reader { rest: text };
        assert_eq!((reader.next_number(), reader.next_number()), (Some("1"), None));
        assert!(form(text).is_some());
    }

    /// Up to so many digits.
    fn any_digits(source: &mut Unstructured<'_>, most: u8) -> Result<String> {
        (0..source.int_in_range(1..=most)?).map(|_| Ok(char::from(source.int_in_range(b'0'..=b'9')?))).collect()
    }

    /// A number as JSON writes it.
    fn any_number(source: &mut Unstructured<'_>) -> Result<String> {
        let mut number = if source.arbitrary()? { "-".to_owned() } else { String::new() };
        let whole = any_digits(source, 25)?;
        let significant = whole.trim_start_matches('0');
        number += if significant.is_empty() { "0" } else { significant };
        if source.arbitrary()? {
            number = format!("{number}.{}", any_digits(source, 24)?);
        }
        if source.arbitrary()? {
            let (letter, sign) = (source.choose(&["e", "E"])?, source.choose(&["", "+", "-"])?);
            number = format!("{number}{letter}{sign}{}", any_digits(source, 3)?);
        }
        Ok(number)
    }

    /// Up to eight characters, of all that there are.
    fn any_text(source: &mut Unstructured<'_>) -> Result<String> {
        (0..source.int_in_range(0..=8_u8)?).map(|_| source.arbitrary::<char>()).collect()
    }

    fn any_json(source: &mut Unstructured<'_>, depth: u8) -> Result<Value> {
        let kinds = if depth == 0 { 5 } else { 7 };
        Ok(match source.int_in_range(1..=kinds)? {
            1 => Value::Null,
            2 => source.arbitrary::<bool>()?.into(),
            3 => source.arbitrary::<i32>()?.into(),
            4 => source.arbitrary::<f64>()?.into(),
            5 => any_text(source)?.into(),
            6 => (0..source.int_in_range(0..=3_u8)?).map(|_| any_json(source, depth - 1)).collect::<Result<_>>()?,
            _ => {
                let many = source.int_in_range(0..=3_u8)?;
                let members = (0..many).map(|_| Ok((any_text(source)?, any_json(source, depth - 1)?)));
                Value::Object(members.collect::<Result<_>>()?)
            }
        })
    }

    #[test]
    fn what_has_one_form_is_the_same_value() {
        arbtest(|source| {
            let number = any_number(source)?;
            // They are compared as decimals, which no rounding touches.
            if let Some(form) = form(&number) {
                assert_eq!(decimal(&form), decimal(&number));
            }
            Ok(())
        });
    }

    #[test]
    fn a_form_has_itself_as_its_form() {
        arbtest(|source| {
            let value = any_json(source, 3)?;
            if let Some(canonical) = form(&value.to_string()) {
                assert_eq!(form(&canonical), Some(canonical.clone()));
                assert_eq!(form(&serde_json::to_string_pretty(&value).unwrap()), Some(canonical));
            }
            Ok(())
        });
    }
}
