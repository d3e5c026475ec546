//! `--store postgres://…`: the store of records in a database that several servers share. (Feature `postgres`.)

use std::error::Error;
use std::time::Duration;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tower_idempotency::operations::Operations;
use tower_idempotency_postgres::{PostgresBackend, PostgresStore};

use crate::api::admin::{LISTED, store_error};
use crate::api::errors::ApiError;
use crate::args::Args;

const NAMESPACE: &str = "payments";
const LEASE: Duration = Duration::from_secs(30);
/// The time that the database may take to answer. With a short lease it is less, so that the lease can be renewed in
/// time.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) async fn open(url: &str, args: &Args) -> Result<PostgresStore, Box<dyn Error + Send + Sync>> {
    let shared = args.settings.idempotency.shared.clone();
    let lease = shared.lease.unwrap_or(args.lease.map_or(LEASE, Duration::from_secs));
    let patience = PATIENCE.min(lease / 6);
    let database = PostgresBackend::from_url(url)?.statement_timeout(patience * 3 / 4);
    let database = args.settings.postgres.clone().apply(database)?.namespace(namespace(args))?;
    // Several servers may do so at once.
    database.migrate().await?;
    let store = shared.apply(PostgresStore::builder().lease(lease).call_timeout(patience));
    Ok(store.open(database.open().await?).await?)
}

/// Returns the namespace. Its servers share their keys, and with `--atomic` their charges.
pub(crate) fn namespace(args: &Args) -> &str {
    args.namespace.as_deref().or(args.settings.postgres.namespace.as_deref()).unwrap_or(NAMESPACE)
}

/// Returns the operators' routes that only this store has.
pub(crate) fn admin(store: PostgresStore) -> Router {
    Router::new().route("/admin/disputed", get(disputed)).with_state(store)
}

/// `GET /admin/disputed`: outcomes that came after their operation was taken over or settled. Each may be a second
/// charge.
async fn disputed(State(store): State<PostgresStore>) -> Result<Json<Value>, ApiError> {
    let disputed = Operations::over(store, Duration::ZERO).disputed(LISTED).await.map_err(store_error)?;
    let lines = disputed.iter().map(|outcome| {
        json!({
            "id": outcome.id.to_string(),
            "fence": outcome.fence.0.to_string(),
            "since": outcome.since.as_millis() / 1_000,
        })
    });
    Ok(Json(json!({ "data": lines.collect::<Vec<_>>() })))
}
