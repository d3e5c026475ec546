//! Turns an answer into the bytes of an outcome, and back.
//!
//! # Format 1
//! The format is one byte for the version; the answer's status; its kept headers; 0, or 1 and its trailers; then the
//! body's bytes up to the end, so that a replay shares them with the record instead of copying. Headers and trailers
//! are their number, and for each the length of the name, the name, the length of the value, and the value, in order,
//! repeats included. Numbers and lengths are written as [`Prefix`] has it.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::kept_headers::KeptHeaders;
use super::marks::is_secret;
use crate::digest::Prefix;
use crate::server::bodies::body::SendBody;
use crate::server::bodies::collect::{Bounds, Collected, collect};
use crate::server::not_applied::is_of_answers;

/// The first byte of an outcome. A change of the format needs another number.
const VERSION: u8 = 1;

/// The headers that a replay may get in addition: the marker, and a server's `Content-Length` and `Date`.
const ADDED: usize = 3;

/// The header that marks a replay, by default and in each profile.
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Records answers: decides which can be recorded, and which parts of them.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    pub(crate) kept_headers: KeptHeaders,
    /// The header that marks a replay. It is never recorded.
    pub(crate) replay_header_name: HeaderName,
    /// The most bytes of a body that is recorded. `request.rs` keeps to it while it reads a handler's answer.
    pub(crate) max_response_body: usize,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { kept_headers: KeptHeaders::default(), replay_header_name: REPLAYED, max_response_body: 1024 * 1024 }
    }
}

impl Recorder {
    /// Returns the outcome of an answer that no handler returned: an operator's, or one that is committed with its
    /// effect. Returns `None` if it is too long, shows a secret, or has a status that ends no answer.
    pub(crate) fn record(&self, answer: &Response<Bytes>) -> Option<Bytes> {
        let fits = answer.body().len() <= self.max_response_body
            && !is_secret(answer.extensions())
            && is_of_answers(answer.status());
        fits.then(|| self.encode(answer.status(), answer.headers(), answer.body(), None))
    }

    /// Returns the outcome of an answer of any length.
    pub(crate) fn encode(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &Bytes,
        trailers: Option<&HeaderMap>,
    ) -> Bytes {
        let is_kept = self.kept_headers.choice(headers, &self.replay_header_name, trailers.is_some());
        let kept = || headers.iter().filter(|(name, _)| is_kept(name));
        let status = Prefix::of_number(status.as_u16().into());
        let chosen = |trailers| self.kept_headers.choose_trailers(trailers);
        let (kept_size, trailers) = (Size::of(kept()), trailers.map(|trailers| (trailers, Size::of(chosen(trailers)))));
        // A store counts the length of an outcome, but keeps its whole buffer. So the buffer must not be longer.
        let trailers_bytes = trailers.as_ref().map_or(0, |(_, size)| size.bytes);
        let length = 2 + status.as_bytes().len() + kept_size.bytes + trailers_bytes + body.len();
        let mut outcome = Vec::with_capacity(length);
        outcome.push(VERSION);
        outcome.extend_from_slice(status.as_bytes());
        write_fields(&mut outcome, &kept_size, kept());
        outcome.push(u8::from(trailers.is_some()));
        if let Some((trailers, size)) = trailers {
            write_fields(&mut outcome, &size, chosen(trailers));
        }
        outcome.extend_from_slice(body);
        outcome.into()
    }
}

/// The size of header fields, as the format has them.
struct Size {
    /// The number of fields.
    count: Prefix,
    /// The bytes of the fields and their number.
    bytes: usize,
}

impl Size {
    fn of<'a>(fields: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>) -> Self {
        let (mut count, mut bytes) = (0, 0);
        for (name, value) in fields {
            for part in [name.as_str().as_bytes(), value.as_bytes()] {
                bytes += Prefix::of(part).as_bytes().len() + part.len();
            }
            count += 1;
        }
        let count = Prefix::of_number(count);
        Self { count, bytes: bytes + count.as_bytes().len() }
    }
}

/// Writes header fields of this size, as the format has them.
fn write_fields<'a>(bytes: &mut Vec<u8>, size: &Size, fields: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>) {
    bytes.extend_from_slice(size.count.as_bytes());
    for (name, value) in fields {
        for part in [name.as_str().as_bytes(), value.as_bytes()] {
            bytes.extend_from_slice(Prefix::of(part).as_bytes());
            bytes.extend_from_slice(part);
        }
    }
}

