//! Rejections in the form that gRPC clients understand: an answer without a body whose head has the status. The gRPC
//! specification (gRPC over HTTP/2, "Responses") calls this *Trailers-Only*.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::rejection::{Rejection, RejectionKind};

/// The content type of gRPC, for the call and for the answer.
const GRPC: &str = "application/grpc";
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// The bytes that a status message must escape. Bytes beyond ASCII must be escaped too.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// Returns the rejection as a gRPC status, whose message begins with the kind's [`slug`](RejectionKind::slug).
pub(crate) fn render(rejection: &Rejection) -> Response<Bytes> {
    let mut message = rejection.to_string();
    // There is no problem JSON here, so the message has the id.
    if let Some(id) = &rejection.record_id {
        message.push_str(&format!(" (record_id {})", id.short()));
    }
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    headers.insert(GRPC_STATUS, code(rejection).into());
    // The escaped message is printable ASCII, which every header value may have.
    if let Ok(message) = HeaderValue::try_from(utf8_percent_encode(&message, ESCAPED).to_string()) {
        headers.insert(GRPC_MESSAGE, message);
    }
    rejection.say(headers);
    response
}

/// Returns the number of the gRPC status, as the gRPC specification has it ("Status codes").
fn code(rejection: &Rejection) -> u16 {
    const UNKNOWN: u16 = 2;
    const INVALID_ARGUMENT: u16 = 3;
    const NOT_FOUND: u16 = 5;
    const PERMISSION_DENIED: u16 = 7;
    const RESOURCE_EXHAUSTED: u16 = 8;
    const FAILED_PRECONDITION: u16 = 9;
    const ABORTED: u16 = 10;
    const UNAVAILABLE: u16 = 14;
    const UNAUTHENTICATED: u16 = 16;
    match rejection.kind {
        RejectionKind::KeyMissing | RejectionKind::KeyMalformed => INVALID_ARGUMENT,
        RejectionKind::BodyTooLarge | RejectionKind::StoreFull => RESOURCE_EXHAUSTED,
        RejectionKind::StoreUnavailable
        | RejectionKind::Overloaded
        | RejectionKind::ShuttingDown
        | RejectionKind::BodyIncomplete => UNAVAILABLE,
        RejectionKind::InFlight => ABORTED,
        RejectionKind::NotFound => NOT_FOUND,
        RejectionKind::OutcomeUnknown => UNKNOWN,
        RejectionKind::KeyReused
        | RejectionKind::CredentialsChanged
        | RejectionKind::NotVerifiable
        | RejectionKind::NotReplayable => FAILED_PRECONDITION,
        RejectionKind::Custom => match rejection.status {
            StatusCode::BAD_REQUEST => INVALID_ARGUMENT,
            StatusCode::UNAUTHORIZED => UNAUTHENTICATED,
            StatusCode::FORBIDDEN => PERMISSION_DENIED,
            StatusCode::NOT_FOUND => NOT_FOUND,
            StatusCode::TOO_MANY_REQUESTS => RESOURCE_EXHAUSTED,
            StatusCode::SERVICE_UNAVAILABLE => UNAVAILABLE,
            // Any other status that the application's scope function rejects with.
            _ => FAILED_PRECONDITION,
        },
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use tower_idempotency_meaning::is_of_grpc;

    use super::*;

    #[test]
    fn a_call_is_known_by_its_content_type() {
        let is_call = |content_type: &'static str| {
            is_of_grpc(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]))
        };
        assert!(["application/grpc", "Application/gRPC+proto", "application/grpc;x=y"].into_iter().all(is_call));
        // gRPC-Web has its status in the body. tonic-web, outside the layer, turns it into a gRPC call.
        assert!(!["application/grpc-web", "application/json", ""].into_iter().any(is_call));
        assert!(!is_of_grpc(&HeaderMap::new()));
    }

    #[test]
    fn a_rejection_has_no_body_and_its_status_in_the_head() {
        let rejection = Rejection::custom(StatusCode::FORBIDDEN, "No", "90 % of clés\nare refused");
        let response = render(&rejection);
        assert_eq!((response.status(), response.body().len()), (StatusCode::OK, 0));
        assert_eq!(response.headers()["grpc-status"], "7");
        assert_eq!(response.headers()["grpc-message"], "custom: 90 %25 of cl%C3%A9s%0Aare refused");
    }

    #[test]
    fn what_may_have_been_done_is_no_invalid_argument() {
        for kind in RejectionKind::ALL {
            let rejection = Rejection::new(*kind, "");
            assert!(code(&rejection) != 3 || rejection.effect == crate::server::Effect::None, "{kind:?}");
        }
    }

    #[test]
    fn only_an_unknown_outcome_is_the_status_unknown() {
        for kind in RejectionKind::ALL {
            let is_unknown = code(&Rejection::new(*kind, "")) == 2;
            assert_eq!(is_unknown, *kind == RejectionKind::OutcomeUnknown, "{kind:?}");
        }
    }
}
