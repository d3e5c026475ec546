//! A key in the body of a request: in a member of JSON, in a field of a form, or where a function finds it.
//!
//! A service must not read a key where this module has read none, for it would run twice. So a body that can't be read
//! for sure is refused: one that another parser may read otherwise, or that is encoded.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use percent_encoding::percent_decode;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::fingerprint::media_type::MediaType;
use super::header::{KeyForm, lines};
use super::pointer::{NotAPlace, Pointer};
use super::reject::reasons;
use super::reject::rejection::Rejection;
use crate::key::{Key, KeyError};

/// Where the body of a request has its key: the option [`key_from`](crate::IdempotencyLayer::key_from).
///
/// It is read from a text as well, such as `json:/params/_meta/key` or `form:request_id`; several places are divided by
/// a blank. Two of them that have different keys refuse the request.
#[derive(Clone)]
pub struct KeyFrom(Arc<[Place]>);

#[derive(Clone)]
enum Place {
    Member(Pointer),
    Field(Arc<str>),
    Function(Arc<Find>),
}

type Find = dyn Fn(&Parts, &Bytes) -> Result<Option<Key>, Rejection> + Send + Sync;

/// The reason why the key of a body is not known. The client is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadKey {
    #[error("it is not JSON in UTF-8")]
    NotJson,
    #[error("it is no message of JSON-RPC: send one JSON object, in which each member is once")]
    NotRpc,
    #[error("it is an array, such as a batch of JSON-RPC; send each element by itself")]
    Batch,
    #[error("its Content-Type is not application/x-www-form-urlencoded")]
    NotAForm,
    #[error("it has a semicolon, at which some servers divide the fields of a form; write it as %3B")]
    Semicolon,
    #[error("it has a Content-Encoding; send it without one")]
    Encoded,
    #[error("it has the place of the key twice, so it is not known which one counts; send it once")]
    Repeated,
    #[error("it has no text in the place of the key; send a JSON string")]
    NotText,
    #[error("it is no UUID of version 7 in its 36 characters (RFC 9562)")]
    NotUuidV7,
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl KeyFrom {
    /// The member of a JSON body to which a JSON pointer (RFC 6901) leads, such as `/params/_meta/key`. Its value has
    /// to be a string. A request whose body is empty, or has no such member or `null` in it, has no key there.
    ///
    /// Each other body is refused (400 `key-malformed`) if it is not JSON (RFC 8259), names a member on the way twice,
    /// or is an array, unless the pointer leads into one. The `Content-Type` does not count. Names are compared
    /// exactly: a service that reads `Key` as `key` should set
    /// [`require_key`](crate::IdempotencyLayer::require_key), too.
    ///
    /// # Errors
    /// [`NotAPlace`] for a text that is no JSON pointer, or leads to the whole body.
    pub fn json_pointer(pointer: &str) -> Result<Self, NotAPlace> {
        Pointer::new(pointer).map(|pointer| Self::of(Place::Member(pointer)))
    }

    /// The field of this name in a form. A request whose body is empty, or has no such field, has no key there. A body
    /// whose `Content-Type` is not `application/x-www-form-urlencoded` is refused (400 `key-malformed`), and so is one
    /// that has the field twice, or a `;`, which is `%3B` in such a form (URL Standard, section 5.2).
    #[must_use]
    pub fn form_field(name: &str) -> Self {
        Self::of(Place::Field(name.into()))
    }

    /// What a function finds in head and body. It must return the same key for all tries of one operation, `None` for a
    /// request that needs no protection, and a [rejection](Rejection::custom) for one that it can't read.
    #[must_use]
    pub fn function(find: impl Fn(&Parts, &Bytes) -> Result<Option<Key>, Rejection> + Send + Sync + 'static) -> Self {
        Self::of(Place::Function(Arc::new(find)))
    }

    /// Several places. A key may be in each of them, as protocols disagree where; two different keys refuse the request
    /// (422 `key-reused`).
    #[must_use]
    pub fn any_of(places: impl IntoIterator<Item = Self>) -> Self {
        Self(places.into_iter().flat_map(|places| places.0.to_vec()).collect())
    }

    fn of(place: Place) -> Self {
        Self(Arc::new([place]))
    }

    /// Returns whether both are the same value, or none.
    pub(super) fn are_same(one: Option<&Self>, other: Option<&Self>) -> bool {
        match (one, other) {
            (Some(one), Some(other)) => Arc::ptr_eq(&one.0, &other.0),
            (one, other) => one.is_none() && other.is_none(),
        }
    }

    /// Finds the key of a request, which has to have this form.
    pub(super) fn find(&self, parts: &Parts, body: &Bytes, form: KeyForm) -> Result<Option<Key>, Rejection> {
        let mut only: Option<Key> = None;
        for place in self.0.iter() {
            let found = place.find(parts, body)?;
            let found = found.and_then(|key| key.map(|key| form.of(key).ok_or(BadKey::NotUuidV7)).transpose());
            let Some(key) = found.map_err(|error| reasons::key_in_body_malformed(&error))? else { continue };
            if only.get_or_insert_with(|| key.clone()) != &key {
                return Err(reasons::keys_in_body_differ(self));
            }
        }
        Ok(only)
    }
}

