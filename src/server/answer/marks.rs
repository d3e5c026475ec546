//! Marks for the extensions of an answer, by which a handler says what the answer means.
//!
//! `meaning.rs` decides what follows from a mark.

use std::any::Any;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Extensions, StatusCode};

use crate::panics::panic_message;
use crate::slots::{LogThrottle, once_a_minute};

/// Limits the log lines of [`answer_panic`], for all layers of the process together.
static PANICS: LogThrottle = LogThrottle::new();

/// Marks an answer as given *before anything happened*: the key is freed, and a retry runs. Put it into the answer's
/// extensions, or, in axum, into what the handler returns: `(StatusCode::SERVICE_UNAVAILABLE, Release, "busy")`. The
/// mark goes before the body: axum takes the last element of a tuple for the body. Alone it is an answer too: 503.
///
/// Use it only if the handler knows that there was no effect. If it marked a downstream service's 503 *after* the
/// charge, the retry would be a second charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release;

/// Marks an answer as final: it is recorded and replayed, whatever its status. Alone it is an answer too: 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep;

/// Marks an answer as one that leaves unknown whether the operation took effect, for example because the handler's call
/// to the card network timed out. The client gets the answer as it is; the operation is interrupted, and a retry gets
/// what [`on_interrupted`](crate::IdempotencyLayer::on_interrupted) says. Put the mark into the answer's extensions,
/// or, in axum, into what the handler returns: `(StatusCode::BAD_GATEWAY, Unsure, "the card network did not answer")`.
/// Alone it is an answer too: 504.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsure;

/// Marks an answer as the refusal of a request that is wrong in itself, *before anything happened*: a field is missing,
/// or is no number. The layer's [`Profile`](crate::server::Profile) says what follows: by default the answer is
/// recorded and replayed; with [`Profile::stripe`](crate::server::Profile::stripe) the key is freed for the corrected
/// request. [`Release`] frees it in any case. Put the mark into the answer's extensions, or, in axum, into what the
/// handler returns: `(StatusCode::UNPROCESSABLE_ENTITY, Invalid, "the amount is no number")`. Alone it is an answer
/// too: 400. [`Checked`](crate::server::Checked) sets it on what an extractor rejects.
///
/// Use it only where the check comes before the first effect and looks at nothing but the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invalid;

/// Marks an answer as final, and as one that shows a secret once: a new API key, a card number, a one-time link. **It
/// is never stored**: only the fact that the operation has ended, with this status. The client gets the whole answer. A
/// retry, and a request that waits for the run, gets 409 `not-replayable` with `original_status`: the layer does not
/// read the answer, so that there is none to give. Put the mark into the answer's extensions, or, in axum, into what
/// the handler returns: `(StatusCode::CREATED, Secret, Json(key))`. Alone it is an answer too: 200.
///
/// A client that has lost the answer has to get another secret, and the one that was not seen has to be revoked: say in
/// your API's documentation how.
///
/// An answer that is committed with its effect is stored by the transaction. One with this mark is refused there:
/// [`TransactionError::Unrecordable`](crate::store::TransactionError::Unrecordable).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Secret;

/// Marks an answer that was [`Secret`] in another exchange: it says nothing of this operation, and is not stored.
#[derive(Debug, Clone, Copy)]
struct NotStored;

/// Returns whether an answer may not be stored.
pub(crate) fn is_secret(extensions: &Extensions) -> bool {
    !extensions.is_empty() && (extensions.get::<Secret>().is_some() || extensions.get::<NotStored>().is_some())
}

/// Removes the marks from an answer.
pub(crate) fn remove(extensions: &mut Extensions) {
    extensions.remove::<Invalid>();
    extensions.remove::<Unsure>();
    // What it says of the answer's bytes holds for each exchange that passes them on.
    if extensions.remove::<Secret>().is_some() {
        extensions.insert(NotStored);
    }
    extensions.remove::<Keep>();
    extensions.remove::<Release>();
}

