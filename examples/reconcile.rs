//! Reconciles a charge whose outcome was lost: `cargo run -p examples --example reconcile`.
//!
//! The first run charges at a provider and loses its answer. The reconciler asks the provider, by the key that the run
//! derived for it. The retry is answered, and nothing is charged twice.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::{Router, routing::post};
use tower::ServiceExt as _;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::engine::{Reconciled, Reconciler};
use tower_idempotency::store::InterruptedRun;
use tower_idempotency::{IdempotencyContext, IdempotencyLayer, MemoryStore};

/// The time that the layer keeps an outcome.
const RETENTION: Duration = Duration::from_secs(86_400);

/// A payment provider, which keeps each charge and its time under the charge's key.
#[derive(Clone, Default)]
struct Provider(Arc<Mutex<HashMap<String, (String, SystemTime)>>>);

impl Provider {
    fn charge(&self, key: String, amount: String) {
        if let Ok(mut charges) = self.0.lock() {
            charges.entry(key).or_insert((amount, SystemTime::now()));
        }
    }

    /// Looks a charge up. The call of a real provider has three results: a charge, no charge, or no answer.
    async fn look_up(&self, key: String) -> Result<Option<(String, SystemTime)>, ()> {
        let charges = self.0.lock().map_err(drop)?;
        Ok(charges.get(&key).cloned())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let provider = Provider::default();
    let asked = provider.clone();
    let reconciler = Reconciler::<Response>::new(move |run: InterruptedRun| {
        let asked = asked.clone();
        async move {
            // Every record that a reconciler gets has one.
            let Some(key) = run.derived_key("charge") else { return Reconciled::StillUnknown };
            match asked.look_up(key).await {
                // This charge is an earlier operation's: the same key and request, before the retention.
                Ok(Some((_, at))) if Timestamp::from(at).plus(RETENTION / 2) < run.began => Reconciled::StillUnknown,
                Ok(Some((amount, _))) => Reconciled::Outcome(format!("charged {amount}").into_response()),
                Ok(None) => Reconciled::RunAgain, // only because this provider cannot still be charging
                // The retry is refused, and the next one asks again.
                Err(()) => Reconciled::StillUnknown,
            }
        }
    });
    let handler = post(async move |context: IdempotencyContext, amount: String| {
        provider.charge(context.derived_key("charge"), amount);
        // The layer takes a 502 for an unknown outcome, unless its `classify` decides otherwise.
        (StatusCode::BAD_GATEWAY, "the provider's answer was lost")
    });
    // Without this, the extractor `IdempotencyContext` would answer 500 to a request that has no key.
    let layer =
        IdempotencyLayer::new(MemoryStore::new()).require_key(true).retention(RETENTION).reconcile_with(reconciler);
    let app: Router = Router::new().route("/charges", handler).route_layer(layer);

    for attempt in ["the first try", "its retry", "one more"] {
        let request = Request::post("/charges").header("idempotency-key", "order-17").body(Body::from("5 EUR"))?;
        let response = app.clone().oneshot(request).await?;
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await?;
        println!("{attempt}: {status}: {}", String::from_utf8_lossy(&body));
    }
    Ok(())
}
