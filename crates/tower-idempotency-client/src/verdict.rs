//! What an answer means for a call: whether it is final, and what is known if it is not the operation's own.

use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use crate::Known;
use crate::retry_after::retry_after;

const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// Servers say with them whether the same request may get another answer.
const SHOULD_RETRY: [HeaderName; 2] =
    [HeaderName::from_static("stripe-should-retry"), HeaderName::from_static("x-should-retry")];

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the operation's own answer, or the API's.
    Answer,
    /// The server refuses the operation, and the same request gets the same refusal.
    Rejected(Known),
    /// The same request may get another answer, after this time.
    Again(Known, Option<Duration>),
}

/// What rejections in JSON say of themselves: problem details (RFC 9457), and envelopes in the style of Stripe and ACP.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Rejection {
    #[serde(rename = "type")]
    kind: Option<String>,
    code: Option<String>,
    retry_with_same_key: Option<bool>,
    error: Option<Envelope>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Envelope {
    #[serde(rename = "type")]
    kind: Option<String>,
    code: Option<String>,
}

pub(crate) fn is_replay(headers: &HeaderMap) -> bool {
    headers.get(REPLAYED).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
}

/// Whether the answer's body may be a rejection, which has to be read.
pub(crate) fn may_be_rejection(status: StatusCode, headers: &HeaderMap) -> bool {
    let is_json = |value: &http::HeaderValue| value.to_str().is_ok_and(|value| value.contains("json"));
    (status.is_client_error() || status.is_server_error()) && headers.get(CONTENT_TYPE).is_some_and(is_json)
}

/// Judges an answer. `is_earlier_unknown` says that an earlier attempt of the call was lost.
pub(crate) fn judge(status: StatusCode, headers: &HeaderMap, body: &[u8], is_earlier_unknown: bool) -> Verdict {
    if is_replay(headers) || status.is_success() {
        return Verdict::Answer;
    }
    let rejection = match may_be_rejection(status, headers) {
        true => serde_json::from_slice(body).unwrap_or_default(),
        false => Rejection::default(),
    };
    let after = retry_after(headers);
    if let Some(again) = rejection.retry_with_same_key {
        // The `type` is a URL, and its last part is the problem's name.
        let name = rejection.kind.as_deref().and_then(|kind| kind.rsplit(['/', '#']).next()).unwrap_or_default();
        let known = known_of_problem(name, after.is_some());
        return if again && status != StatusCode::UNPROCESSABLE_ENTITY {
            Verdict::Again(known, after)
        } else {
            Verdict::Rejected(known)
        };
    }
    let envelope = rejection.error.unwrap_or_default();
    let says = |name| {
        let texts = [&rejection.kind, &rejection.code, &envelope.kind, &envelope.code];
        texts.into_iter().any(|text| text.as_deref() == Some(name))
    };
    // In flight first: an API may give both the code and the type of errors around keys.
    if status == StatusCode::CONFLICT && (says("idempotency_key_in_use") || says("idempotency_in_flight")) {
        return Verdict::Again(Known::Unknown, after);
    }
    if says("idempotency_error") || says("idempotency_conflict") {
        return Verdict::Rejected(Known::Refused);
    }
    let should_retry =
        SHOULD_RETRY.iter().filter_map(|name| headers.get(name)).find_map(|value| match value.as_bytes() {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        });
    match should_retry {
        _ if status == StatusCode::UNPROCESSABLE_ENTITY => Verdict::Answer,
        Some(false) => Verdict::Answer,
        Some(true) => Verdict::Again(known_of_status(status), after),
        None if is_again(status) => Verdict::Again(known_of_status(status), after),
        // What conflicts may be an earlier attempt of this call, which still runs.
        None if status == StatusCode::CONFLICT && (after.is_some() || is_earlier_unknown) => {
            Verdict::Again(Known::Unknown, after)
        }
        None => Verdict::Answer,
    }
}

/// Statuses that say that another attempt may get another answer.
fn is_again(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 502..=504)
}

/// 408, 425 and 429 say that the request was not processed (RFC 9110 section 15.5.9, RFC 8470 section 5.2, RFC 6585
/// section 4). A 5xx may come from a gateway that has lost the answer.
fn known_of_status(status: StatusCode) -> Known {
    if matches!(status.as_u16(), 408 | 425 | 429) { Known::Refused } else { Known::Unknown }
}

/// The names are those of the module `problem` of tower-idempotency. One that is not known here says nothing.
fn known_of_problem(name: &str, has_retry_after: bool) -> Known {
    match name {
        "key-missing" | "key-malformed" | "key-reused" | "body-incomplete" | "body-too-large" => Known::Refused,
        "overloaded" | "shutting-down" | "store-full" | "custom" => Known::Refused,
        // Without a time to come back, the key's record is damaged.
        "store-unavailable" if has_retry_after => Known::Refused,
        "not-replayable" => Known::Done,
        _ => Known::Unknown,
    }
}

#[cfg(test)]
mod tests;
