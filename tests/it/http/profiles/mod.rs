//! The profiles: an API answers as its clients expect, and each part of a profile can be changed.

mod acp;
mod changed;
mod stripe;

use axum::body::Body;
use http::Request;
use http::header::CONTENT_TYPE;
use serde_json::Value;
use testkit::Answer;
use testkit::lab::{keyed, layer};
use tower_idempotency::server::Profile;
use tower_idempotency::{IdempotencyLayer, MemoryStore};

fn acp() -> IdempotencyLayer<MemoryStore> {
    layer().profile(Profile::acp())
}

fn stripe() -> IdempotencyLayer<MemoryStore> {
    layer().profile(Profile::stripe())
}

fn json_to(path: &str, key: &str, body: impl Into<Body>) -> Request<Body> {
    keyed("POST", path, key).header(CONTENT_TYPE, "application/json").body(body.into()).unwrap()
}

fn session(body: impl Into<Body>) -> Request<Body> {
    json_to("/checkout_sessions", "k", body)
}

fn without_key(mut request: Request<Body>) -> Request<Body> {
    request.headers_mut().remove("idempotency-key");
    request
}

/// The error of Stripe's API: status, type, code, and whether its clients retry.
fn error(answer: &Answer) -> (u16, Value, Value, &str) {
    let body = answer.json();
    let (kind, code) = (body["error"]["type"].clone(), body["error"]["code"].clone());
    assert!(!body["error"]["message"].as_str().unwrap().is_empty());
    (answer.status.as_u16(), kind, code, answer.header("stripe-should-retry").unwrap_or_default())
}
