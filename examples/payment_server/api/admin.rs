//! The operators' routes: they list interrupted operations and settle them. They are open to this machine alone.

use std::net::SocketAddr;

use axum::Json;
use axum::extract::{ConnectInfo, Path, RawQuery, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response as HttpResponse, StatusCode};
use serde_json::{Value, json};
use tower_idempotency::engine::Resolved;
use tower_idempotency::store::{Page, StoreError};
use tower_idempotency::{AnyStore, Fence, IdempotencyLayer, Resolution};

use super::errors::ApiError;
use super::fields::Fields;

type Layer = State<IdempotencyLayer<AnyStore>>;

/// The most operations that are listed.
pub(crate) const LISTED: usize = 1_000;

pub(crate) async fn only_this_machine(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    // A server bound to all IPv6 addresses sees IPv4 ones mapped.
    if peer.ip().to_canonical().is_loopback() { next.run(request).await } else { ApiError::not_found().into_response() }
}

/// `GET /admin/interrupted`, and `GET /admin/interrupted?status=504` for those that were answered with that status
pub(crate) async fn list(State(layer): Layer, RawQuery(query): RawQuery) -> Result<Json<Value>, ApiError> {
    let page = match status_of(&query_of(query)?)? {
        Some(status) => Page::first(LISTED).answered_with(status),
        None => Page::first(LISTED),
    };
    let interrupted = layer.interrupted(page).await.map_err(store_error)?;
    let lines = interrupted.iter().map(|record| {
        json!({
            "id": record.id.to_string(),
            // The fence is a text: many readers of JSON round large numbers.
            "fence": record.fence.0.to_string(),
            "attempt": record.attempt,
            "began": record.began.as_millis() / 1_000,
            "policy": format!("{:?}", record.policy).to_lowercase(),
            "status": record.status,
        })
    });
    Ok(Json(json!({ "data": lines.collect::<Vec<_>>() })))
}

/// `POST /admin/interrupted/{id}/forget?fence=N`
pub(crate) async fn forget(
    State(layer): Layer,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    resolve(&layer, &id, &query_of(query)?, Resolution::Release).await
}

/// `POST /admin/interrupted/{id}/answer?fence=N`, the answer's JSON as the body
pub(crate) async fn answer(
    State(layer): Layer,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Result<Response, ApiError> {
    let query = query_of(query)?;
    serde_json::from_slice::<serde::de::IgnoredAny>(&body)
        .map_err(|error| ApiError::invalid(None, format!("The answer is not JSON: {error}")))?;
    let status = status_of(&query)?;
    let mut answer = HttpResponse::new(body);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *answer.status_mut() = status.unwrap_or(StatusCode::OK);
    resolve(&layer, &id, &query, Resolution::Outcome(answer)).await
}

/// `POST /admin/interrupted/forget?status=504`: all that were answered with that status, at most as many as are listed
pub(crate) async fn forget_all(State(layer): Layer, RawQuery(query): RawQuery) -> Result<Json<Value>, ApiError> {
    let status = status_of(&query_of(query)?)?;
    let status = status.ok_or_else(|| ApiError::invalid("status", "status must say which ones are meant"))?;
    let answered = layer.interrupted(Page::first(LISTED).answered_with(status)).await.map_err(store_error)?;
    let settled = layer.resolve_all(answered.into_iter().map(|record| (record, Resolution::Release))).await;
    let (forgotten, left): (Vec<_>, Vec<_>) =
        settled.into_iter().partition(|(_, settled)| matches!(settled, Ok(Resolved::Settled)));
    tracing::warn!(%status, forgotten = forgotten.len(), "an operator settled interrupted operations");
    Ok(Json(json!({ "settled": forgotten.len(), "left": left.len() })))
}

fn status_of(query: &Fields) -> Result<Option<StatusCode>, ApiError> {
    let status = query.optional_number("status", 200..=599)?.and_then(|status| u16::try_from(status).ok());
    Ok(status.and_then(|status| StatusCode::from_u16(status).ok()))
}

fn query_of(query: Option<String>) -> Result<Fields, ApiError> {
    Fields::form(query.unwrap_or_default().as_bytes())
}

async fn resolve(
    layer: &IdempotencyLayer<AnyStore>,
    id: &str,
    query: &Fields,
    resolution: Resolution<HttpResponse<Bytes>>,
) -> Result<Response, ApiError> {
    let id = id.parse().map_err(|_| ApiError::invalid("id", "id must be 64 hex digits, as they are listed"))?;
    let fence = Fence(query.number("fence", 1..=u64::MAX)?);
    match layer.resolve(id, fence, resolution).await.map_err(store_error)? {
        Resolved::Settled => {
            tracing::warn!(record_id = id.short(), "an operator settled an interrupted operation");
            Ok(Json(json!({ "settled": true })).into_response())
        }
        _ => {
            let error = ApiError::invalid(None, "It is not interrupted (any more) under this fence; list again.");
            Err(error.status(StatusCode::CONFLICT))
        }
    }
}

pub(crate) fn store_error(error: StoreError) -> ApiError {
    ApiError::api(StatusCode::SERVICE_UNAVAILABLE, crate::chain(&error))
}
