//! Arrays of bytes as serde's bytes: `#[serde(with = "raw")]`. serde writes an array element by element, which takes
//! longer than all else in a record.

use std::fmt;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserializer, Serializer};

pub(crate) fn serialize<S: Serializer, const N: usize>(bytes: &[u8; N], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(deserializer: D) -> Result<[u8; N], D::Error> {
    deserializer.deserialize_bytes(Array)
}

/// The same for an array that may be absent.
pub(crate) mod optional {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Raw<const N: usize>(#[serde(with = "super")] [u8; N]);

    pub(crate) fn serialize<S: Serializer, const N: usize>(
        bytes: &Option<[u8; N]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        bytes.map(Raw).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<Option<[u8; N]>, D::Error> {
        Ok(Option::deserialize(deserializer)?.map(|Raw(bytes)| bytes))
    }
}

struct Array<const N: usize>;

impl<'de, const N: usize> Visitor<'de> for Array<N> {
    type Value = [u8; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{N} bytes")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))
    }

    // A format that has no bytes, such as JSON, has them as a list.
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut bytes = [0; N];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = list.next_element()?.ok_or_else(|| A::Error::invalid_length(at, &self))?;
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
    struct Arrays {
        #[serde(with = "super")]
        one: [u8; 4],
        #[serde(with = "super::optional")]
        other: Option<[u8; 2]>,
        #[serde(with = "super::optional")]
        absent: Option<[u8; 2]>,
    }

    #[test]
    fn arrays_are_bytes_and_of_their_length_alone() {
        let arrays = Arrays { one: [1, 2, 3, 4], other: Some([5, 6]), absent: None };
        let bytes = postcard::to_stdvec(&arrays).unwrap();
        assert_eq!(bytes, [4, 1, 2, 3, 4, 1, 2, 5, 6, 0], "each with its length before it");
        assert_eq!(postcard::from_bytes(&bytes), Ok(arrays));
        for damaged in [&[3, 1, 2, 3, 1, 2, 5, 6, 0][..], &[4, 1, 2, 3, 4, 1, 3, 5, 6, 7, 0], &[200]] {
            assert!(postcard::from_bytes::<Arrays>(damaged).is_err(), "{damaged:?}");
        }
    }

    #[test]
    fn in_json_they_are_lists() {
        let json = r#"{"one":[1,2,3,4],"other":[5,6],"absent":null}"#;
        let arrays: Arrays = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&arrays).unwrap(), json);
        assert!(serde_json::from_str::<Arrays>(&json.replace("[5,6]", "[5]")).is_err());
        assert!(serde_json::from_str::<Arrays>(&json.replace("[5,6]", "[5,6,7]")).is_err());
    }
}
