//! The paths of the routes. The layer covers some of them.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum::{Router, middleware};
use http::request::Parts;
use tower::ServiceBuilder;
use tower_http::map_request_body::MapRequestBodyLayer;
use tower_http::timeout::RequestBodyTimeoutLayer;
use tower_idempotency::server::health;
use tower_idempotency::{AnyStore, IdempotencyLayer, OnInFlight, OnInterrupted};
use tower_idempotency_admin::Latencies;

use super::account::Account;
use super::errors::ApiError;
use super::look_up::Desk;
use super::metrics::Scraped;
use super::{admin, charges, clients, look_up, metrics, refunds, rejections};
use crate::args::{Args, InFlight, Interrupted};
use crate::ledger::Ledger;
use crate::{names, reconcile};

/// The routes that the layer covers. The label of an operation begins with its route.
pub(crate) const COVERED: [&str; 2] = ["/v1/charges", "/v1/refunds"];

pub(crate) fn layer(store: AnyStore, ledger: &Arc<Ledger>, args: &Args) -> IdempotencyLayer<AnyStore> {
    // A single transaction leaves nothing half done: an operation without a record did not take place.
    let default = if args.atomic { Interrupted::Rerun } else { Interrupted::Refuse };
    let on_in_flight = match args.on_in_flight {
        InFlight::Reject => OnInFlight::Reject,
        InFlight::Wait(timeout) => OnInFlight::Wait(timeout),
    };
    let mut settings = args.settings.layer.clone();
    let profile = settings.profile.take().unwrap_or_else(rejections::profile);
    let envelope = profile.envelope;
    let retention = retention(args);
    let layer = IdempotencyLayer::new(store)
        .profile(profile)
        .discoverable(COVERED)
        .scope(|parts| Ok(Account::of(&parts.headers)?.scope()?))
        .label(label)
        .on_in_flight(on_in_flight)
        .retention(retention)
        .render_rejection(move |rejection| rejections::render(envelope, rejection));
    let layer = match args.on_interrupted.unwrap_or(default) {
        Interrupted::Refuse => layer.on_interrupted(OnInterrupted::Refuse),
        Interrupted::Rerun => layer.on_interrupted(OnInterrupted::Rerun),
        Interrupted::Reconcile => {
            // All servers with `--atomic` have one ledger.
            let are_ledgers_apart = args.store.is_shared() && !args.atomic;
            layer.reconcile_with(reconcile::reconciler(Arc::clone(ledger), are_ledgers_apart, retention.as_secs()))
        }
    };
    settings.apply(layer)
}

/// Returns how long an answer is kept.
pub(crate) fn retention(args: &Args) -> Duration {
    args.settings.layer.retention.unwrap_or(Duration::from_secs(args.retention))
}

/// Returns the name of an operation for operators: its route, and the account as the ledger knows it.
fn label(parts: &Parts) -> Option<String> {
    let account = Account::of(&parts.headers).ok()?;
    Some(format!("{} for account {}", parts.uri.path(), account.short()))
}

/// The longest time in which no byte of a request's body comes.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Returns the app, which needs `stores`.
pub(crate) fn app(
    layer: &IdempotencyLayer<AnyStore>,
    ledger: Arc<Ledger>,
    stores: [AnyStore; 2],
    scraped: Scraped,
    latencies: Latencies,
    retention: Duration,
) -> Router {
    let desk = Desk { ledger: Arc::clone(&ledger), retention: retention.as_secs() };
    let payments = Router::new()
        .route("/v1/charges", post(charges::create).get(charges::list))
        .route("/v1/charges/{id}", get(charges::get))
        .route("/v1/refunds", post(refunds::create))
        .layer(layer.clone())
        .with_state(ledger);
    // These are outside the layer: an operator's call is not an operation of a client.
    let ledger = post(look_up::decide).layer(DefaultBodyLimit::max(look_up::MAX_BODY)).with_state(desk);
    let admin = Router::new().nest("/admin", admin::page(layer, latencies)).route("/admin/ledger", ledger);
    let metrics = Router::new().route("/metrics", get(metrics::get)).with_state(scraped);
    let clients = Router::new().route("/docs/clients", get(clients::get));
    let routes =
        payments.merge(layer.well_known()).merge(admin).merge(health::routes(stores)).merge(metrics).merge(clients);
    let routes = routes.fallback(|| async { ApiError::not_found() });
    // The layer has a timeout for bodies that it reads; this one is for requests without a key.
    let in_time = ServiceBuilder::new()
        .layer(RequestBodyTimeoutLayer::new(LONGEST_PAUSE))
        .layer(MapRequestBodyLayer::new(Body::new));
    routes.layer(in_time).layer(middleware::from_fn(names::name))
}
