//! The route that a Prometheus server scrapes.

use std::time::Duration;

use axum::extract::State;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tower_idempotency::AnyStore;
use tower_idempotency::metrics::{BUCKETS, Metrics, update_by_label};
use tower_idempotency::store::Store as _;
use tower_idempotency_admin::Latencies;

use super::routes::COVERED;

/// The recorder keeps each duration until then.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// What a scrape reads: the recorder, and the store whose gauges it sets first.
#[derive(Clone)]
pub(crate) struct Scraped {
    recorder: PrometheusHandle,
    store: AnyStore,
}

impl Scraped {
    /// Installs the recorder, and observes the store, for the recorder and for the operators' page.
    pub(crate) fn start(store: AnyStore, latencies: Latencies) -> Result<Self, BuildError> {
        let buckets = Matcher::Suffix("_seconds".to_owned());
        let recorder = PrometheusBuilder::new().set_buckets_for_metric(buckets, &BUCKETS)?.install_recorder()?;
        // Only one observer is set, and this is the first.
        let _first = store.observe((Metrics::new(), latencies));
        let upkeep = recorder.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(UPKEEP_EVERY).await;
                upkeep.run_upkeep();
            }
        });
        Ok(Self { recorder, store })
    }
}

/// `GET /metrics`
pub(crate) async fn get(State(scraped): State<Scraped>) -> String {
    if let Err(error) = update_by_label(&scraped.store, &COVERED).await {
        tracing::warn!("interrupted operations can't be counted: {error}");
    }
    scraped.recorder.render()
}
