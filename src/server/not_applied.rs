//! The statuses whose definitions say that the request was not applied, and that the same operation may be tried again:
//! elsewhere, later, with other credentials, or with another head.
//!
//! `docs/meanings.md` says of each where it is defined, and which other statuses come close.

use bytes::Bytes;
use http::StatusCode;
use http::header::{HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::response::Parts;
use tower_idempotency_meaning::is_of_grpc;

use super::header::lines;

/// A nonce that the server wants in the client's next proof (RFC 9449, section 8).
const NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// By which x402 asks for a payment, from its version 2 on.
const PAYMENT_REQUIRED: &str = "payment-required";
/// By which servers say what became of a payment: x402 in both of its versions, and the scheme `Payment`.
const PAYMENT_RESPONSES: [&str; 3] = ["payment-response", "x-payment-response", "payment-receipt"];

/// Returns whether the head says so.
pub(super) fn by_head(parts: &Parts) -> bool {
    // Later, if the server says when (RFC 9110, section 15.5.14).
    let is_later = parts.status == StatusCode::PAYLOAD_TOO_LARGE && parts.headers.contains_key(RETRY_AFTER);
    is_later || asks_for_payment(parts) || by_status(parts.status)
}

/// Returns whether an answer asks for a payment, with which the same request is sent again: by the header of x402, or
/// by a challenge of the scheme `Payment`. One that says what became of a payment is an outcome: servers of x402 settle
/// after the effect.
fn asks_for_payment(parts: &Parts) -> bool {
    let has = |name| parts.headers.contains_key(name);
    parts.status == StatusCode::PAYMENT_REQUIRED
        && (has(PAYMENT_REQUIRED) || lines(&parts.headers, WWW_AUTHENTICATE).any(challenges_to_pay))
        && !PAYMENT_RESPONSES.into_iter().any(has)
}

/// Returns whether a field of challenges (RFC 9110, section 11.6.1) has one of the scheme `Payment`.
fn challenges_to_pay(value: &HeaderValue) -> bool {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let challenges = value.as_bytes().split(move |byte| {
        is_quoted ^= *byte == b'"' && !is_escaped;
        is_escaped = *byte == b'\\' && is_quoted && !is_escaped;
        *byte == b',' && !is_quoted
    });
    challenges.map(<[u8]>::trim_ascii).any(is_payment)
}

/// Returns whether a challenge, or credentials, are of the scheme `Payment`, whose name has no case.
pub(super) fn is_payment(value: &[u8]) -> bool {
    const SCHEME: &[u8] = b"payment";
    let (scheme, rest) = value.split_at_checked(SCHEME.len()).unwrap_or((value, b""));
    // With `=` it is a parameter of another challenge.
    let is_scheme = rest.first().is_none_or(|byte| matches!(byte, b' ' | b'\t'));
    scheme.eq_ignore_ascii_case(SCHEME) && is_scheme && !rest.trim_ascii_start().starts_with(b"=")
}

/// Returns whether the status leaves it unknown whether the request was applied.
pub(super) fn is_unknown(status: StatusCode) -> bool {
    matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT)
        || status != StatusCode::SWITCHING_PROTOCOLS && !is_of_answers(status)
}

/// Returns whether an answer can end with this status: interim ones (1xx) can't, and those from 600 on are none (RFC
/// 9110, section 15).
pub(crate) fn is_of_answers(status: StatusCode) -> bool {
    (200..600).contains(&status.as_u16())
}

/// Returns whether the status says so.
pub(super) fn by_status(status: StatusCode) -> bool {
    match status.as_u16() {
        // At another URI, with the same method.
        307 | 308 => true,
        // With other credentials.
        401 | 403 | 407 | 511 => true,
        // With another head, over another connection, or over another protocol.
        411 | 417 | 421 | 426 | 428 | 431 => true,
        // Later.
        425 | 429 => true,
        _ => false,
    }
}

/// Returns whether an answer may ask so, by its body.
fn names_nonce(parts: &Parts) -> bool {
    parts.status == StatusCode::BAD_REQUEST && parts.headers.contains_key(NONCE)
}

/// Returns whether the head says so, or the body or the trailers may.
pub(super) fn may_say_so(parts: &Parts) -> bool {
    by_head(parts) || names_nonce(parts) || is_of_grpc(&parts.headers)
}

/// Returns whether an answer asks for the same request with a nonce in its proof (RFC 9449, section 8).
pub(super) fn asks_for_nonce(parts: &Parts, whole: Option<&Bytes>) -> bool {
    #[derive(serde::Deserialize)]
    struct OfOAuth {
        error: String,
    }
    names_nonce(parts)
        && whole
            .and_then(|body| serde_json::from_slice::<OfOAuth>(body).ok())
            .is_some_and(|body| body.error == "use_dpop_nonce")
}
