//! The page for clients of this API.

use axum::response::IntoResponse;
use http::header::CONTENT_TYPE;

const PAGE: &str = include_str!("../../../../docs/clients.md");

/// `GET /docs/clients`: a browser shows the text as it is.
pub(crate) async fn get() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], PAGE)
}