impl Place {
    fn find(&self, parts: &Parts, body: &Bytes) -> Result<Result<Option<Key>, BadKey>, Rejection> {
        Ok(match self {
            Self::Function(find) => Ok(find(parts, body)?),
            _ if body.trim_ascii().is_empty() => Ok(None),
            _ if is_encoded(parts) => Err(BadKey::Encoded),
            Self::Member(pointer) => member(body, &pointer.tokens),
            Self::Field(_) if body.contains(&b';') => Err(BadKey::Semicolon),
            Self::Field(name) if is_form(parts) => field(body, name),
            Self::Field(_) => Err(BadKey::NotAForm),
        })
    }
}

impl FromStr for KeyFrom {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        // A place may have blanks itself.
        let next = [" json:/", " form:"].into_iter().filter_map(|next| text.find(next)).min();
        if let Some((first, others)) = next.map(|at| (&text[..at], &text[at + 1..])) {
            return Ok(Self::any_of([first.parse()?, others.parse()?]));
        }
        // A name with a blank at an end would find nothing, so that each request would run.
        match text.split_once(':').filter(|(_, place)| *place == place.trim()) {
            Some(("json", pointer)) => Self::json_pointer(pointer),
            Some(("form", name)) if !name.is_empty() => Ok(Self::form_field(name)),
            _ => Err(NotAPlace(text.to_owned())),
        }
    }
}

impl fmt::Debug for KeyFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, place) in self.0.iter().enumerate() {
            f.write_str(if number == 0 { "" } else { " " })?;
            match place {
                Place::Member(pointer) => write!(f, "json:{}", pointer.text)?,
                Place::Field(name) => write!(f, "form:{name}")?,
                Place::Function(_) => f.write_str("a function")?,
            }
        }
        Ok(())
    }
}

fn is_encoded(parts: &Parts) -> bool {
    lines(&parts.headers, CONTENT_ENCODING).any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn is_form(parts: &Parts) -> bool {
    let mut types = lines(&parts.headers, CONTENT_TYPE).map(MediaType::of);
    types.next().flatten().is_some_and(|only| only.is_url_encoded()) && types.next().is_none()
}

/// Finds the key in the member of a JSON body to which these tokens lead.
fn member(body: &[u8], tokens: &[String]) -> Result<Option<Key>, BadKey> {
    // Where a value is passed over, `serde_json` does not look whether it is UTF-8.
    let text = std::str::from_utf8(body).map_err(|_| BadKey::NotJson)?;
    let mut json = serde_json::Deserializer::from_str(text);
    let found = At { tokens, is_whole: true }.deserialize(&mut json);
    let found = found.and_then(|found| json.end().map(|()| found)).map_err(|_| BadKey::NotJson)?;
    found?.map(|text| Ok(Key::new(&text)?)).transpose()
}

/// What a body has in a place: a text, nothing, or what makes the key unknown.
type Found = Result<Option<String>, BadKey>;

/// Reads a whole value, and returns what it has where the tokens lead.
#[derive(Clone, Copy)]
struct At<'a> {
    tokens: &'a [String],
    /// `true` for the body itself: a list there is a batch of requests, of which each may have a key.
    is_whole: bool,
}

