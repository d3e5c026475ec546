//! Commits effect and record in one transaction, so exactly once: `cargo run -p examples --example atomic`.
//!
//! The balance is kept in a tree of the store's own database. A crash leaves the payment and its record, or neither.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::convert::Infallible;

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::{Router, routing::post};
use bytes::Bytes;
use tower::ServiceExt as _;
use tower_idempotency::server::Committed;
use tower_idempotency::store::CommitError;
use tower_idempotency::store::{Abort, TransactionTree};
use tower_idempotency::{IdempotencyContext, IdempotencyLayer, OnInterrupted, SledStore, sled};

#[derive(Clone)]
struct Bank {
    store: SledStore,
    balances: sled::Tree,
}

/// Takes one coin. The closure's return value is recorded, and is the answer.
async fn pay(State(bank): State<Bank>, context: IdempotencyContext) -> Result<Committed, Response> {
    let take = |[balances]: [TransactionTree<'_>; 1]| {
        let coins = balances.get("ann")?.and_then(|coins| coins.first().copied()).unwrap_or(0);
        let left = coins.checked_sub(1).ok_or(Abort::Because("no coins are left"))?;
        balances.insert("ann", &[left])?;
        Ok(http::Response::new(Bytes::from(format!("paid; coins left: {left}"))))
    };
    let committed = bank.store.complete_in(&context, [&bank.balances], take).await;
    committed.map_err(|error| match error {
        // This is an outcome: it is recorded, and a retry gets it too.
        CommitError::Aborted(reason) => (StatusCode::CONFLICT, reason).into_response(),
        // Under `Rerun`, 503 frees the key, so that a retry runs.
        error => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let store = SledStore::open(directory.path())?;
    let balances = store.db()?.open_tree("balances")?;
    // sled's own `insert` would not do: the store's thread does all the writing.
    let seed = |[balances]: [TransactionTree<'_>; 1]| {
        balances.insert("ann", &[3])?;
        Ok::<_, Abort<Infallible>>(())
    };
    store.transaction([&balances], seed).await?;
    // A payment without a record did not take place, so it may run again. A request without a key gets 400.
    let layer = IdempotencyLayer::new(store.clone()).require_key(true).on_interrupted(OnInterrupted::Rerun);
    let bank = Bank { store, balances };
    let app: Router = Router::new().route("/payments", post(pay)).route_layer(layer).with_state(bank);

    for key in ["order-17", "order-17", "order-18"] {
        let request = Request::post("/payments").header("idempotency-key", key).body(Body::empty())?;
        let response = app.clone().oneshot(request).await?;
        let is_replay = response.headers().contains_key("idempotent-replayed");
        let body = to_bytes(response.into_body(), 1 << 20).await?;
        println!("{key}: {} (replayed: {is_replay})", String::from_utf8_lossy(&body));
    }
    Ok(())
}
