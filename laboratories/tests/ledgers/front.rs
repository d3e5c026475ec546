//! The proxy in front of the payment server, in a process of its own.

use std::process::exit;

use tokio::net::TcpListener;
use tower_idempotency::{AnyStore, IdempotencyLayer, OnInterrupted};
use tower_idempotency_proxy::{Proxy, Upstream};

/// What its process is given in its environment: where it listens, the server, and its store.
pub(crate) const LISTEN: &str = "LEDGERS_LISTEN";
pub(crate) const UPSTREAM: &str = "LEDGERS_UPSTREAM";
pub(crate) const RECORDS: &str = "LEDGERS_RECORDS";

/// Serves, if this process is to, until it is killed.
pub(crate) async fn run_if_child() {
    let Ok(listen) = std::env::var(LISTEN) else { return };
    let store = AnyStore::connect(&std::env::var(RECORDS).unwrap()).await.unwrap();
    // The server knows the key again.
    let layer = IdempotencyLayer::new(store).require_key(true).on_interrupted(OnInterrupted::Rerun);
    let upstream = Upstream::new(std::env::var(UPSTREAM).unwrap().parse().unwrap()).unwrap();
    let app = Proxy::new(layer, upstream).service();
    let listener = TcpListener::bind(listen).await.unwrap();
    axum::serve(listener, tower::make::Shared::new(app)).await.unwrap();
    exit(0);
}
