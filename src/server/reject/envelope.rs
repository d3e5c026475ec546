//! The forms of rejections that are not problem details alone.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::rejection::{Rejection, RejectionKind};

/// Adds to a problem what Stripe's clients read.
pub(crate) fn stripe(rejection: &Rejection) -> Response<Bytes> {
    let mut body = rejection.problem();
    let kind = stripe_type(rejection.kind, rejection.status);
    body["error"] = json!({ "type": kind, "code": rejection.code(), "message": rejection.detail });
    let mut response = rejection.render();
    *response.body_mut() = body.to_string().into();
    response
}

/// Returns the type of an error in Stripe's API. Its clients make a class of error of each.
fn stripe_type(kind: RejectionKind, status: StatusCode) -> &'static str {
    match kind {
        RejectionKind::Custom if status == StatusCode::UNAUTHORIZED => "authentication_error",
        RejectionKind::KeyMissing | RejectionKind::KeyMalformed => "invalid_request_error",
        RejectionKind::BodyTooLarge | RejectionKind::BodyIncomplete => "invalid_request_error",
        _ if status.is_server_error() => "api_error",
        RejectionKind::Custom => "invalid_request_error",
        _ => "idempotency_error",
    }
}

/// Returns the flat form of the Agentic Commerce Protocol, which permits no other members.
pub(crate) fn flat(rejection: &Rejection) -> Response<Bytes> {
    let kind = match rejection.status {
        StatusCode::SERVICE_UNAVAILABLE => "service_unavailable",
        status if status.is_server_error() => "processing_error",
        _ => "invalid_request",
    };
    plain(rejection, &json!({ "type": kind, "code": rejection.code(), "message": rejection.detail }))
}

/// Returns the error of Apache Iceberg's REST catalog, which permits no member but `error` (`IcebergErrorResponse`).
pub(crate) fn iceberg(rejection: &Rejection) -> Response<Bytes> {
    let code = rejection.status.as_u16();
    plain(rejection, &json!({ "error": { "message": rejection.detail, "type": rejection.code(), "code": code } }))
}

/// The code of the server's own errors (JSON-RPC 2.0, section 5.1) that says that the layer has refused. Those that
/// MCP and its clients use are others.
const REFUSED: i32 = -32060;

/// Returns an error of JSON-RPC 2.0 (section 5.1). `rpc/reply.rs` sets the `id` of the call.
pub(crate) fn json_rpc(rejection: &Rejection) -> Response<Bytes> {
    let code = match rejection.kind {
        RejectionKind::KeyMissing | RejectionKind::KeyMalformed => -32602,
        _ => REFUSED,
    };
    let mut data = rejection.problem();
    data["effect"] = rejection.effect.name().into();
    if let Some(seconds) = rejection.retry_after_seconds() {
        data["retry_after"] = seconds.into();
    }
    // Some clients show the message alone to their caller.
    let record = data["record_id"].as_str().map(|id| format!(" (record {id})")).unwrap_or_default();
    let error = json!({ "code": code, "message": format!("{}{record}", rejection.detail), "data": data });
    let mut response = rejection.render();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *response.body_mut() = json!({ "jsonrpc": "2.0", "id": null, "error": error }).to_string().into();
    response
}

/// Returns an answer with this body, in whose form `Retry-After` alone says that a retry is of use.
fn plain(rejection: &Rejection, body: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = rejection.status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if rejection.retry_with_same_key {
        // Nothing else in this form says that a retry is of use. A rejection with a pause of its own overwrites it
        // below.
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    }
    rejection.say(response.headers_mut());
    response
}
