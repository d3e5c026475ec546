//! What an answer means for its key: the one place that decides it.
//!
//! Rules:
//! 1. The handler's mark wins: [`Unknown`], [`Keep`], [`Release`]; in this order, where there are several, so that the one
//!    that can't make a second effect is taken.
//! 2. Else [`Classify`] says it, once the answer's body is complete: it sees the head and the trailers. An answer that is
//!    passed on before it is complete is judged by its head.
//! 3. Only a final answer is recorded.
//! 4. What a handler was answered by a request of its own says nothing of the handler's effect. So a refusal that it passes
//!    on is unknown, and marks don't leave an exchange that another one encloses (`exchange.rs`).

use std::any::Any;
use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::response::Parts;
use http::{Extensions, HeaderMap, StatusCode};

use super::rejection::Rejection;
use crate::engine::OnInterrupted;

/// Marks an answer as given *before anything happened*: the key is freed, and a retry runs. Put it into the answer's
/// extensions, or, in axum, into what the handler returns: `(StatusCode::SERVICE_UNAVAILABLE, Release, "busy")`. Alone it
/// is an answer too: 503.
///
/// Only for answers of which the handler knows that there was no effect. A 503 of a downstream service *after* the charge
/// would make the retry a second charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release;

/// Marks an answer as final: it is recorded and replayed, whatever its status. Alone it is an answer too: 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep;

/// Marks an answer as "nobody knows whether it took effect": the handler's call to the card network timed out, say. The
/// answer goes to its client as it is; the operation is interrupted, and a retry gets what
/// [`on_interrupted`](crate::IdempotencyLayer::on_interrupted) says. Put it into the answer's extensions, or, in axum, into
/// what the handler returns: `(StatusCode::BAD_GATEWAY, Unknown, "the card network did not answer")`. Alone it is an answer
/// too: 504.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unknown;

/// What an answer, or an error of the inner service, says about the effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// This is the outcome, success or not: it is recorded and replayed.
    Final,
    /// Nothing happened: the key is freed, and a retry runs.
    NotStarted,
    /// Nobody knows: the operation is interrupted, and a retry gets what the policy says.
    Unknown,
}

/// Decides what answers mean that their handler has not marked.
///
/// A closure that takes the head and the trailers is one. What it has no opinion on it leaves to
/// [`Meaning::of_answer`], or under [`Rerun`](OnInterrupted::Rerun) to [`Meaning::of_answer_under_rerun`]:
/// ```
/// use http::response::Parts;
/// use http::{HeaderMap, StatusCode};
/// use tower_idempotency::server::Meaning;
/// use tower_idempotency::{IdempotencyLayer, MemoryStore};
///
/// let layer = IdempotencyLayer::new(MemoryStore::new()).classify(|parts: &Parts, trailers: Option<&HeaderMap>| {
///     match parts.status {
///         // Here only the admission check answers so, before anything else.
///         StatusCode::TOO_MANY_REQUESTS => Meaning::NotStarted,
///         _ => Meaning::of_answer(parts, trailers),
///     }
/// });
/// ```
/// Errors of the inner service are unknown unless [`error`](Self::error) says otherwise. With tower's load shed inside:
/// ```
/// use std::any::Any;
/// use tower::BoxError;
/// use tower::load_shed::error::Overloaded;
/// use tower_idempotency::server::{Classify, Meaning};
///
/// struct Shedding;
///
/// impl Classify for Shedding {
///     fn error(&self, error: &dyn Any) -> Meaning {
///         match error.downcast_ref::<BoxError>() {
///             Some(error) if error.is::<Overloaded>() => Meaning::NotStarted,
///             _ => Meaning::Unknown,
///         }
///     }
/// }
/// ```
pub trait Classify: Send + Sync + 'static {
    /// What an answer means; `None` leaves it to the policy's default. `trailers` are those of its body, or `None` where it
    /// has none, or is passed on before it is complete. Called once for an answer without a mark; a panic counts as the
    /// handler's. Default: `None`.
    fn answer(&self, parts: &Parts, trailers: Option<&HeaderMap>) -> Option<Meaning> {
        let _ = (parts, trailers);
        None
    }

    /// What an error of the inner service means; `error` is of that service's error type. An error can't be replayed, so
    /// [`Meaning::Final`] counts as unknown. Default: unknown.
    fn error(&self, error: &dyn Any) -> Meaning {
        let _ = error;
        Meaning::Unknown
    }
}

impl<F> Classify for F
where
    F: Fn(&Parts, Option<&HeaderMap>) -> Meaning + Send + Sync + 'static,
{
    fn answer(&self, parts: &Parts, trailers: Option<&HeaderMap>) -> Option<Meaning> {
        Some(self(parts, trailers))
    }
}