impl<'a> At<'a> {
    /// What a value that has no parts has in this place.
    fn of_scalar<E>(self) -> Result<Found, E> {
        Ok(if self.tokens.is_empty() { Err(BadKey::NotText) } else { Ok(None) })
    }

    /// The name of the part in which the place is, and the place there.
    fn inside(self) -> Option<(&'a String, Self)> {
        let (name, tokens) = self.tokens.split_first()?;
        Some((name, Self { tokens, is_whole: false }))
    }
}

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Found, E> {
        self.of_scalar()
    }

    fn visit_i64<E>(self, _: i64) -> Result<Found, E> {
        self.of_scalar()
    }

    fn visit_u64<E>(self, _: u64) -> Result<Found, E> {
        self.of_scalar()
    }

    fn visit_f64<E>(self, _: f64) -> Result<Found, E> {
        self.of_scalar()
    }

    fn visit_unit<E>(self) -> Result<Found, E> {
        Ok(Ok(None))
    }

    fn visit_str<E>(self, text: &str) -> Result<Found, E> {
        Ok(Ok(self.tokens.is_empty().then(|| text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Found, A::Error> {
        let index = self.inside().and_then(|(token, at)| Some((Pointer::index(token)?, at)));
        let mut found = match index {
            Some(_) => Ok(None),
            None if self.is_whole => Err(BadKey::Batch),
            None if self.tokens.is_empty() => Err(BadKey::NotText),
            None => Ok(None),
        };
        for number in 0_usize.. {
            let element = match index {
                Some((index, at)) if index == number => elements.next_element_seed(at)?.map(|there| found = there),
                _ => elements.next_element::<IgnoredAny>()?.map(drop),
            };
            if element.is_none() {
                break;
            }
        }
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Found, A::Error> {
        let (inside, mut found) = (self.inside(), None);
        while let Some(name) = members.next_key::<Cow<'_, str>>()? {
            match inside {
                Some((token, at)) if *token == *name => {
                    let there = members.next_value_seed(at)?;
                    found = Some(if found.is_none() { there } else { Err(BadKey::Repeated) });
                }
                _ => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found.unwrap_or_else(|| if inside.is_some() { Ok(None) } else { Err(BadKey::NotText) }))
    }
}

/// Finds the key in the field of a form.
fn field(body: &[u8], name: &str) -> Result<Option<Key>, BadKey> {
    // URL Standard, section 5.1: pairs are divided by `&`, and a plus is a blank.
    let decoded = |part: &[u8]| {
        let part: Vec<u8> = part.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
        percent_decode(&part).decode_utf8_lossy().into_owned()
    };
    let mut values = body.split(|byte| *byte == b'&').filter_map(|pair| {
        let mut parts = pair.splitn(2, |byte| *byte == b'=');
        (decoded(parts.next()?) == name).then(|| decoded(parts.next().unwrap_or_default()))
    });
    let first = values.next();
    if values.next().is_some() {
        return Err(BadKey::Repeated);
    }
    first.map(|text| Ok(Key::new(&text)?)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_json(pointer: &str, body: &str) -> Result<Option<String>, BadKey> {
        let found = member(body.as_bytes(), &Pointer::new(pointer).unwrap().tokens)?;
        Ok(found.map(|key| key.as_str().to_owned()))
    }

    fn in_form(body: &str) -> Result<Option<String>, BadKey> {
        Ok(field(body.as_bytes(), "a key")?.map(|key| key.as_str().to_owned()))
    }

    #[test]
    fn a_pointer_leads_to_a_member() {
        let cases = [
            ("/key", r#"{"key":"k"}"#),
            ("/key", r#" {"a":[1,{"key":"x"}], "key" : "k" ,"b":2} "#),
            ("/key", r#"{"\u006bey":"\u006b","b":2}"#),
            ("/params/_meta/key", r#"{"params":{"_meta":{"key":"k"},"key":"x"}}"#),
            ("/list/1", r#"{"list":["x","k","y"]}"#),
            ("/0/key", r#"[{"key":"k"},{"key":"x"}]"#),
            ("/a~1b/~0/", r#"{"a/b":{"~":{"":"k"}}}"#),
            ("/a~01b/~00/~10", r#"{"a~1b":{"~0":{"/0":"k"}}}"#),
            ("/a\"\\", r#"{"x\"":1,"a\"\\":"k"}"#),
        ];
        for (pointer, body) in cases {
            assert_eq!(in_json(pointer, body), Ok(Some("k".to_owned())), "{body}");
        }
    }

    #[test]
    fn a_body_without_the_place_has_no_key() {
        for body in ["\"key\"", "5", "null", r#"{"key":null}"#, r#"{"keys":"k"}"#, r#"{"a":{"key":"k"}}"#] {
            assert_eq!(in_json("/key", body), Ok(None), "{body}");
        }
        for (pointer, body) in [
            ("/list/01", r#"{"list":["x","k"]}"#),
            ("/list/-", r#"{"list":["k"]}"#),
            ("/list/key", r#"{"list":[{"key":"k"}]}"#),
            ("/a/b", "{\"a\":1}"),
        ] {
            assert_eq!(in_json(pointer, body), Ok(None), "{body}");
        }
        assert_eq!(in_form("key=k&b=2"), Ok(None));
    }

    #[test]
    fn what_another_parser_may_read_otherwise_is_an_error() {
        let not_json = [
            "{", "key=k", r#"{"key":"k"} x"#, r#"{"key":"k","a":NaN}"#, r#"{"key":"k",}"#, r#"{"a":1/*,*/,"key":"k"}"#,
            "\u{feff}{\"key\":\"k\"}", r#"{"key":"\ud800"}"#, "{'key':'k'}",
        ];
        for body in not_json {
            assert_eq!(in_json("/key", body), Err(BadKey::NotJson), "{body}");
        }
        assert_eq!(member(b"{\"a\":\"\xff\",\"key\":\"k\"}", &["key".to_owned()]), Err(BadKey::NotJson));
        let utf_16: Vec<u8> = r#"{"key":"k"}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(member(&utf_16, &["key".to_owned()]), Err(BadKey::NotJson));
        for body in [r#"[{"key":"k"}]"#, r#"[{"key":"a"},{"key":"b"}]"#, "[]"] {
            assert_eq!(in_json("/key", body), Err(BadKey::Batch), "{body}");
        }
        assert_eq!(in_json("/key", r#"{"key":"k","\u006bey":"k"}"#), Err(BadKey::Repeated));
        assert_eq!(in_json("/key", r#"{"key":null,"key":"k"}"#), Err(BadKey::Repeated));
        assert_eq!(in_json("/a/key", r#"{"a":{"key":"k"},"a":{}}"#), Err(BadKey::Repeated));
        assert_eq!(in_form("a+key=k&a%20key=k"), Err(BadKey::Repeated));
        for body in [r#"{"key":7}"#, r#"{"key":["k"]}"#, r#"{"key":false}"#, r#"{"key":{"key":"k"}}"#] {
            assert_eq!(in_json("/key", body), Err(BadKey::NotText), "{body}");
        }
        assert_eq!(in_json("/key", r#"{"key":" "}"#), Err(BadKey::Key(KeyError::Empty)));
        assert_eq!(in_form("a+key="), Err(BadKey::Key(KeyError::Empty)));
        assert!(matches!(in_form("a+key=%ff"), Err(BadKey::Key(KeyError::Character { .. }))));
    }

    #[test]
    fn a_field_of_a_form_is_decoded() {
        for body in ["a%20key=k", "a+key=%6b&b=2", "b=2&a+key=k&c", "b&a+key=k"] {
            assert_eq!(in_form(body), Ok(Some("k".to_owned())), "{body}");
        }
    }

    #[test]
    fn a_text_that_names_no_place_is_an_error() {
        for text in ["", "/key", "json:", "json:key", "json:/a~2", "json:/a~", "form:", "xml:/key"] {
            assert!(text.parse::<KeyFrom>().is_err(), "{text}");
        }
        for text in ["json:/a~1b/~0/c", "form:a b", "json:/a b json:/c form:d"] {
            assert_eq!(format!("{:?}", text.parse::<KeyFrom>().unwrap()), text);
        }
    }
}
