//! A charge whose outcome was lost is found out instead of refused: `cargo run --example reconcile`.
//!
//! The first run charges at a provider and loses the provider's answer. Nobody here knows whether the charge took place,
//! but the provider does: it is asked by the key that the run derived for it. So the retry is answered, and nothing is
//! charged twice.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::{Router, routing::post};
use tower::ServiceExt as _;
use tower_idempotency::engine::{InterruptedRun, Reconciled, Reconciler};
use tower_idempotency::{IdempotencyContext, IdempotencyLayer, MemoryStore};

/// A payment provider, which keeps a charge under the key that it comes with.
#[derive(Clone, Default)]
struct Provider(Arc<Mutex<HashMap<String, String>>>);

impl Provider {
    fn charge(&self, key: String, amount: &str) {
        if let Ok(mut charges) = self.0.lock() {
            charges.entry(key).or_insert_with(|| amount.to_owned());
        }
    }

    fn look_up(&self, key: &str) -> Option<String> {
        self.0.lock().ok()?.get(key).cloned()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let provider = Provider::default();
    let asked = provider.clone();
    let reconciler = Reconciler::<Response>::new(move |run: InterruptedRun| {
        let charge = asked.look_up(&run.derived_key("charge"));
        async move {
            match charge {
                Some(amount) => Reconciled::Outcome(format!("charged {amount}, as the provider says").into_response()),
                None => Reconciled::RunAgain,
            }
        }
    });
    let handler = post(async move |context: IdempotencyContext, amount: String| {
        provider.charge(context.derived_key("charge"), &amount);
        // 502 means that nobody knows, unless the layer's `classify` says otherwise.
        (StatusCode::BAD_GATEWAY, "the provider's answer was lost")
    });
    let layer = IdempotencyLayer::new(MemoryStore::new()).reconcile_with(reconciler);
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
