//! What an answer means: the service says so in a header, and the proxy where there is none.

use std::sync::Once;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::response::Parts;
use http::{Extensions, StatusCode, Version};
use hyper::body::Incoming;
use sfv::{BareItem, Item, Parser};
use tower_idempotency::engine::{Cause, Rerun};
use tower_idempotency::server::{Effect, Envelope};
use tower_idempotency::{Invalid, Keep, Meaning, Rejection, Release, Secret, Unsure};

use crate::body::Held;
use crate::head;

/// By which a service says what its answer means. As it was read here, it goes on to the caller, which may record, too.
const MARK: HeaderName = HeaderName::from_static("idempotency-mark");

/// When a client may send again what did not reach the service.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Makes the service's answer one for the client and the layer. `run` says whether the operation may have been sent to
/// the service before; `None`: the request is not covered. `envelope` says which dialect the client has.
pub(crate) fn of_service(
    answer: http::Response<Incoming>,
    held: impl FnOnce(Incoming, bool) -> Held<Incoming>,
    run: Option<Rerun>,
    envelope: Envelope,
) -> Response {
    let is_covered = run.is_some();
    let (mut parts, body) = answer.into_parts();
    let has_end = has_end(&parts);
    if parts.headers.contains_key(TRANSFER_ENCODING) {
        // It says nothing then (RFC 9112, section 6.3), and would cut the body.
        parts.headers.remove(CONTENT_LENGTH);
    }
    // See `Whole`.
    let body = held(body, parts.version == Version::HTTP_2);
    (parts.version, parts.extensions) = (Version::default(), Extensions::new());
    // These are read here, also if `Connection` says so.
    let marks: Vec<_> = parts.headers.get_all(MARK).iter().cloned().collect();
    parts.headers.remove(MARK);
    // A service with a layer of its own says by itself what its refusals mean, and the layer here whether a retry is of
    // use, as that one says. It is about the same operation.
    let effects: Vec<_> = parts.headers.get_all(Effect::HEADER).iter().filter(|_| is_covered).cloned().collect();
    if !marks.is_empty() {
        parts.headers.remove(Effect::HEADER);
    }
    head::without_hop_by_hop(&mut parts.headers);
    // After a 409, a client of Iceberg has deleted its files, and after a 419, which the profile `frees`, it gets
    // another token (docs/profiles.md).
    let is_iceberg = matches!(envelope, Envelope::Iceberg);
    let is_rpc = matches!(envelope, Envelope::JsonRpc);
    // A service that is asked again for the same operation answers so while it is still at it.
    let may_be_busy = parts.status == StatusCode::CONFLICT && run.is_some_and(|run| run != Rerun::No) && !is_iceberg;
    let is_free = Meaning::of_answer(&parts, None) == Meaning::NotStarted || is_iceberg && parts.status.as_u16() == 419;
    match (marks.as_slice(), effects.as_slice()) {
        ([], []) if may_be_busy => drop(parts.extensions.insert(Unsure)),
        ([], []) if has_end || is_free => {}
        // A success that says so contradicts itself, but for a refusal in JSON-RPC, whose status is 200.
        ([], [effect]) if is_none(effect) && (!parts.status.is_success() || is_rpc) => {
            parts.extensions.insert(Release);
        }
        ([], effects) => {
            if effects.is_empty() && is_covered {
                warn_of_no_end();
            }
            parts.extensions.insert(Unsure);
        }
        ([mark], _) if mark == "release" => marked(&mut parts, "release", Release),
        ([mark], _) if mark == "keep" && has_end => marked(&mut parts, "keep", Keep),
        // The head says that it took place. The answer is not stored, whether it is whole or not.
        ([mark], _) if mark == "secret" => marked(&mut parts, "secret", Secret),
        ([mark], _) if mark == "invalid" && has_end => marked(&mut parts, "invalid", Invalid),
        // Nothing was done, and what may be a half is not kept.
        ([mark], _) if mark == "invalid" => marked(&mut parts, "release", Release),
        // Also a word that is not known, two marks, and a body that may be cut: nothing runs again on a mistake.
        _ => marked(&mut parts, "unsure", Unsure),
    }
    Response::from_parts(parts, Body::new(body))
}

/// Says what an answer means: to the layer here, and to another one that has called this proxy.
fn marked(parts: &mut Parts, mark: &'static str, means: impl Clone + Send + Sync + 'static) {
    parts.headers.insert(MARK, HeaderValue::from_static(mark));
    parts.extensions.insert(means);
}

/// Logs a WARN, once: an operator who sees that each success of a service is unknown would not guess why.
fn warn_of_no_end() {
    static WARNED: Once = Once::new();
    WARNED.call_once(|| {
        tracing::warn!(
            "the service's answers have neither a Content-Length nor the coding chunked, so that one which is cut looks \
             whole: their outcome is unknown; let the service declare the length"
        );
    });
}

/// Whether the service says that nothing was done: an Item of structured fields (RFC 9651) with this Token.
fn is_none(effect: &HeaderValue) -> bool {
    let item = Parser::new(effect.as_bytes()).parse::<Item>();
    item.is_ok_and(|item| matches!(item.bare_item, BareItem::Token(token) if token.as_str() == "none"))
}

