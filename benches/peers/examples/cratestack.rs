//! Charges behind the layer of `cratestack-axum`, set up as its README has it. See `checked/run`.
//!
//! Keys belong to an account by default: to who sends `Authorization`. A key can't be required. The store is written
//! here, by the contract of its trait, because those of that crate need Postgres or Redis.

#[path = "charges/mod.rs"]
mod charges;
#[path = "../benches/http/records.rs"]
mod records;

use std::sync::Arc;
use std::time::Duration;

use cratestack_axum::idempotency::IdempotencyLayer;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[tokio::main]
async fn main() {
    let store = Arc::new(records::Records::default());
    charges::serve(charges::app(|make| make.layer(IdempotencyLayer::new(store, DAY)))).await;
}
