//! A key in the body of a request: in a member of JSON, in a field of a form, or where a function finds it.
//!
//! A service must not read a key where this module has read none, for it would run twice. So a body that can't be read
//! for sure is refused: one that another parser may read otherwise, or that is encoded.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use percent_encoding::percent_decode;

use super::fingerprint::media_type::MediaType;
use super::header::{KeyForm, lines};
use super::members::{BadKey, Found, members};
use super::pointer::{NotAPlace, Pointer};
use super::reject::reasons;
use super::reject::rejection::Rejection;
use crate::key::Key;

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
        let malformed = |error: BadKey| reasons::key_in_body_malformed(&error);
        let is_empty = body.trim_ascii().is_empty();
        let pointers = || self.0.iter().filter_map(Place::tokens);
        let mut in_members = match pointers().next() {
            Some(_) if is_empty => Vec::new(),
            Some(_) if is_encoded(parts) => return Err(malformed(BadKey::Encoded)),
            Some(_) => members(body, pointers().map(Some).collect()).map_err(malformed)?,
            None => Vec::new(),
        }
        .into_iter();
        let mut only: Option<Key> = None;
        for place in self.0.iter() {
            let found = match place {
                Place::Function(find) => Ok(find(parts, body)?),
                _ if is_empty => Ok(None),
                Place::Member(_) => key_of(in_members.next().unwrap_or(Ok(None))),
                Place::Field(_) if is_encoded(parts) => Err(BadKey::Encoded),
                Place::Field(_) if body.contains(&b';') => Err(BadKey::Semicolon),
                Place::Field(name) if is_form(parts) => field(body, name),
                Place::Field(_) => Err(BadKey::NotAForm),
            };
            let found = found.and_then(|key| key.map(|key| form.of(key).ok_or(BadKey::NotUuidV7)).transpose());
            let Some(key) = found.map_err(malformed)? else { continue };
            if only.get_or_insert_with(|| key.clone()) != &key {
                return Err(reasons::keys_in_body_differ(self));
            }
        }
        Ok(only)
    }
}

impl Place {
    /// Returns the way to a member.
    fn tokens(&self) -> Option<&[String]> {
        match self {
            Self::Member(pointer) => Some(&pointer.tokens),
            Self::Field(_) | Self::Function(_) => None,
        }
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

/// Makes a key of what was found.
fn key_of(found: Found) -> Result<Option<Key>, BadKey> {
    found?.map(|text| Ok(Key::new(&text)?)).transpose()
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
    use crate::key::KeyError;

    fn in_json(pointer: &str, body: &str) -> Result<Option<String>, BadKey> {
        let pointer = Pointer::new(pointer).unwrap();
        let found = members(body.as_bytes(), vec![Some(&pointer.tokens)])?.remove(0);
        Ok(key_of(found)?.map(|key| key.as_str().to_owned()))
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
        let of = |body: &[u8]| members(body, vec![Some(&["key".to_owned()][..])]).err();
        assert_eq!(of(b"{\"a\":\"\xff\",\"key\":\"k\"}"), Some(BadKey::NotJson));
        let utf_16: Vec<u8> = r#"{"key":"k"}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(of(&utf_16), Some(BadKey::NotJson));
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
