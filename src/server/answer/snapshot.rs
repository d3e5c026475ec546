//! Turns an answer into the bytes of an outcome, and back.
//!
//! # Format 1
//! The format is one byte for the version; then the answer's status, kept headers and trailers as postcard writes them
//! (names and values are bytes, in order, repeats included); then the body's bytes up to the end, so that a replay
//! shares them with the record instead of copying.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde::{Deserialize, Serialize};

use super::kept_headers::KeptHeaders;
use crate::server::bodies::body::SendBody;
use crate::server::bodies::collect::{Bounds, Collected, collect};

/// The first byte of an outcome. A change of the format needs another number.
const VERSION: u8 = 1;

/// The number of bytes that the head and the trailers of most answers take.
const USUAL: usize = 256;

// `serde_bytes` takes the bytes as a whole, while serde would take a slice byte by byte. Both are written alike.
type Fields<'a> = Vec<(&'a serde_bytes::Bytes, &'a serde_bytes::Bytes)>;

/// The part that postcard writes. It writes no names, so the order of the fields is part of the format.
#[derive(Serialize, Deserialize)]
struct Head<'a> {
    status: u16,
    #[serde(borrow)]
    headers: Fields<'a>,
    #[serde(borrow)]
    trailers: Option<Fields<'a>>,
}

/// Records answers: decides which can be recorded, and which parts of them.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    pub(crate) kept_headers: KeptHeaders,
    /// The header that marks a replay. It is never recorded.
    pub(crate) replay_header_name: HeaderName,
    /// The most bytes of a body that is recorded. `exchange.rs` keeps to it while it reads a handler's answer.
    pub(crate) max_response_body: usize,
}

impl Recorder {
    /// Returns the outcome of an answer that no handler returned: an operator's, or one that is committed with its
    /// effect. Returns `None` if it is too long.
    pub(crate) fn record(&self, answer: &Response<Bytes>) -> Option<Bytes> {
        let fits = answer.body().len() <= self.max_response_body;
        fits.then(|| self.encode(answer.status(), answer.headers(), answer.body(), None))?
    }

    /// Returns the outcome of an answer of any length, or `None` if postcard can't write its head.
    pub(crate) fn encode(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &Bytes,
        trailers: Option<&HeaderMap>,
    ) -> Option<Bytes> {
        let kept = self.kept_headers.choose(headers, &self.replay_header_name, trailers.is_some());
        let head = Head {
            status: status.as_u16(),
            headers: kept.map(field).collect(),
            trailers: trailers.map(|trailers| trailers.iter().map(field).collect()),
        };
        let mut bytes = Vec::with_capacity(USUAL);
        bytes.push(VERSION);
        let head = postcard::to_extend(&head, bytes).ok()?;
        // A store counts the length of an outcome, but keeps its whole buffer. So the buffer must not be longer.
        let mut bytes = BytesMut::with_capacity(head.len() + body.len());
        bytes.put_slice(&head);
        bytes.put_slice(body);
        Some(bytes.freeze())
    }
}

/// Returns the outcome of a reconciler's answer, or `None` if its body fails, or is too long.
pub(crate) async fn outcome_of_answer<B: SendBody>(recorder: Arc<Recorder>, answer: Response<B>) -> Option<Bytes> {
    let (parts, body) = answer.into_parts();
    let mut bounds = Bounds { bytes: recorder.max_response_body, ..Bounds::default() };
    match collect(body, &mut bounds).await {
        Collected::Whole { data, trailers } => recorder.encode(parts.status, &parts.headers, &data, trailers.as_ref()),
        Collected::Over { .. } | Collected::Failed { .. } => None,
    }
}

/// Returns the answer of an outcome, and its trailers, or `None` if the bytes are not an outcome.
pub(crate) fn decode(outcome: &Bytes) -> Option<(Response<Bytes>, Option<HeaderMap>)> {
    let (version, rest) = outcome.split_first()?;
    // Another release wrote it in another format: `LayerState::recorded_answer` counts it as damaged.
    if *version != VERSION {
        return None;
    }
    let (head, body): (Head<'_>, &[u8]) = postcard::take_from_bytes(rest).ok()?;
    let mut answer = Response::new(outcome.slice_ref(body));
    *answer.status_mut() = StatusCode::from_u16(head.status).ok()?;
    *answer.headers_mut() = map(outcome, &head.headers)?;
    let trailers = match head.trailers {
        Some(fields) => Some(map(outcome, &fields)?),
        None => None,
    };
    Some((answer, trailers))
}

fn field<'a>((name, value): (&'a HeaderName, &'a HeaderValue)) -> (&'a serde_bytes::Bytes, &'a serde_bytes::Bytes) {
    (serde_bytes::Bytes::new(name.as_str().as_bytes()), serde_bytes::Bytes::new(value.as_bytes()))
}

/// Returns the fields as a map. Their values share the outcome's bytes, so keeping one of them keeps the whole outcome.
fn map(outcome: &Bytes, fields: &Fields<'_>) -> Option<HeaderMap> {
    // There is room for the marker of a replay. The attempt fails if there are more fields than a map can hold.
    let mut headers = HeaderMap::try_with_capacity(fields.len() + 1).ok()?;
    for (name, value) in fields {
        let value = HeaderValue::from_maybe_shared(outcome.slice_ref(value)).ok()?;
        headers.append(HeaderName::from_bytes(name).ok()?, value);
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_keeps_no_more_memory_than_its_length_and_its_answer_shares_it() {
        let replay_header_name = HeaderName::from_static("idempotent-replayed");
        let recorder = Recorder { kept_headers: KeptHeaders::default(), replay_header_name, max_response_body: 0 };
        let headers = HeaderMap::from_iter([(HeaderName::from_static("x"), HeaderValue::from_static(LONG))]);
        let outcome = recorder.encode(StatusCode::OK, &headers, &Bytes::from(vec![0; 10_000]), None).unwrap();
        let length = outcome.len();
        let (answer, _) = decode(&outcome).unwrap();
        assert_eq!(answer.body().as_ptr(), outcome[length - 10_000..].as_ptr(), "shared, not copied");
        drop(answer);
        assert_eq!(outcome.try_into_mut().unwrap().capacity(), length);
    }

    const LONG: &str = "a header of some length, longer than any room that a guess would leave for it: a header of some \
        length, longer than any room that a guess would leave for it: a header of some length, longer than any room that a \
        guess would leave for it: a header of some length, longer than any room";

    #[test]
    fn bytes_that_are_no_outcome_are_refused() {
        assert!(decode(&Bytes::new()).is_none());
        assert!(decode(&Bytes::from_static(&[2, 0, 0, 0])).is_none());
        assert!(decode(&Bytes::from_static(&[1, 0xff, 0xff, 0xff, 0xff])).is_none());
    }
}
