//! An extractor whose rejection is marked as invalid.

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use http::request::Parts;

use crate::server::answer::marks::Invalid;

/// An extractor that marks a 400, 413, 415 or 422 of the extractor within as [`Invalid`]. The layer's
/// [`Profile`](crate::server::Profile) decides whether the key is free then.
///
/// An extractor runs before the handler, so its rejection means that nothing has happened. The layer can't see where an
/// answer comes from: without this, the 400 or 422 of a `Json` is recorded like one of the handler's. Put it around
/// each extractor that looks at nothing but the request.
/// ```
/// use axum::{Json, Router, routing::post};
/// use tower_idempotency::server::{Checked, Profile};
/// use tower_idempotency::{IdempotencyLayer, MemoryStore};
///
/// async fn charge(Checked(Json(amount)): Checked<Json<u64>>) -> String {
///     format!("charged {amount}")
/// }
///
/// let layer = IdempotencyLayer::new(MemoryStore::new()).profile(Profile::stripe());
/// let app: Router = Router::new().route("/charges", post(charge)).layer(layer);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checked<E>(pub E);

impl<S: Send + Sync, E: FromRequest<S>> FromRequest<S> for Checked<E> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        E::from_request(request, state).await.map(Self).map_err(marked)
    }
}

impl<S: Send + Sync, E: FromRequestParts<S>> FromRequestParts<S> for Checked<E> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        E::from_request_parts(parts, state).await.map(Self).map_err(marked)
    }
}

/// Marks an answer that says that the request is wrong in itself. A 401 or a 429 says something else.
fn marked(rejection: impl IntoResponse) -> Response {
    let mut answer = rejection.into_response();
    if matches!(answer.status().as_u16(), 400 | 413 | 415 | 422) {
        answer.extensions_mut().insert(Invalid);
    }
    answer
}