/// Returns the outcome of a reconciler's answer, or why it can't be recorded.
pub(crate) async fn outcome_of_answer<B: SendBody>(
    recorder: Arc<Recorder>,
    answer: Response<B>,
) -> Result<Bytes, &'static str> {
    let (parts, body) = answer.into_parts();
    if is_secret(&parts.extensions) {
        return Err("it is marked as a secret");
    }
    if !is_of_answers(parts.status) {
        return Err("its status ends no answer");
    }
    let mut bounds = Bounds { bytes: recorder.max_response_body, ..Bounds::default() };
    match collect(Box::pin(body), &mut bounds).await {
        Collected::Whole { data, trailers } => {
            Ok(recorder.encode(parts.status, &parts.headers, &data, trailers.as_ref()))
        }
        Collected::Over { .. } => Err("its body is too long"),
        Collected::Failed { .. } => Err("its body failed"),
    }
}

/// Returns the answer of an outcome, and its trailers, or `None` if the bytes are not an outcome.
pub(crate) fn decode(outcome: &Bytes) -> Option<(Response<Bytes>, Option<HeaderMap>)> {
    // Another release wrote it in another format: `LayerState::recorded_answer` counts it as damaged.
    let (_, mut rest) = outcome.split_first().filter(|(version, _)| **version == VERSION)?;
    let status = StatusCode::from_u16(u16::try_from(number(&mut rest)?).ok()?).ok()?;
    let headers = fields(outcome, &mut rest)?;
    let (has_trailers, rest_of_it) = rest.split_first()?;
    rest = rest_of_it;
    let trailers = match has_trailers {
        0 => None,
        1 => Some(fields(outcome, &mut rest)?),
        _ => return None,
    };
    let (mut parts, data) = Response::new(outcome.slice_ref(rest)).into_parts();
    (parts.status, parts.headers) = (status, headers);
    Some((Response::from_parts(parts, data), trailers))
}

/// Returns the status of the answer whose outcome begins with these bytes, or `None` if they begin no outcome.
pub(crate) fn status(outcome: &[u8]) -> Option<StatusCode> {
    let (_, mut rest) = outcome.split_first().filter(|(version, _)| **version == VERSION)?;
    StatusCode::from_u16(u16::try_from(number(&mut rest)?).ok()?).ok()
}

/// Takes a number from the beginning of `bytes`, or returns `None` if there is none.
fn number(bytes: &mut &[u8]) -> Option<usize> {
    let (number, length) = Prefix::read(bytes)?;
    *bytes = &bytes[length..];
    Some(number)
}

/// Takes a part and its length from the beginning of `bytes`.
fn part<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = number(bytes)?;
    let (part, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(part)
}

/// Takes header fields from the beginning of `bytes`, as a map. Their values share the outcome's bytes, so keeping one
/// of them keeps the whole outcome.
fn fields(outcome: &Bytes, bytes: &mut &[u8]) -> Option<HeaderMap> {
    let count = number(bytes)?;
    // Each field takes two bytes at least. The attempt fails if there are more fields than a map can hold.
    let count = Some(count).filter(|count| *count <= bytes.len() / 2)?;
    let mut headers =
        HeaderMap::try_with_capacity(count + ADDED).or_else(|_| HeaderMap::try_with_capacity(count + 1)).ok()?;
    for _ in 0..count {
        let (name, value) = (part(bytes)?, part(bytes)?);
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
        let recorder = Recorder::default();
        let headers = HeaderMap::from_iter([(HeaderName::from_static("x"), HeaderValue::from_static(LONG))]);
        let outcome = recorder.encode(StatusCode::OK, &headers, &Bytes::from(vec![0; 10_000]), None);
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
        // Another version, a number that does not end or is too large, no headers, more than there are bytes for, a
        // name that is none, and trailers that are neither there nor not.
        let others: [&[u8]; 8] = [
            &[],
            &[2, 0, 0, 0],
            &[1, 0xff, 0xff, 0xff, 0xff],
            &[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0, 0],
            &[1, 0xc8, 1],
            &[1, 0xc8, 1, 0x7f, 0, 0],
            &[1, 0xc8, 1, 1, 1, b' ', 0, 0],
            &[1, 0xc8, 1, 0, 2],
        ];
        for other in others {
            assert!(decode(&Bytes::copy_from_slice(other)).is_none(), "{other:?}");
        }
        assert!(decode(&Bytes::from_static(&[1, 0xc8, 1, 0, 0])).is_some());
    }
}
