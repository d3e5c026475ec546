//! What an answer of the layer's own needs of the call: its `id`, and the form that its client takes.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, StatusCode, response};

use super::calls::Message;
use super::events;
use crate::server::bodies::body::WholeAnswer;
use crate::server::effect::Effect;
use crate::server::header::lines;

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";

/// A call, as far as its answer goes.
pub(crate) struct Reply {
    /// As it was sent: a number is not read, so that it stays the same.
    id: Box<str>,
    takes_json: bool,
    takes_events: bool,
}

impl Reply {
    pub(crate) fn new(id: Box<str>, parts: &Parts) -> Self {
        let [takes_json, takes_events] = [JSON, EVENTS].map(|kind| takes(&parts.headers, kind));
        Self { id, takes_json, takes_events }
    }

    /// Gives a replay or a rejection the `id` of the call, and the form that its client takes. A client waits for ever
    /// for a response that has another `id`, and takes a rejection with an error's status for a failure of the
    /// transport.
    pub(crate) fn fit(&self, (mut answer, trailers): WholeAnswer) -> WholeAnswer {
        let is_stream = has_type(answer.headers(), EVENTS);
        let of_stream = is_stream.then(|| events::data(answer.body())).flatten();
        let message = of_stream.as_deref().unwrap_or(answer.body());
        let Some((message, had_none)) = self.with_id(message) else { return (answer, trailers) };
        // By these, a client learns that it needs other credentials.
        let is_of_credentials = matches!(answer.status().as_u16(), 401 | 403 | 407);
        if had_none && !answer.status().is_success() && !is_of_credentials {
            *answer.status_mut() = StatusCode::OK;
        }
        let is_stream = self.takes_events && (is_stream || !self.takes_json);
        let (kind, body) = if is_stream { (EVENTS, events::event(&message)) } else { (JSON, message.into()) };
        answer.headers_mut().remove(CONTENT_LENGTH);
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        *answer.body_mut() = body;
        (answer, trailers)
    }

    /// Gives the refusal of another layer, or of the proxy, the `id` of the call if it has none. Its status is an
    /// error's, so that clients took it for a failure of the transport. A server's own error stays as it is: by a 404,
    /// a client learns that its session is over.
    pub(crate) fn with_own_id(&self, parts: &mut response::Parts, data: Bytes) -> Bytes {
        let is_refusal = !parts.status.is_success() && lines(&parts.headers, Effect::HEADER).next().is_some();
        match self.with_id(&data).filter(|_| is_refusal) {
            Some((message, true)) => {
                parts.status = StatusCode::OK;
                parts.headers.remove(CONTENT_LENGTH);
                message.into()
            }
            _ => data,
        }
    }

    /// Returns a response with the `id` of the call, and whether it had none; `None` if it is no response.
    fn with_id(&self, response: &[u8]) -> Option<(Vec<u8>, bool)> {
        let text = std::str::from_utf8(response).ok()?;
        let id = serde_json::from_str::<Message<'_>>(text).ok().filter(Message::is_response)?.id?.get();
        // It is a part of the text, without a copy.
        let at = id.as_ptr() as usize - text.as_ptr() as usize;
        Some(([&text[..at], &self.id, &text[at + id.len()..]].concat().into_bytes(), id == "null"))
    }
}

/// Returns whether a body is of this type.
pub(crate) fn has_type(headers: &HeaderMap, kind: &str) -> bool {
    let mut types = lines(headers, CONTENT_TYPE).map(HeaderValue::as_bytes);
    types.next().is_some_and(|value| media_type(value).eq_ignore_ascii_case(kind.as_bytes()))
}

/// Returns whether `Accept` takes a type (RFC 9110, section 12.5.1). Without the field, it takes each.
fn takes(headers: &HeaderMap, kind: &str) -> bool {
    let group = kind.split('/').next().unwrap_or_default();
    let mut ranges = lines(headers, ACCEPT).flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).peekable();
    ranges.peek().is_none()
        || ranges.any(|range| {
            let is_refused = range.split(|byte| *byte == b';').skip(1).any(|parameter| {
                let parameter = parameter.trim_ascii();
                parameter.strip_prefix(b"q=0").is_some_and(|rest| rest.iter().all(|byte| b".0".contains(byte)))
            });
            let range = media_type(range);
            let fits = [kind.as_bytes(), format!("{group}/*").as_bytes(), b"*/*"]
                .iter()
                .any(|other| range.eq_ignore_ascii_case(other));
            fits && !is_refused
        })
}

/// Returns a media type without its parameters.
fn media_type(value: &[u8]) -> &[u8] {
    value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

/// Returns a body as a single event.
pub(crate) fn as_event(headers: &HeaderMap, body: &Bytes) -> Bytes {
    if has_type(headers, EVENTS) { body.clone() } else { events::event(body) }
}
