//! Whether the server can do its work.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde_json::{Value, json};
use tower_idempotency::AnyStore;
use tower_idempotency::store::{Health, Store as _};

/// `GET /healthz`
pub(crate) async fn get(State(store): State<AnyStore>) -> (StatusCode, Json<Value>) {
    let (status, health) = match store.health() {
        Health::Good => (StatusCode::OK, json!({ "status": "ok" })),
        Health::Slow { since } => (StatusCode::OK, json!({ "status": "slow", "seconds": since.as_secs() })),
        Health::Poisoned { reason } => {
            (StatusCode::SERVICE_UNAVAILABLE, json!({ "status": "poisoned", "reason": reason }))
        }
        Health::Away { since, reason } => {
            let health = json!({ "status": "away", "seconds": since.as_secs(), "reason": reason });
            (StatusCode::SERVICE_UNAVAILABLE, health)
        }
        other => (StatusCode::SERVICE_UNAVAILABLE, json!({ "status": format!("{other:?}").to_lowercase() })),
    };
    (status, Json(health))
}
