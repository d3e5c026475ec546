//! What an answer means for its key.

use http::{Extensions, StatusCode};

use crate::engine::OnInterrupted;

/// Marks an answer as given *before anything happened*: the key is freed, and a retry runs. Put it into the answer's
/// extensions, or, in axum, into what the handler returns: `(StatusCode::SERVICE_UNAVAILABLE, Release, "busy")`.
///
/// Only for answers of which the handler knows that there was no effect. A 503 of a downstream service *after* the charge
/// would make the retry a second charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release;

/// Marks an answer as an outcome that is to be recorded under [`OnInterrupted::Rerun`] even though its status (401, 403,
/// 408, 429 or 5xx) would free the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep;

/// What an error of the inner service says about the effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Started {
    /// Nothing happened: load was shed, say. The key is freed.
    No,
    /// Nobody knows.
    Unknown,
}

/// Whether an answer frees its key, instead of being recorded.
pub(super) fn frees_key(
    status: StatusCode,
    marks: &Extensions,
    policy: &OnInterrupted,
    not_started: &[StatusCode],
) -> bool {
    if marks.get::<Release>().is_some() {
        return true;
    }
    if marks.get::<Keep>().is_some() {
        return false;
    }
    match policy {
        OnInterrupted::Refuse | OnInterrupted::Reconcile(_) => not_started.contains(&status),
        OnInterrupted::Rerun => not_started.contains(&status) || is_transient(status),
    }
}

/// Statuses that a later try may not get.
fn is_transient(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
    ) || status.is_server_error()
}

#[cfg(feature = "axum")]
mod parts {
    use axum::response::{IntoResponseParts, ResponseParts};

    use super::{Keep, Release};

    impl IntoResponseParts for Release {
        type Error = std::convert::Infallible;

        fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Self::Error> {
            parts.extensions_mut().insert(self);
            Ok(parts)
        }
    }

    impl IntoResponseParts for Keep {
        type Error = std::convert::Infallible;

        fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Self::Error> {
            parts.extensions_mut().insert(self);
            Ok(parts)
        }
    }
}
