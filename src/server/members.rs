//! The members of a JSON body in which keys may be.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::pointer::Pointer;
use crate::key::KeyError;

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

/// Returns what a JSON body has in the members to which these ways lead. It is read once, whatever their number.
pub(super) fn members(body: &[u8], ways: Vec<Way<'_>>) -> Result<Vec<Found>, BadKey> {
    // Where a value is passed over, `serde_json` does not look whether it is UTF-8.
    let text = std::str::from_utf8(body).map_err(|_| BadKey::NotJson)?;
    let mut json = serde_json::Deserializer::from_str(text);
    let found = At { ways, is_whole: true }.deserialize(&mut json);
    found.and_then(|found| json.end().map(|()| found)).map_err(|_| BadKey::NotJson)
}

/// What a body has in a place: a text, nothing, or what makes the key unknown.
pub(super) type Found = Result<Option<String>, BadKey>;

/// The rest of the way to a place, or `None` if it does not lead through this value.
pub(super) type Way<'a> = Option<&'a [String]>;

/// Reads a whole value, and returns what it has where each way leads.
struct At<'a> {
    ways: Vec<Way<'a>>,
    /// `true` for the body itself: a list there is a batch of requests, of which each may have a key.
    is_whole: bool,
}

impl<'a> At<'a> {
    /// Returns what the places have, of which each that is here has this.
    fn here(&self, found: &Found) -> Vec<Found> {
        self.ways.iter().map(|way| if way.is_some_and(<[_]>::is_empty) { found.clone() } else { Ok(None) }).collect()
    }

    /// What a value that has no parts has in the places.
    fn of_scalar<E>(&self) -> Result<Vec<Found>, E> {
        Ok(self.here(&Err(BadKey::NotText)))
    }

    /// Returns the ways on, in the part of this name, if there is one.
    fn inside(&self, is_name: impl Fn(&str) -> bool) -> Option<Self> {
        let on = |way: &Way<'a>| way.and_then(|way| way.split_first()).filter(|(name, _)| is_name(name));
        let ways: Vec<_> = self.ways.iter().map(|way| on(way).map(|(_, rest)| rest)).collect();
        ways.iter().any(Option::is_some).then_some(Self { ways, is_whole: false })
    }
}

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = Vec<Found>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Found>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = Vec<Found>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Vec<Found>, E> {
        self.of_scalar()
    }

    fn visit_i64<E>(self, _: i64) -> Result<Vec<Found>, E> {
        self.of_scalar()
    }

    fn visit_u64<E>(self, _: u64) -> Result<Vec<Found>, E> {
        self.of_scalar()
    }

    fn visit_f64<E>(self, _: f64) -> Result<Vec<Found>, E> {
        self.of_scalar()
    }

    fn visit_unit<E>(self) -> Result<Vec<Found>, E> {
        Ok(self.here(&Ok(None)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Vec<Found>, E> {
        Ok(self.here(&Ok(Some(text.to_owned()))))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<Found>, A::Error> {
        let mut all = self.here(&Err(BadKey::NotText));
        for (found, way) in all.iter_mut().zip(&self.ways) {
            let is_indexed = way.and_then(<[_]>::first).is_some_and(|token| Pointer::index(token).is_some());
            if self.is_whole && !is_indexed {
                *found = Err(BadKey::Batch);
            }
        }
        for number in 0_usize.. {
            let inside = self.inside(|token| Pointer::index(token) == Some(number));
            match inside {
                Some(inside) => {
                    let leads = |way: &Way<'_>| way.is_some();
                    let there: Vec<_> = inside.ways.iter().map(leads).collect();
                    let Some(found) = elements.next_element_seed(inside)? else { break };
                    put(&mut all, there, found);
                }
                None if elements.next_element::<IgnoredAny>()?.is_none() => break,
                None => {}
            }
        }
        Ok(all)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Vec<Found>, A::Error> {
        let mut all = self.here(&Err(BadKey::NotText));
        let mut met = vec![false; all.len()];
        while let Some(name) = members.next_key::<Cow<'_, str>>()? {
            let Some(inside) = self.inside(|token| token == name) else {
                members.next_value::<IgnoredAny>()?;
                continue;
            };
            let there: Vec<_> = inside.ways.iter().map(Option::is_some).collect();
            let found = members.next_value_seed(inside)?;
            let repeated = |(found, met): (Found, &bool)| if *met { Err(BadKey::Repeated) } else { found };
            let found = found.into_iter().zip(&met).map(repeated).collect();
            met.iter_mut().zip(&there).for_each(|(met, there)| *met |= *there);
            put(&mut all, there, found);
        }
        Ok(all)
    }
}

/// Takes over what was found in the places that are there.
fn put(all: &mut [Found], there: Vec<bool>, found: Vec<Found>) {
    let found = there.into_iter().zip(found);
    all.iter_mut().zip(found).filter(|(_, (there, _))| *there).for_each(|(all, (_, found))| *all = found);
}
