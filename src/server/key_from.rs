//! A key in the body of a request: in a member of JSON, in a field of a form, or where a function finds it.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use percent_encoding::percent_decode_str;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::fingerprint::media_type::MediaType;
use super::header::lines;
use crate::key::{Key, KeyError};

/// Where the body of a request has its key: the option [`key_from`](crate::IdempotencyLayer::key_from).
///
/// It is read from a text as well, such as `json:/params/_meta/key` or `form:request_id`.
#[derive(Clone)]
pub struct KeyFrom {
    place: Place,
    /// Whether the body is compared without the key.
    is_left_out: bool,
}

#[derive(Clone)]
enum Place {
    /// The parts of a JSON pointer.
    Member(Arc<[String]>),
    Field(Arc<str>),
    Function(Arc<Find>),
}

type Find = dyn Fn(&Parts, &Bytes) -> Option<Key> + Send + Sync;

/// The text names no place in a body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} names no place of a key: write a JSON pointer as \"json:/params/key\", or a form's field as \"form:key\""
)]
pub struct NotAPlace(String);

/// The reason why what a body has in the place of a key is none. The client is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadKey {
    #[error("it has the place of the key twice, so it is not known which one counts; send it once")]
    Repeated,
    #[error("it has no text in the place of the key; send a JSON string")]
    NotText,
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// A key, and the bytes of the body that say so, if they are known.
type Found = Option<(Key, Option<Range<usize>>)>;

impl KeyFrom {
    /// The member of a JSON body to which a JSON pointer (RFC 6901) leads, such as `/params/_meta/key`. Its value has
    /// to be a string. `null` is no key. The `Content-Type` does not count.
    ///
    /// # Errors
    /// [`NotAPlace`] for a text that is no JSON pointer, or leads to the whole body.
    pub fn json_pointer(pointer: &str) -> Result<Self, NotAPlace> {
        let is_bad = |token: &str| token.split('~').skip(1).any(|rest| !rest.starts_with(['0', '1']));
        match pointer.strip_prefix('/') {
            Some(tokens) if !is_bad(tokens) => {
                let tokens = tokens.split('/').map(|token| token.replace("~1", "/").replace("~0", "~"));
                Ok(Self::at(Place::Member(tokens.collect())))
            }
            _ => Err(NotAPlace(pointer.to_owned())),
        }
    }

    /// The field of this name, in a body whose `Content-Type` is `application/x-www-form-urlencoded`.
    #[must_use]
    pub fn form_field(name: &str) -> Self {
        Self::at(Place::Field(name.into()))
    }

    /// What a function finds in head and body. It must return the same key for all tries of one operation.
    #[must_use]
    pub fn function(find: impl Fn(&Parts, &Bytes) -> Option<Key> + Send + Sync + 'static) -> Self {
        Self::at(Place::Function(Arc::new(find)))
    }

    /// Compares the body as if the key were not in it, with the comma or `&` that goes with it. Then a request with the
    /// key in its header alone is the same as one that has it in its body. Without this, it is another one (422
    /// `key-reused`). The key that a [function](Self::function) has found stays in.
    #[must_use]
    pub fn left_out(self) -> Self {
        Self { is_left_out: true, ..self }
    }

    fn at(place: Place) -> Self {
        Self { place, is_left_out: false }
    }

    /// Returns whether the body is compared without the key.
    pub(super) fn is_left_out(&self) -> bool {
        self.is_left_out
    }

    /// Finds the key of a request. A body in another form has none.
    pub(super) fn find(&self, parts: &Parts, body: &Bytes) -> Result<Found, BadKey> {
        match &self.place {
            Place::Member(tokens) => member(body, tokens),
            Place::Field(name) => {
                let mut types = lines(&parts.headers, CONTENT_TYPE).filter_map(MediaType::of);
                let is_form = types.next().is_some_and(|only| only.is_url_encoded()) && types.next().is_none();
                if is_form { field(body, name) } else { Ok(None) }
            }
            Place::Function(find) => Ok(find(parts, body).map(|key| (key, None))),
        }
    }

    /// Returns the body as it is compared. `at` is where it has the key.
    pub(super) fn compared(&self, body: &Bytes, at: Option<Range<usize>>) -> Bytes {
        let Some(at) = at.filter(|_| self.is_left_out) else { return body.clone() };
        let cut = match self.place {
            Place::Field(_) => with_separator(body, at, b'&'),
            Place::Member(_) | Place::Function(_) => with_separator(body, with_name(body, at), b','),
        };
        [&body[..cut.start], &body[cut.end..]].concat().into()
    }
}

