//! A whole service to copy: `cargo run -p service -- examples/service/service.toml`.
//!
//! ```text
//! curl -i http://127.0.0.1:3000/charges -H 'Authorization: Bearer alice' -H 'Idempotency-Key: order-17' --json 500
//! ```
//!
//! `/admin` is the operators' page (user `ann`, password `secret`), `/metrics` is for Prometheus, `/livez` and
//! `/readyz` are for an orchestrator.
#![allow(clippy::print_stdout, reason = "it says where it listens")]

use std::error::Error;
use std::time::Duration;

use axum::extract::{Request, rejection::JsonRejection};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{StatusCode, request::Parts};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tower_idempotency::config::{LayerConfig, SledConfig};
use tower_idempotency::metrics::{self, BUCKETS, Metrics};
use tower_idempotency::server::health;
use tower_idempotency::store::Store as _;
use tower_idempotency::{IdempotencyContext, IdempotencyLayer, Invalid, Release, Scope, Shutdown, SledStore, Unsure};
use tower_idempotency_admin::{Access, Actor, AdminPage, Latencies};

/// The settings of the file that the command line names.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    listen: String,
    data: String,
    #[serde(default)]
    layer: LayerConfig,
    #[serde(default)]
    sled: SledConfig,
}

/// The account that a token belongs to. It stays the same when the client renews its token.
#[derive(Debug, Clone, Copy)]
struct Account(&'static str);

/// Finds out whose a request is, before the layer looks its key up.
async fn authenticate(mut request: Request, next: Next) -> Response {
    // In a service of your own: verify a token, or ask a database.
    let account = match request.headers().get(AUTHORIZATION).map(|value| value.as_bytes()) {
        Some(b"Bearer alice") => Account("account-1"),
        Some(b"Bearer bob") => Account("account-2"),
        _ => return (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")]).into_response(),
    };
    request.extensions_mut().insert(account);
    next.run(request).await
}

/// Says who opens the operators' page, and what they may do there.
async fn authorize(parts: Parts) -> Result<Actor, Response> {
    // `ann:secret` in Base64. In a service of your own: ask your identity provider, over TLS.
    match parts.headers.get(AUTHORIZATION).map(|value| value.as_bytes()) {
        Some(b"Basic YW5uOnNlY3JldA==") => Ok(Actor::new("ann", Access::ALL)),
        _ => Err((StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Basic")]).into_response()),
    }
}

/// Why there is no charge, or none that the handler knows of.
#[derive(Debug)]
enum ChargeError {
    Request(JsonRejection),
    Declined,
    Busy,
    TimedOut,
}

impl IntoResponse for ChargeError {
    fn into_response(self) -> Response {
        match self {
            // The handler finds it before its first effect. The profile says whether the key is free again.
            Self::Request(rejection) => (Invalid, rejection).into_response(),
            // An outcome: it is recorded, and every retry is told the same.
            Self::Declined => (StatusCode::PAYMENT_REQUIRED, "declined").into_response(),
            // Nothing has happened: the key is free, and a retry runs.
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, Release, "try again").into_response(),
            // The card may have been charged: an operator settles it on the page.
            Self::TimedOut => (StatusCode::BAD_GATEWAY, Unsure, "the provider did not answer").into_response(),
        }
    }
}

/// Charges a number of cents.
async fn charge(
    Extension(Account(account)): Extension<Account>,
    context: IdempotencyContext,
    cents: Result<Json<u64>, JsonRejection>,
) -> Result<String, ChargeError> {
    let Json(cents) = cents.map_err(ChargeError::Request)?;
    // The same in every attempt: the provider removes duplicates by it.
    let key = context.derived_key("charge");
    // In a service of your own: the call of a payment provider, with this key.
    match cents {
        402 => Err(ChargeError::Declined),
        503 => Err(ChargeError::Busy),
        504 => Err(ChargeError::TimedOut),
        _ => Ok(format!("charged {cents} cents to {account} as {key}, attempt {}\n", context.attempt())),
    }
}

/// The routes: those of the clients under the layer, and those of the operators outside of it.
fn app(store: SledStore, settings: LayerConfig) -> Result<Router, Box<dyn Error>> {
    let buckets = Matcher::Suffix("_seconds".to_owned());
    let recorder = PrometheusBuilder::new().set_buckets_for_metric(buckets, &BUCKETS)?.install_recorder()?;
    let latencies = Latencies::new();
    store.observe((Metrics::new(), latencies.clone()))?;
    let layer = settings
        .apply(IdempotencyLayer::new(store.clone()))
        // Each account has keys of its own. Without an account, the scope is empty, and the answer is 401.
        .scope(|parts: &Parts| Ok(Scope::new(parts.extensions.get().map_or("", |Account(id)| id))?))
        // The operation's name, for operators.
        .label(|parts| parts.extensions.get().map(|Account(id)| format!("{} for {id}", parts.uri.path())));
    let page = AdminPage::new(layer.operations(), authorize).latencies(latencies).steps(["charge"]);
    let (observed, upkeep) = (store.clone(), recorder.clone());
    // Without it, a process that no server scrapes keeps each duration.
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            upkeep.run_upkeep();
        }
    });
    // `update` sets the gauges that no event sets.
    let scrape = async move || match metrics::update(&observed).await {
        Ok(()) => (StatusCode::OK, recorder.render()),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    Ok(Router::new()
        .route("/charges", post(charge))
        .route_layer(layer)
        // The last layer is the outermost.
        .route_layer(from_fn(authenticate))
        .nest("/admin", page.router())
        .route("/metrics", get(scrape))
        .merge(health::routes([store])))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().init();
    let file = std::env::args().nth(1).ok_or("the argument is the file with the settings")?;
    let Settings { listen, data, layer, sled } = toml::from_str(&std::fs::read_to_string(file)?)?;
    // The last process may still be closing its store.
    let store = sled.apply(SledStore::builder()).open_within(data, Duration::from_secs(30))?;
    let shutdown = Shutdown::of([store.clone()]);
    let listener = TcpListener::bind(listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let app = app(store, layer)?;
    let server = axum::serve(listener, app).with_graceful_shutdown(shutdown.stop_accepting());
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let asked = async { tokio::select!(_ = terminate.recv() => {}, _ = interrupt.recv() => {}) };
    let stopped = shutdown.serve(server, asked).await;
    if stopped.is_clean() { Ok(()) } else { Err(format!("{stopped:?}").into()) }
}

#[cfg(test)]
mod tests;
