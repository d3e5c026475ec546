//! The header by which client and operator name an answer.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderName, HeaderValue};

use crate::ledger::random;

const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// Gives each answer a `Request-Id` of its own, which Stripe's clients read. This is outside the layer, so that
/// rejections have one, and a replay has the id of its own request and not that of the first.
pub(crate) async fn name(request: Request, next: Next) -> Response {
    let mut answer = next.run(request).await;
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