impl FromStr for KeyFrom {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        match text.split_once(':') {
            Some(("json", pointer)) => Self::json_pointer(pointer),
            Some(("form", name)) if !name.is_empty() => Ok(Self::form_field(name)),
            _ => Err(NotAPlace(text.to_owned())),
        }
    }
}

impl fmt::Debug for KeyFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Member(tokens) => write!(f, "json:/{}", tokens.join("/"))?,
            Place::Field(name) => write!(f, "form:{name}")?,
            Place::Function(_) => f.write_str("a function")?,
        }
        f.write_str(if self.is_left_out { ", left out" } else { "" })
    }
}

/// Finds the key in the member of a JSON body to which these tokens lead.
fn member(body: &Bytes, tokens: &[String]) -> Result<Found, BadKey> {
    let mut value = match std::str::from_utf8(body).map(serde_json::from_str::<&RawValue>) {
        Ok(Ok(whole)) => whole,
        _ => return Ok(None),
    };
    for token in tokens {
        let found = match value.get().as_bytes().first() {
            Some(b'{') => {
                let mut members = serde_json::Deserializer::from_str(value.get());
                // What is inside is JSON: it was read before.
                MemberOf(token).deserialize(&mut members).map_err(|_| BadKey::Repeated)?
            }
            Some(b'[') => {
                let elements: Vec<&RawValue> = serde_json::from_str(value.get()).unwrap_or_default();
                // RFC 6901, section 4: no leading zeros.
                let index = token.parse::<usize>().ok().filter(|index| index.to_string() == *token);
                index.and_then(|index| elements.get(index).copied())
            }
            _ => None,
        };
        let Some(found) = found else { return Ok(None) };
        value = found;
    }
    match serde_json::from_str::<Option<Cow<'_, str>>>(value.get()) {
        Ok(Some(text)) => {
            let begin = value.get().as_ptr() as usize - body.as_ptr() as usize;
            Ok(Some((Key::new(&text)?, Some(begin..begin + value.get().len()))))
        }
        Ok(None) => Ok(None),
        Err(_) => Err(BadKey::NotText),
    }
}

/// Reads the value of an object's member with this name. It is an error if there are two.
struct MemberOf<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for MemberOf<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MemberOf<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = members.next_key::<Cow<'_, str>>()? {
            if name != self.0 {
                members.next_value::<IgnoredAny>()?;
            } else if found.replace(members.next_value()?).is_some() {
                return Err(A::Error::custom("a member is repeated"));
            }
        }
        Ok(found)
    }
}

