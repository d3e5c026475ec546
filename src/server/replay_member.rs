//! The mark of a replay in its body, for clients that see no headers.

use std::fmt;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName};
use http::{HeaderValue, Response};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::server::fingerprint::media_type::MediaType;

/// The headers that speak of the body's bytes, which another body makes wrong.
const OF_THE_BYTES: [HeaderName; 7] = [
    HeaderName::from_static("etag"),
    HeaderName::from_static("signature"),
    HeaderName::from_static("signature-input"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// Adds the member `name` with the value `true` to the body of a replay, if that is a JSON object. A member of this
/// name that is there already is replaced. All others keep their order and their bytes.
pub(crate) fn add(answer: &mut Response<Bytes>, name: &str) {
    let Some(body) = is_json(answer.headers()).then(|| marked(answer.body(), name)).flatten() else { return };
    *answer.body_mut() = body;
    for name in &OF_THE_BYTES {
        answer.headers_mut().remove(name);
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).and_then(MediaType::of);
    media_type.is_some_and(|media_type| media_type.is_json())
        && headers.get(CONTENT_ENCODING).is_none_or(|coding: &HeaderValue| coding == "identity")
}

fn marked(body: &Bytes, name: &str) -> Option<Bytes> {
    let Members(members) = serde_json::from_slice(body).ok()?;
    let others = members.into_iter().filter(|(member, _)| member != name);
    let mut marked = format!("{{{}:true", serde_json::to_string(name).ok()?);
    for (member, value) in others {
        marked.push(',');
        marked.push_str(&serde_json::to_string(&member).ok()?);
        marked.push(':');
        marked.push_str(value.get());
    }
    marked.push('}');
    Some(marked.into())
}

/// The members of an object, in their order. A name that is there twice stays so.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replayed(content_type: &'static str, body: &'static str) -> String {
        let mut answer = Response::new(Bytes::from_static(body.as_bytes()));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        answer.headers_mut().insert("etag", HeaderValue::from_static("\"1\""));
        add(&mut answer, "replayed");
        assert_eq!(
            answer.headers().contains_key("etag"),
            *answer.body() == body,
            "it is of the body without the member"
        );
        String::from_utf8(answer.into_body().to_vec()).unwrap()
    }

    #[test]
    fn a_json_object_gets_the_member_and_keeps_the_bytes_of_the_others() {
        let of = |body| replayed("application/json; charset=utf-8", body);
        assert_eq!(of(r#"{"b" : 1.0, "a":{"z":1e2 , "y":[]}}"#), r#"{"replayed":true,"b":1.0,"a":{"z":1e2 , "y":[]}}"#);
        assert_eq!(of(r#"{"replayed":false,"id":"é\u00e9"}"#), r#"{"replayed":true,"id":"é\u00e9"}"#);
        assert_eq!(of(" {} "), r#"{"replayed":true}"#);
        assert_eq!(replayed("application/vnd.acme+json", "{}"), r#"{"replayed":true}"#);
    }

    #[test]
    fn other_bodies_are_replayed_as_they_are() {
        for body in ["[1]", "1", "", "{", "null", "{\"a\":1} x"] {
            assert_eq!(replayed("application/json", body), body);
        }
        assert_eq!(replayed("text/plain", "{}"), "{}");
    }
}
