//! Errors in the style of Stripe's API.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

use tower_idempotency::{Invalid, Release};

use crate::ledger::LedgerError;

#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<&'static str>,
    message: String,
    // `None`: it is an outcome.
    mark: Option<Mark>,
}

#[derive(Debug, Clone, Copy)]
enum Mark {
    Invalid,
    Release,
}

impl ApiError {
    /// Returns the error of a request that is wrong in itself, which is seen before anything happens. As with Stripe,
    /// the profile leaves its key free for the corrected request.
    pub(crate) fn invalid(param: impl Into<Option<&'static str>>, message: impl Into<String>) -> Self {
        let (status, param, message) = (StatusCode::BAD_REQUEST, param.into(), message.into());
        Self { status, kind: "invalid_request_error", code: None, param, message, mark: Some(Mark::Invalid) }
    }

    /// Returns the error of a request that conflicts with the ledger's state. It is an outcome: an earlier run of the
    /// request may have made that state.
    pub(crate) fn refused(param: &'static str, message: impl Into<String>) -> Self {
        Self { mark: None, ..Self::invalid(param, message) }
    }

    pub(crate) fn missing(param: &'static str, what: &str) -> Self {
        let error = Self::refused(param, format!("No such charge: '{what}'"));
        Self { status: StatusCode::NOT_FOUND, code: Some("resource_missing"), ..error }
    }

    pub(crate) fn not_found() -> Self {
        Self { status: StatusCode::NOT_FOUND, ..Self::invalid(None, "There is nothing under this address.") }
    }

    pub(crate) fn declined() -> Self {
        let message = "Your card was declined.".to_owned();
        let status = StatusCode::PAYMENT_REQUIRED;
        Self { status, kind: "card_error", code: Some("card_declined"), param: None, message, mark: None }
    }

    pub(crate) fn api(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, kind: "api_error", code: None, param: None, message: message.into(), mark: None }
    }

    /// Returns the error of a request that had no effect. Use it only where this is certain.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self { mark: Some(Mark::Release), ..Self::api(StatusCode::SERVICE_UNAVAILABLE, message) }
    }

    pub(crate) fn status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }
}

impl From<LedgerError> for ApiError {
    fn from(error: LedgerError) -> Self {
        if matches!(error, LedgerError::Away(_)) {
            tracing::warn!("{}", crate::chain(&error));
            return Self::unavailable("The ledger is not available; nothing was charged or refunded.");
        }
        tracing::error!("{}", crate::chain(&error));
        Self::api(StatusCode::INTERNAL_SERVER_ERROR, "The ledger could not be read or written.")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut error = json!({ "type": self.kind, "message": self.message });
        let members = [("code", self.code), ("param", self.param)];
        for (name, value) in members.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            error[name] = value.into();
        }
        let answer = (self.status, Json(json!({ "error": error }))).into_response();
        match self.mark {
            Some(Mark::Invalid) => (Invalid, answer).into_response(),
            Some(Mark::Release) => (Release, answer).into_response(),
            None => answer,
        }
    }
}