/// Removes all that an answer says of its own exchange, and so all but that it is not stored.
pub(crate) fn clear(extensions: &mut Extensions) {
    let is_secret = is_secret(extensions);
    extensions.clear();
    if is_secret {
        extensions.insert(NotStored);
    }
}

/// Answers a panic that tower-http's `CatchPanicLayer::custom` has caught *inside* the idempotency layer. The answer is
/// a 500 that is marked [`Unsure`], and the panic's message is logged, at most once a minute. Without this function,
/// the answer of `CatchPanicLayer` would be recorded as the outcome of a handler that was interrupted half-way.
/// ```
/// use tower_http::catch_panic::CatchPanicLayer;
/// use tower_idempotency::server::answer_panic;
///
/// let inside = CatchPanicLayer::custom(answer_panic);
/// ```
#[must_use]
pub fn answer_panic(panic: Box<dyn Any + Send>) -> http::Response<String> {
    let panic = panic_message(&*panic);
    once_a_minute!(PANICS, error, panic, "the handler panicked");
    // The client does not get the panic's message, which may have secrets.
    let body = "The request was interrupted; it is unknown whether it took effect.";
    let mut response = http::Response::new(body.to_owned());
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.extensions_mut().insert(Unsure);
    response
}

#[cfg(feature = "axum")]
mod parts {
    use std::convert::Infallible;

    use axum::response::{IntoResponse, IntoResponseParts, Response, ResponseParts};
    use http::StatusCode;

    use super::{Invalid, Keep, Release, Secret, Unsure};

    /// Lets a handler return a mark as a part of its answer, or alone, with this status.
    macro_rules! mark {
        ($mark:ident, $status:expr) => {
            impl IntoResponseParts for $mark {
                type Error = Infallible;

                fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Infallible> {
                    parts.extensions_mut().insert(self);
                    Ok(parts)
                }
            }

            impl IntoResponse for $mark {
                fn into_response(self) -> Response {
                    ($status, self, ()).into_response()
                }
            }
        };
    }

    mark!(Release, StatusCode::SERVICE_UNAVAILABLE);
    mark!(Keep, StatusCode::OK);
    mark!(Secret, StatusCode::OK);
    mark!(Unsure, StatusCode::GATEWAY_TIMEOUT);
    mark!(Invalid, StatusCode::BAD_REQUEST);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What another layer has left.
    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Other;

    // Each set of marks. Seeded fault: `clear` forgets that an answer is secret.
    #[test]
    fn an_answer_that_is_passed_on_has_no_mark_and_stays_secret() {
        for set in 0..1_u8 << 6 {
            let is_in = |number: u8| set & (1 << number) != 0;
            let mut extensions = Extensions::new();
            extensions.insert(Other);
            is_in(0).then(|| extensions.insert(Invalid));
            is_in(1).then(|| extensions.insert(Unsure));
            is_in(2).then(|| extensions.insert(Keep));
            is_in(3).then(|| extensions.insert(Release));
            is_in(4).then(|| extensions.insert(Secret));
            is_in(5).then(|| extensions.insert(NotStored));
            for (pass_on, is_cleared) in [(remove as fn(&mut Extensions), false), (clear, true)] {
                let mut left = extensions.clone();
                pass_on(&mut left);
                assert_eq!(is_secret(&left), is_in(4) || is_in(5), "{set:b}");
                assert_eq!(left.get::<Other>().is_none(), is_cleared, "{set:b}");
                let has_unsure_or_invalid = left.get::<Unsure>().is_some() || left.get::<Invalid>().is_some();
                let has_keep_or_release = left.get::<Keep>().is_some() || left.get::<Release>().is_some();
                assert!(!has_unsure_or_invalid && !has_keep_or_release && left.get::<Secret>().is_none(), "{set:b}");
            }
        }
    }
}
