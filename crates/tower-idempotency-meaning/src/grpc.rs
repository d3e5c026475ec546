//! The status of gRPC, in the trailers of an answer, or in the head of one without a body.

use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderName};

use crate::answer::{Answer, Says, lines, only};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC: &[u8] = b"application/grpc";

/// Returns whether a message with these headers is gRPC's, a call or its answer: its content type is
/// `application/grpc`, or one such as `application/grpc+proto`. `application/grpc-web` is another protocol, and has its
/// trailers in the body.
#[must_use]
#[inline]
pub fn is_of_grpc(headers: &HeaderMap) -> bool {
    only(lines(headers, CONTENT_TYPE)).and_then(|only| only.split_at_checked(GRPC.len())).is_some_and(|(kind, rest)| {
        // Most other types differ in this byte, which is looked at more quickly than all of them.
        rest.first().is_none_or(|next| b"+; ".contains(next)) && kind.eq_ignore_ascii_case(GRPC)
    })
}

/// Returns the status of a gRPC answer. It is in the trailers, or in the head if the answer has no body. Of two,
/// neither counts: the answer is UNKNOWN.
#[must_use]
#[inline]
pub fn grpc_status<'a>(headers: &'a HeaderMap, trailers: Option<&'a HeaderMap>) -> Option<&'a [u8]> {
    let in_field = |headers: &'a HeaderMap| {
        let mut lines = lines(headers, GRPC_STATUS);
        lines.next().map(|first| if lines.next().is_some() { b"2" } else { first })
    };
    trailers.and_then(in_field).or_else(|| in_field(headers))
}

/// Returns what the status of a gRPC answer says.
pub(crate) fn judge(answer: &Answer<'_>) -> Option<Says> {
    if !is_of_grpc(answer.headers) {
        return None;
    }
    let Some(status) = grpc_status(answer.headers, answer.trailers) else {
        // gRPC's clients take it for UNKNOWN. Any other status of HTTP is a gateway's, and says more.
        return answer.status.is_success().then_some(Says::Unknown);
    };
    Some(match status {
        b"0" => Says::Done,
        // CANCELLED, UNKNOWN, DEADLINE_EXCEEDED.
        b"1" | b"2" | b"4" => Says::Unknown,
        // PERMISSION_DENIED, UNAUTHENTICATED.
        b"7" => Says::NotStarted,
        b"16" => Says::Unauthenticated,
        // INTERNAL, UNAVAILABLE, DATA_LOSS: also what a gateway says that has lost the answer.
        b"13" | b"14" | b"15" => Says::Failed,
        [b'0'..=b'9'] | [b'1', b'0'..=b'2'] => Says::Refused,
        // gRPC's clients take any other one for UNKNOWN.
        _ => Says::Unknown,
    })
}
