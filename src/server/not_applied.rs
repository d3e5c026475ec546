//! The statuses whose definitions say that the request was not applied, and that the same operation may be tried again:
//! elsewhere, later, with other credentials, or with another head.
//!
//! `docs/meanings.md` says of each where it is defined, and which other statuses come close.

use bytes::Bytes;
use http::StatusCode;
use http::header::{HeaderName, RETRY_AFTER};
use http::response::Parts;

/// A nonce that the server wants in the client's next proof (RFC 9449, section 8).
const NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// Returns whether the head says so.
pub(super) fn by_head(parts: &Parts) -> bool {
    // Later, if the server says when (RFC 9110, section 15.5.14).
    let is_later = parts.status == StatusCode::PAYLOAD_TOO_LARGE && parts.headers.contains_key(RETRY_AFTER);
    is_later || by_status(parts.status)
}

/// Returns whether the status leaves it unknown whether the request was applied.
pub(super) fn is_unknown(status: StatusCode) -> bool {
    matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT)
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

/// Returns whether an answer asks for the same request with a nonce in its proof (RFC 9449, section 8).
pub(super) fn asks_for_nonce(parts: &Parts, whole: Option<&Bytes>) -> bool {
    #[derive(serde::Deserialize)]
    struct OfOAuth {
        error: String,
    }
    parts.status == StatusCode::BAD_REQUEST
        && parts.headers.contains_key(NONCE)
        && whole
            .and_then(|body| serde_json::from_slice::<OfOAuth>(body).ok())
            .is_some_and(|body| body.error == "use_dpop_nonce")
}
