//! What an answer means: the service says so in a header, and the proxy where there is none.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_LENGTH, HeaderName, TRANSFER_ENCODING};
use http::response::Parts;
use http::{Extensions, StatusCode, Version};
use hyper::body::Incoming;
use tower_idempotency::server::{Effect, Envelope};
use tower_idempotency::{Invalid, Keep, Meaning, Rejection, Release, Unsure};

use crate::head;

/// By which a service says what its answer means. It does not get to the client.
const MARK: HeaderName = HeaderName::from_static("idempotency-mark");

/// When a client may send again what did not reach the service.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Makes the service's answer one for the client and the layer.
pub(crate) fn of_service(answer: http::Response<Incoming>) -> Response {
    let (mut parts, body) = answer.into_parts();
    let has_end = has_end(&parts);
    head::without_hop_by_hop(&mut parts.headers);
    (parts.version, parts.extensions) = (Version::default(), Extensions::new());
    let marks: Vec<_> = parts.headers.get_all(MARK).iter().cloned().collect();
    parts.headers.remove(MARK);
    // A service with a layer of its own says by itself what its refusals mean.
    let effect = parts.headers.remove(Effect::HEADER);
    match (marks.as_slice(), effect) {
        ([], None) if has_end || Meaning::of_answer(&parts, None) == Meaning::NotStarted => {}
        ([], Some(effect)) if effect.as_bytes().starts_with(b"none") => drop(parts.extensions.insert(Release)),
        ([mark], _) if mark == "release" => drop(parts.extensions.insert(Release)),
        ([mark], _) if mark == "keep" && has_end => drop(parts.extensions.insert(Keep)),
        ([mark], _) if mark == "invalid" => drop(parts.extensions.insert(Invalid)),
        // Also a word that is not known, two marks, and a body that may be cut: nothing runs again on a mistake.
        _ => drop(parts.extensions.insert(Unsure)),
    }
    Response::from_parts(parts, Body::new(body))
}

/// Returns whether the answer's head says where its body ends. If the end of the connection does (RFC 9112, section
/// 6.3), a body that is cut looks whole.
fn has_end(parts: &Parts) -> bool {
    let is_marked = parts.headers.contains_key(CONTENT_LENGTH) || parts.headers.contains_key(TRANSFER_ENCODING);
    is_marked
        || parts.version == Version::HTTP_2
        || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// The service was not reached: nothing was sent, so the key is freed.
pub(crate) fn not_reached(envelope: Envelope) -> Response {
    let detail = "The service behind this proxy can't be reached. The request was not sent to it; send it again.";
    let mut rejection = Rejection::custom(StatusCode::SERVICE_UNAVAILABLE, "The service can't be reached", detail);
    (rejection.retry_with_same_key, rejection.retry_after) = (true, Some(RETRY_AFTER));
    rendered(envelope, &rejection, Release)
}

/// The connection broke after the request was sent, or may have been. `is_answered`: a retry may get more than a refusal.
pub(crate) fn broken(envelope: Envelope, is_answered: bool) -> Response {
    let what = "The connection to the service broke after the request was sent. It is unknown whether it took effect.";
    let then = match is_answered {
        true => "Send it again with the same key.",
        false => "It is not sent again under this key. A new key could have it done a second time.",
    };
    let mut rejection =
        Rejection::custom(StatusCode::BAD_GATEWAY, "The service did not answer", format!("{what} {then}"));
    (rejection.effect, rejection.retry_with_same_key) = (Effect::Unknown, is_answered);
    rendered(envelope, &rejection, Unsure)
}

/// The request can't be passed on.
pub(crate) fn not_forwarded(envelope: Envelope, why: head::NotForwarded) -> Response {
    let detail = format!("This proxy does not pass the request on: {why}.");
    let rejection = Rejection::custom(StatusCode::BAD_REQUEST, "The request can't be passed on", detail);
    rendered(envelope, &rejection, Release)
}

fn rendered(envelope: Envelope, rejection: &Rejection, mark: impl Clone + Send + Sync + 'static) -> Response {
    let mut answer = envelope.render(rejection).map(Body::from);
    answer.extensions_mut().insert(mark);
    answer
}
