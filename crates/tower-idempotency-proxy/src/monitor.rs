//! The second port: metrics, health, and the operators' page.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::HOST;
use http::request::Parts;
use http::uri::Authority;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tower_idempotency::metrics::{BUCKETS, Metrics, update};
use tower_idempotency::server::health;
use tower_idempotency::store::Store;
use tower_idempotency::{AnyStore, IdempotencyLayer};
use tower_idempotency_admin::{Access, Actor, AdminPage, Latencies};

use crate::upstream::STEP;

/// How often the recorder takes in what it has noted.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Installs the process's recorder of metrics, which `/metrics` shows.
///
/// # Errors
/// [`BuildError`] if the process has one already.
pub fn recorder() -> Result<PrometheusHandle, BuildError> {
    let buckets = Matcher::Suffix("_seconds".to_owned());
    PrometheusBuilder::new().set_buckets_for_metric(buckets, &BUCKETS)?.install_recorder()
}

/// Takes in what the recorder has noted, again and again.
pub(crate) async fn upkeep(recorder: PrometheusHandle) {
    loop {
        tokio::time::sleep(UPKEEP_EVERY).await;
        recorder.run_upkeep();
    }
}

/// The routes of the second port. The layer's store is observed from here on.
pub(crate) fn routes(layer: &IdempotencyLayer<AnyStore>, recorder: PrometheusHandle) -> Router {
    let (store, latencies) = (layer.store().clone(), Latencies::new());
    // Only one observer is set, and this is the first.
    let _first = store.observe((Metrics::new(), latencies.clone()));
    let page = AdminPage::new(layer.operations(), authorize).steps([STEP]).latencies(latencies).router();
    let scraped = store.clone();
    let scrape = async move || {
        if let Err(error) = update(&scraped).await {
            tracing::warn!("interrupted operations can't be counted: {error}");
        }
        recorder.render()
    };
    Router::new().route("/metrics", get(scrape)).merge(health::routes([store])).nest("/admin", page)
}

/// What a proxy adds. Behind one, each caller comes from this machine.
const OF_PROXIES: [&str; 5] = ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"];

/// Lets in who calls from this machine, by a name of this machine: a page of another host could lead a browser here.
async fn authorize(parts: Parts) -> Result<Actor, Response> {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    let is_from_here = peer.is_some_and(|ConnectInfo(peer)| peer.ip().to_canonical().is_loopback());
    let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let is_named = host.or_else(|| parts.uri.authority().cloned()).is_some_and(|host| {
        let name = host.host().trim_matches(['[', ']']);
        name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
    });
    let is_direct = !OF_PROXIES.iter().any(|name| parts.headers.contains_key(*name));
    if is_from_here && is_named && is_direct {
        Ok(Actor::new("this machine", Access::ALL))
    } else {
        Err(StatusCode::NOT_FOUND.into_response())
    }
}
