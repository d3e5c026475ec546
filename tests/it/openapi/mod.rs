//! The OpenAPI document says what the layer does, and keeps what the application says.

mod compared;
mod driven;
mod merged;
mod parameter;

use serde_json::{Value, json};
use tower_idempotency::IdempotencyLayer;
use utoipa::openapi::OpenApi;

/// A document with these paths, and these parts besides.
fn api(paths: &Value, mut besides: Value) -> OpenApi {
    besides["openapi"] = json!("3.1.0");
    besides["info"] = json!({ "title": "Payments", "version": "1" });
    besides["paths"] = paths.clone();
    serde_json::from_value(besides).expect("a valid document")
}

/// An operation whose handler answers 200 with a text.
fn charge() -> Value {
    json!({ "responses": { "200": { "description": "Charged", "content": { "text/plain": {} } } } })
}

/// A document with one operation, as `layer` documents it.
fn documented<St>(layer: &IdempotencyLayer<St>) -> Value {
    let mut api = api(&json!({ "/charges": { "post": charge() } }), json!({}));
    layer.document(&mut api);
    serde_json::to_value(api).expect("a document is JSON")
}
