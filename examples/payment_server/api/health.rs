//! The route that says whether the server can do its work.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde_json::{Value, json};
use tower_idempotency::AnyStore;
use tower_idempotency::store::{Health, Store as _};

/// The stores that the server needs: its records, and its ledger's database.
pub(crate) type Needed = [AnyStore; 2];

/// `GET /healthz`
pub(crate) async fn get(State(needed): State<Needed>) -> (StatusCode, Json<Value>) {
    let [records, ledger] = needed.map(|store| said(store.health()));
    let (status, health) = if ledger.0 > records.0 { ledger } else { records };
    (status, Json(health))
}

fn said(health: Health) -> (StatusCode, Value) {
    match health {
        Health::Good => (StatusCode::OK, json!({ "status": "ok" })),
        Health::Slow { since } => (StatusCode::OK, json!({ "status": "slow", "seconds": since.as_secs() })),
        Health::Away { since, reason } => {
            let health = json!({ "status": "away", "seconds": since.as_secs(), "reason": reason });
            (StatusCode::SERVICE_UNAVAILABLE, health)
        }
        Health::Poisoned { reason } => {
            (StatusCode::SERVICE_UNAVAILABLE, json!({ "status": "poisoned", "reason": reason }))
        }
        other => (StatusCode::SERVICE_UNAVAILABLE, json!({ "status": format!("{other:?}").to_lowercase() })),
    }
}
