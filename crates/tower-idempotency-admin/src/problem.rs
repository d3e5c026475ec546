//! Errors: RFC 9457 problems.

use crate::access::Permission;
use crate::timeout::Unread;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::json;
pub(crate) use tower_idempotency::internals::with_causes;

/// A request that gets nothing else.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) detail: String,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }

    /// Returns the error of a request that is wrong in itself.
    pub(crate) fn wrong(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(crate) fn not_permitted(permission: Permission) -> Self {
        let detail = format!("Your access does not include this: {}.", format!("{permission:?}").to_lowercase());
        Self::new(StatusCode::FORBIDDEN, detail)
    }
}

impl From<Unread> for Problem {
    fn from(error: Unread) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, with_causes(&error))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, detail } = self;
        let body = json!({ "title": status.canonical_reason(), "status": status.as_u16(), "detail": detail });
        (status, [(CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
    }
}

#[cfg(test)]
mod tests;
