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
mod tests;