/// Returns whether the answer's head says where its body ends. If the end of the connection does (RFC 9112, section
/// 6.3), a body that is cut looks whole.
fn has_end(parts: &Parts) -> bool {
    if parts.version == Version::HTTP_2 || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return true;
    }
    let coding = parts.headers.get_all(TRANSFER_ENCODING).iter().next_back();
    match coding.map(|line| line.as_bytes().rsplit(|byte| *byte == b',').next().unwrap_or_default().trim_ascii()) {
        Some(last) => last.eq_ignore_ascii_case(b"chunked"),
        None => parts.headers.contains_key(CONTENT_LENGTH),
    }
}

/// The service was not reached: nothing was sent, so the key is freed.
pub(crate) fn not_reached(envelope: Envelope) -> Response {
    let detail = "The service behind this proxy can't be reached. The request was not sent to it; send it again.";
    let mut rejection = Rejection::custom(StatusCode::SERVICE_UNAVAILABLE, "The service can't be reached", detail);
    (rejection.retry_with_same_key, rejection.retry_after) = (true, Some(RETRY_AFTER));
    rendered(envelope, &rejection, Release)
}

/// The service has said that it did not process the request, so the key is freed.
pub(crate) fn refused(envelope: Envelope) -> Response {
    let detail = "The service has refused the request before it processed anything of it; send it again.";
    let mut rejection = Rejection::custom(StatusCode::SERVICE_UNAVAILABLE, "The service takes no request now", detail);
    (rejection.retry_with_same_key, rejection.retry_after) = (true, Some(RETRY_AFTER));
    rendered(envelope, &rejection, Release)
}

/// Why a request that was sent has no answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unanswered {
    /// The connection broke.
    Broken,
    /// The answer is none that can be read.
    Unreadable,
    /// It did not come in time.
    Late,
}

/// A request was sent, or may have been, and has no answer. `is_answered`: a retry may get more than a refusal; `None`:
/// it has no key.
pub(crate) fn unanswered(envelope: Envelope, why: Unanswered, is_answered: Option<bool>) -> Response {
    let (status, what) = match why {
        Unanswered::Broken => {
            (StatusCode::BAD_GATEWAY, "The connection to the service broke after the request was sent.")
        }
        Unanswered::Unreadable => (StatusCode::BAD_GATEWAY, "The service's answer could not be read."),
        Unanswered::Late => (StatusCode::GATEWAY_TIMEOUT, "The service did not answer in time."),
    };
    let then = match is_answered {
        Some(true) => "Send it again with the same key.",
        Some(false) => "It is not sent again under this key. A new key could have it done a second time.",
        None => "Sent again, it could be done a second time.",
    };
    let detail = format!("{what} It is unknown whether the request took effect. {then}");
    let mut rejection = Rejection::custom(status, "The service did not answer", detail);
    (rejection.effect, rejection.retry_with_same_key) = (Effect::Unknown, is_answered == Some(true));
    let mut answer = rendered(envelope, &rejection, Unsure);
    answer.extensions_mut().insert(Cause::Broken);
    answer
}

/// There is no place for the request: nothing was sent, so the key is freed. `is_answered`: there is none for its
/// answer, which is recorded.
pub(crate) fn busy(envelope: Envelope, is_answered: bool) -> Response {
    let (effect, detail) = match is_answered {
        true => (Effect::Unknown, "Too many answers are not read yet. Send the request again with the same key."),
        false => (Effect::None, "Too many requests are under way. The request was not sent on; send it again."),
    };
    let mut rejection = Rejection::custom(StatusCode::SERVICE_UNAVAILABLE, "The proxy is overloaded", detail);
    (rejection.retry_with_same_key, rejection.retry_after, rejection.effect) = (true, Some(RETRY_AFTER), effect);
    rendered(envelope, &rejection, Release)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_answer_is_declared_by_its_version_its_status_its_coding_or_its_length() {
        for (version, status, lines, expected) in [
            (Version::HTTP_11, 200, &[][..], false),
            (Version::HTTP_10, 200, &[], false),
            (Version::HTTP_2, 200, &[], true),
            (Version::HTTP_11, 204, &[], true),
            (Version::HTTP_11, 304, &[], true),
            (Version::HTTP_11, 205, &[], false),
            (Version::HTTP_11, 200, &[("content-length", "5")], true),
            (Version::HTTP_10, 200, &[("content-length", "5")], true),
            (Version::HTTP_11, 200, &[("transfer-encoding", "chunked")], true),
            (Version::HTTP_11, 200, &[("transfer-encoding", "gzip, Chunked")], true),
            (Version::HTTP_11, 200, &[("transfer-encoding", "gzip"), ("transfer-encoding", "chunked")], true),
            (Version::HTTP_11, 200, &[("transfer-encoding", "chunked, gzip")], false),
            (Version::HTTP_11, 200, &[("transfer-encoding", "chunked"), ("transfer-encoding", "gzip")], false),
            (Version::HTTP_11, 200, &[("transfer-encoding", "")], false),
            // The coding counts, whatever the length says.
            (Version::HTTP_11, 200, &[("transfer-encoding", "identity"), ("content-length", "5")], false),
            (Version::HTTP_11, 200, &[("transfer-encoding", "chunked"), ("content-length", "5")], true),
            // What has no body needs no end, whatever its head says.
            (Version::HTTP_11, 204, &[("transfer-encoding", "identity")], true),
            (Version::HTTP_2, 200, &[("transfer-encoding", "identity")], true),
        ] {
            let answer = http::Response::builder().version(version).status(status);
            let answer = lines.iter().fold(answer, |answer, (name, value)| answer.header(*name, *value));
            let (parts, ()) = answer.body(()).unwrap().into_parts();
            assert_eq!(has_end(&parts), expected, "{version:?} {status} {lines:?}");
        }
    }
}
