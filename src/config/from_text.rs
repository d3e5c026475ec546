//! The forms of values that are texts in a file.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

/// A value that is a text in a file.
trait FromText: Sized {
    /// What such a text is, for an error.
    const FORM: &'static str;

    /// Reads the text. Returns `None` if it is no such value.
    fn from_text(text: &str) -> Option<Self>;
}

/// A value of an option, in the form that it has in a file.
pub trait Setting: Sized {
    /// Reads the value.
    ///
    /// # Errors
    /// The deserializer's error, or one that repeats a text and says what it has to be.
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

/// Reads the value of an option, for `deserialize_with`.
///
/// # Errors
/// As [`Setting::read`].
pub fn setting<'de, T: Setting, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::read(deserializer).map(Some)
}

impl<T: FromText> Setting for T {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Text::deserialize(deserializer).map(|Text(value)| value)
    }
}

impl<T: FromText> Setting for Vec<T> {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<Text<T>>::deserialize(deserializer)?.into_iter().map(|Text(value)| value).collect())
    }
}

/// Implements [`Setting`] for types that are in a file as they are.
macro_rules! plain {
    ($($type:ty),*) => {
        $(impl Setting for $type {
            fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::deserialize(deserializer)
            }
        })*
    };
}

plain!(bool, u64, usize, String, Vec<String>);

/// A value that was read from its text.
struct Text<T>(T);

impl<'de, T: FromText> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor(PhantomData)).map(Self)
    }
}

/// Says what the text has to be, also where there is a number in its place.
struct TextVisitor<T>(PhantomData<T>);

impl<T: FromText> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::FORM)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::from_text(text).ok_or_else(|| E::custom(format_args!("{text:?} is not {}", T::FORM)))
    }
}

/// Says of each type what its text is, and how the text is read.
macro_rules! texts {
    ($($type:ty: $form:literal, |$text:ident| $read:expr;)*) => {
        $(impl FromText for $type {
            const FORM: &'static str = $form;

            fn from_text($text: &str) -> Option<Self> {
                $read
            }
        })*
    };
}

texts! {
    Duration: "a duration: write it as \"24h\", \"90s\" or \"1h 30m\"", |text| humantime::parse_duration(text).ok();
    tracing::Level: "a level: error, warn, info, debug or trace", |text| {
        // A number would be one too.
        text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_alphabetic()))
    };
}

#[cfg(feature = "server")]
mod server {
    use http::{HeaderName, Method};
    use serde::{Deserialize as _, Deserializer};
    use tower_idempotency_meaning::BodyJudge;

    use super::{Duration, FromText, Setting, setting};
    use crate::server::{KeptHeaders, KeyFrom, Profile};
    use crate::{FingerprintBody, OnInFlight, OnInterrupted};

    /// The headers to keep, or to leave out, besides what the layer does by itself.
    #[derive(Default, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Kept {
        #[serde(deserialize_with = "setting")]
        with: Option<Vec<HeaderName>>,
        #[serde(deserialize_with = "setting")]
        without: Option<Vec<HeaderName>>,
    }

    impl Setting for KeptHeaders {
        fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let Kept { with, without } = Kept::deserialize(deserializer)?;
            Ok(Self::default().with(with.unwrap_or_default()).without(without.unwrap_or_default()))
        }
    }

    texts! {
        HeaderName: "the name of a header", |text| text.parse().ok();
        Method: "an HTTP method in capital letters, such as POST", |text| {
            // Methods are case-sensitive (RFC 9110, section 9.1), so `post` would cover nothing.
            text.parse().ok().filter(|_| !text.bytes().any(|byte| byte.is_ascii_lowercase()))
        };
        KeyFrom: "the place of a key, such as \"json:/params/key\" or \"form:key\"", |text| text.parse().ok();
        Profile: "\"draft\", \"stripe\", \"acp\", \"iceberg\", \"json-rpc\" or \"mcp\"", |text| {
            let [draft, stripe, acp] = [Self::draft(), Self::stripe(), Self::acp()];
            let all = [draft, stripe, acp, Self::iceberg(), Self::json_rpc(), Self::mcp()];
            all.into_iter().find(|profile| profile.name == text)
        };
        OnInFlight: "\"reject\", or how long to wait, such as \"2s\"", |text| {
            if text == "reject" { Some(Self::Reject) } else { Duration::from_text(text).map(Self::Wait) }
        };
        BodyJudge: "\"json-rpc\", \"graphql\" or \"grpc\"", |text| text.parse().ok();
        OnInterrupted: "\"refuse\" or \"rerun\"", |text| {
            match text {
                "refuse" => Some(Self::Refuse),
                "rerun" => Some(Self::Rerun),
                _ => None,
            }
        };
        FingerprintBody:
            "\"bytes\" or \"canonical-json\", or \"canonical-json without /id\" with one JSON pointer or several",
            |text| match text {
                "bytes" => Some(Self::Bytes),
                "canonical-json" => Some(Self::CanonicalJson),
                _ => Self::json_without(text.strip_prefix("canonical-json without ")?.split(' ')).ok(),
            };
    }
}
