//! The form of the layer's rejections here: problems, and errors in the style of Stripe's API.

use bytes::Bytes;
use http::header::{HeaderValue, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use serde_json::json;
use tower_idempotency::{Rejection, RejectionKind};

pub(crate) fn render(rejection: &Rejection) -> Response<Bytes> {
    let kind = match rejection.kind {
        RejectionKind::Custom => "authentication_error",
        _ => "idempotency_error",
    };
    let mut body = rejection.problem();
    body["error"] = json!({ "type": kind, "code": rejection.kind.slug(), "message": rejection.detail });
    let mut response = rejection.render();
    *response.body_mut() = Bytes::from(body.to_string());
    if !rejection.retry_with_same_key {
        // Stripe's clients retry every 409 and 5xx without this header.
        response.headers_mut().insert("stripe-should-retry", HeaderValue::from_static("false"));
    }
    if rejection.status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