/// Finds the key in the field of a form.
fn field(body: &Bytes, name: &str) -> Result<Found, BadKey> {
    let Ok(text) = std::str::from_utf8(body) else { return Ok(None) };
    // URL Standard, section 5.1: a plus is a blank.
    let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let (mut found, mut begin) = (None, 0);
    for pair in text.split('&') {
        let at = begin..begin + pair.len();
        begin = at.end + 1;
        let (its_name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if decoded(its_name) == name && found.replace((Key::new(&decoded(value))?, Some(at))).is_some() {
            return Err(BadKey::Repeated);
        }
    }
    Ok(found)
}

/// Returns where a member is whose value is here: with its name, unless it is an element of an array.
fn with_name(body: &[u8], value: Range<usize>) -> Range<usize> {
    let Some(name) = body[..value.start].trim_ascii_end().strip_suffix(b":").map(<[u8]>::trim_ascii_end) else {
        return value;
    };
    // The quote that opens the name is the last one before its end that no odd number of backslashes escapes.
    let escapes = |at: usize| body[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
    let opens = |at: &usize| body[*at] == b'"' && escapes(*at) % 2 == 0;
    let begin = (0..name.len().saturating_sub(1)).rev().find(opens);
    begin.unwrap_or(value.start)..value.end
}

/// Returns these bytes with the separator before them, or else with the one behind them.
fn with_separator(body: &[u8], at: Range<usize>, separator: u8) -> Range<usize> {
    let before = body[..at.start].trim_ascii_end();
    if before.last() == Some(&separator) {
        return before.len() - 1..at.end;
    }
    let behind = body[at.end..].trim_ascii_start();
    if behind.first() == Some(&separator) { at.start..body.len() - behind.len() + 1 } else { at }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(content_type: &str) -> Parts {
        http::Request::post("/").header(CONTENT_TYPE, content_type).body(()).unwrap().into_parts().0
    }

    /// Returns the key, and the body without it.
    fn found(place: &str, content_type: &str, body: &'static str) -> Result<Option<(String, String)>, BadKey> {
        let place: KeyFrom = place.parse().unwrap();
        let place = place.left_out();
        let body = Bytes::from_static(body.as_bytes());
        let found = place.find(&parts(content_type), &body)?;
        Ok(found.map(|(key, at)| {
            let rest = place.compared(&body, at);
            (key.as_str().to_owned(), String::from_utf8(rest.to_vec()).unwrap())
        }))
    }

    fn in_json(pointer: &str, body: &'static str) -> Result<Option<(String, String)>, BadKey> {
        found(&format!("json:{pointer}"), "application/json", body)
    }

    fn in_form(body: &'static str) -> Result<Option<(String, String)>, BadKey> {
        found("form:a key", "application/x-www-form-urlencoded", body)
    }

    #[test]
    fn a_pointer_leads_to_a_member_which_is_left_out_with_its_comma() {
        let cases = [
            ("/key", r#"{"key":"k"}"#, "{}"),
            ("/key", r#"{"a":1, "key" : "k" ,"b":2}"#, r#"{"a":1 ,"b":2}"#),
            ("/key", r#"{"\u006bey":"\u006b","b":2}"#, r#"{"b":2}"#),
            (
                "/params/_meta/key",
                r#" {"params":{"_meta":{"key":"k"},"key":"x"}} "#,
                r#" {"params":{"_meta":{},"key":"x"}} "#,
            ),
            ("/list/1", r#"{"list":["x","k","y"]}"#, r#"{"list":["x","y"]}"#),
            ("/a~1b/~0/", r#"{"a/b":{"~":{"":"k"}}}"#, r#"{"a/b":{"~":{}}}"#),
            ("/a\"\\", r#"{"x\"":1,"a\"\\":"k"}"#, r#"{"x\"":1}"#),
        ];
        for (pointer, body, rest) in cases {
            assert_eq!(in_json(pointer, body), Ok(Some(("k".to_owned(), rest.to_owned()))), "{body}");
        }
    }

    #[test]
    fn a_body_without_the_place_has_no_key() {
        for body in ["", "{", "[]", "\"key\"", r#"{"key":null}"#, r#"{"keys":"k"}"#, r#"{"a":{"key":"k"}}"#, "key=k"] {
            assert_eq!(in_json("/key", body), Ok(None), "{body}");
        }
        for (pointer, body) in
            [("/list/01", r#"{"list":["x","k"]}"#), ("/list/-", r#"{"list":["k"]}"#), ("/a/b", "{\"a\":1}")]
        {
            assert_eq!(in_json(pointer, body), Ok(None), "{body}");
        }
        assert_eq!(in_form("key=k"), Ok(None));
        assert_eq!(found("form:a key", "application/json", "a+key=k"), Ok(None));
    }

    #[test]
    fn a_field_of_a_form_is_decoded_and_left_out_with_its_ampersand() {
        for (body, rest) in
            [("a%20key=k", ""), ("a+key=%6b&b=2", "b=2"), ("b=2&a+key=k&c", "b=2&c"), ("b&a+key=k", "b")]
        {
            assert_eq!(in_form(body), Ok(Some(("k".to_owned(), rest.to_owned()))), "{body}");
        }
    }

    #[test]
    fn what_is_there_twice_or_is_no_key_is_an_error() {
        assert_eq!(in_json("/key", r#"{"key":"k","\u006bey":"k"}"#), Err(BadKey::Repeated));
        assert_eq!(in_json("/a/key", r#"{"a":{"key":"k"},"a":{}}"#), Err(BadKey::Repeated));
        assert_eq!(in_form("a+key=k&a%20key=k"), Err(BadKey::Repeated));
        for body in [r#"{"key":7}"#, r#"{"key":["k"]}"#, r#"{"key":false}"#, r#"{"key":{}}"#] {
            assert_eq!(in_json("/key", body), Err(BadKey::NotText), "{body}");
        }
        assert_eq!(in_json("/key", r#"{"key":" "}"#), Err(BadKey::Key(KeyError::Empty)));
        assert_eq!(in_form("a+key="), Err(BadKey::Key(KeyError::Empty)));
    }

    #[test]
    fn a_text_that_names_no_place_is_an_error() {
        for text in ["", "key", "/key", "json:", "json:key", "json:/~2", "json:/a~", "form:", "query:key"] {
            let error = KeyFrom::from_str(text).unwrap_err().to_string();
            assert!(error.contains("write a JSON pointer as \"json:/params/key\""), "{error}");
        }
        assert_eq!(format!("{:?}", KeyFrom::from_str("json:/a/b").unwrap().left_out()), "json:/a/b, left out");
    }
}
