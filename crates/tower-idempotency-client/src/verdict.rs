//! What an answer means for a call: whether it is final, and what is known if it is not the operation's own.

use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use crate::Known;
use crate::retry_after::retry_after;

/// Servers say with them whether the same request may get another answer.
const SHOULD_RETRY: [HeaderName; 2] =
    [HeaderName::from_static("stripe-should-retry"), HeaderName::from_static("x-should-retry")];

/// Codes of rejections that no retry changes, and what is known after them.
const OWN_CODES: [(&str, Known); 4] = [
    ("outcome_unknown", Known::Unknown),
    ("not_verifiable", Known::Unknown),
    ("credentials_changed", Known::Unknown),
    ("not_replayable", Known::Done),
];

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the operation's own answer, or the API's.
    Answer,
    /// The server refuses the operation, and the same request gets the same refusal.
    Rejected(Known),
    /// The same request may get another answer, after this time.
    Again(Known, Option<Duration>),
}

/// Whether the answer's body may be a rejection, which has to be read.
pub(crate) fn may_be_rejection(status: StatusCode, headers: &HeaderMap) -> bool {
    let is_json = |value: &http::HeaderValue| value.to_str().is_ok_and(|value| value.to_lowercase().contains("json"));
    (status.is_client_error() || status.is_server_error()) && headers.get(CONTENT_TYPE).is_some_and(is_json)
}

/// Judges an answer that is neither a success nor a replay. `is_earlier_unknown` says that an earlier attempt of the
/// call was lost.
pub(crate) fn judge(status: StatusCode, headers: &HeaderMap, body: &[u8], is_earlier_unknown: bool) -> Verdict {
    let after = retry_after(headers);
    let rejection = match may_be_rejection(status, headers) {
        true => serde_json::from_slice(body).unwrap_or_default(),
        false => Value::Null,
    };
    if let Some(verdict) = judge_rejection(status, &rejection, after) {
        return verdict;
    }
    if status == StatusCode::UNPROCESSABLE_ENTITY {
        return Verdict::Answer;
    }
    let known = known_of_status(status);
    let should_retry = SHOULD_RETRY.into_iter().filter_map(|name| headers.get(name));
    match should_retry.map(|value| value.as_bytes()).find(|value| [&b"true"[..], b"false"].contains(value)) {
        Some(b"true") => return Verdict::Again(known, after),
        // It is the last word, and says nothing of the operation.
        Some(_) if is_again(status) || status == StatusCode::CONFLICT => return Verdict::Rejected(known),
        Some(_) => return Verdict::Answer,
        None => {}
    }
    // What conflicts may be an earlier attempt of this call, which still runs.
    let may_still_run = status == StatusCode::CONFLICT && (after.is_some() || is_earlier_unknown);
    if is_again(status) || may_still_run { Verdict::Again(known, after) } else { Verdict::Answer }
}

/// Judges what a rejection in JSON says of itself: problem details (RFC 9457), and envelopes in the style of Stripe and
/// of the Agentic Commerce Protocol. `None`: it is none that is known here.
fn judge_rejection(status: StatusCode, rejection: &Value, after: Option<Duration>) -> Option<Verdict> {
    let kind = rejection["type"].as_str().unwrap_or_default();
    if let Some(again) = rejection["retry_with_same_key"].as_bool() {
        // The `type` is a URL, and its last part is the problem's name.
        let known = known_of_problem(kind.rsplit(['/', '#']).next().unwrap_or_default(), after.is_some());
        let is_again = again && status != StatusCode::UNPROCESSABLE_ENTITY;
        return Some(if is_again { Verdict::Again(known, after) } else { Verdict::Rejected(known) });
    }
    let error = &rejection["error"];
    let texts = [Some(kind), rejection["code"].as_str(), error["type"].as_str(), error["code"].as_str()];
    let says = |name| texts.contains(&Some(name));
    if says("idempotency_conflict") {
        return Some(Verdict::Rejected(Known::Refused));
    }
    // Those of tower-idempotency in the protocol's envelope, where only `Retry-After` says that a retry is of use.
    if after.is_none() && status != StatusCode::SERVICE_UNAVAILABLE {
        for (code, known) in OWN_CODES {
            if says(code) {
                return Some(Verdict::Rejected(known));
            }
        }
    }
    let is_of_keys = says("idempotency_key_in_use") || says("idempotency_in_flight") || says("idempotency_error");
    // The draft has a conflict for a request that is being processed, with a type of the API's own for keys.
    if status == StatusCode::CONFLICT && (is_of_keys || kind.to_lowercase().contains("idempotency")) {
        return Some(Verdict::Again(Known::Unknown, after));
    }
    says("idempotency_error").then_some(Verdict::Rejected(Known::Refused))
}

/// Statuses that say that another attempt may get another answer.
fn is_again(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 502..=504)
}

/// 425 and 429 say that the request was not processed (RFC 8470 section 5.2, RFC 6585 section 4). A 5xx may come from a
/// gateway that has lost the answer, and a 408 from a layer that has ended a handler.
fn known_of_status(status: StatusCode) -> Known {
    if matches!(status.as_u16(), 425 | 429) { Known::Refused } else { Known::Unknown }
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