impl Meaning {
    /// What an answer means by default, under [`Refuse`](OnInterrupted::Refuse) and [`Reconcile`](OnInterrupted::Reconcile):
    /// 408, 502 and 504 are unknown, and so are gRPC's `CANCELLED`, `UNKNOWN` and `DEADLINE_EXCEEDED`, in the trailers or,
    /// where there is nothing but a head, there; and so is a refusal of another idempotency layer that the handler passes
    /// on. All else is final.
    #[must_use]
    pub fn of_answer(parts: &Parts, trailers: Option<&HeaderMap>) -> Self {
        const UNKNOWN: [StatusCode; 3] =
            [StatusCode::REQUEST_TIMEOUT, StatusCode::BAD_GATEWAY, StatusCode::GATEWAY_TIMEOUT];
        // CANCELLED, UNKNOWN, DEADLINE_EXCEEDED.
        const UNKNOWN_IN_GRPC: [&[u8]; 3] = [b"1", b"2", b"4"];
        let is_unknown = UNKNOWN.contains(&parts.status)
            || grpc_status(parts, trailers).is_some_and(|status| UNKNOWN_IN_GRPC.contains(&status.as_bytes()))
            || parts.extensions.get::<Rejection>().is_some();
        if is_unknown { Self::Unknown } else { Self::Final }
    }

    /// What an answer means by default under [`Rerun`](OnInterrupted::Rerun): 401, 403, 408, 429 and 5xx are not started,
    /// so that a retry runs; all else as [`of_answer`](Self::of_answer) says.
    #[must_use]
    pub fn of_answer_under_rerun(parts: &Parts, trailers: Option<&HeaderMap>) -> Self {
        const TRANSIENT: [StatusCode; 4] = [
            StatusCode::UNAUTHORIZED,
            StatusCode::FORBIDDEN,
            StatusCode::REQUEST_TIMEOUT,
            StatusCode::TOO_MANY_REQUESTS,
        ];
        if TRANSIENT.contains(&parts.status) || parts.status.is_server_error() {
            return Self::NotStarted;
        }
        Self::of_answer(parts, trailers)
    }

    /// What the handler's marks say, if there are any.
    pub(super) fn of_marks(marks: &Extensions) -> Option<Self> {
        if marks.is_empty() {
            None
        } else if marks.get::<Unknown>().is_some() {
            Some(Self::Unknown)
        } else if marks.get::<Keep>().is_some() {
            Some(Self::Final)
        } else {
            marks.get::<Release>().map(|_| Self::NotStarted)
        }
    }

    /// Takes the marks out of an answer.
    pub(super) fn unmark(marks: &mut Extensions) {
        marks.remove::<Unknown>();
        marks.remove::<Keep>();
        marks.remove::<Release>();
    }

    /// What an answer without a mark means.
    pub(super) fn classified(
        classify: Option<&Arc<dyn Classify>>,
        policy: &OnInterrupted,
        parts: &Parts,
        trailers: Option<&HeaderMap>,
    ) -> Self {
        let classified = classify.and_then(|classify| classify.answer(parts, trailers));
        classified.unwrap_or_else(|| match policy {
            OnInterrupted::Rerun => Self::of_answer_under_rerun(parts, trailers),
            OnInterrupted::Refuse | OnInterrupted::Reconcile(_) => Self::of_answer(parts, trailers),
        })
    }
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

fn grpc_status<'a>(parts: &'a Parts, trailers: Option<&'a HeaderMap>) -> Option<&'a HeaderValue> {
    trailers.and_then(|trailers| trailers.get(&GRPC_STATUS)).or_else(|| parts.headers.get(&GRPC_STATUS))
}

/// Whether a complete answer is gRPC's and has no status: its client takes that for `UNKNOWN`.
pub(super) fn is_grpc_without_status(parts: &Parts, trailers: Option<&HeaderMap>) -> bool {
    let Some(media_type) = parts.headers.get(CONTENT_TYPE) else { return false };
    let rest = media_type.as_bytes().strip_prefix(b"application/grpc");
    // `application/grpc-web` has its trailers in the body.
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
        && grpc_status(parts, trailers).is_none()
}

/// Answers a panic that tower-http's `CatchPanicLayer::custom` has caught *inside* the idempotency layer: 500, marked
/// [`Unknown`], logged with the panic's message. Without it that layer's answer would be recorded as the outcome of a
/// handler that was cut half-way.
/// ```
/// use tower_http::catch_panic::CatchPanicLayer;
/// use tower_idempotency::server::answer_panic;
///
/// let inside = CatchPanicLayer::custom(answer_panic);
/// ```
#[must_use]
pub fn answer_panic(panic: Box<dyn Any + Send>) -> http::Response<http_body_util::Full<bytes::Bytes>> {
    let message = panic.downcast_ref::<&str>().copied();
    let message = message.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("not a text");
    tracing::error!(target: "tower_idempotency", message, "the handler panicked");
    let mut response = http::Response::new("The request was cut short; nobody knows whether it took effect.".into());
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.extensions_mut().insert(Unknown);
    response
}

#[cfg(feature = "axum")]
mod parts {
    use std::convert::Infallible;

    use axum::response::{IntoResponse, IntoResponseParts, Response, ResponseParts};
    use http::StatusCode;

    use super::{Keep, Release, Unknown};

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
    mark!(Unknown, StatusCode::GATEWAY_TIMEOUT);
}
