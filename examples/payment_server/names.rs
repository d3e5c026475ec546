//! The headers by which client and operator name an answer. Stripe's clients read both.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderName, HeaderValue};

use crate::ledger::random;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// Repeats the request's `Idempotency-Key`, and gives each answer a `Request-Id` of its own. This is outside the layer,
/// so that rejections have both, and a replay has the id of its own request and not that of the first.
pub(crate) async fn name(request: Request, next: Next) -> Response {
    let key = request.headers().get(KEY).cloned();
    let mut answer = next.run(request).await;
    if let Some(key) = key {
        answer.headers_mut().insert(KEY, key);
    }
    if let Some(id) = fresh_id() {
        answer.headers_mut().insert(REQUEST_ID, id);
    }
    answer
}

fn fresh_id() -> Option<HeaderValue> {
    // Without random numbers, the answer is sent without a `Request-Id`.
    let number = random().ok()?;
    HeaderValue::try_from(format!("req_{:032x}", u128::from_be_bytes(number))).ok()
}
