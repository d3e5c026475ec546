//! An application behind the layer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use testkit::Gate;
use tower::ServiceExt as _;
use tower_idempotency::IdempotencyLayer;
use tower_idempotency_postgres::PostgresStore;

use crate::lab::Lab;

/// An app whose handler waits at a gate in each of its runs.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) layer: IdempotencyLayer<PostgresStore>,
    pub(crate) runs: Arc<AtomicUsize>,
    pub(crate) gate: Gate,
}

impl App {
    pub(crate) async fn new(lab: &Lab) -> Self {
        let store = PostgresStore::open(lab.another().await).await.unwrap();
        Self { layer: IdempotencyLayer::new(store), runs: Arc::default(), gate: Gate::default() }
    }

    /// The status, the body, and whether it is a replay.
    pub(crate) async fn send(&self, key: &'static str) -> (StatusCode, String, bool) {
        let Self { layer, runs, gate } = self.clone();
        let run = move || async move {
            let run = runs.fetch_add(1, Ordering::SeqCst);
            gate.pass().await;
            format!("run {run}")
        };
        let request = Request::post("/").header("idempotency-key", key).body(Body::empty()).unwrap();
        let answer = Router::new().route("/", post(run)).layer(layer).oneshot(request).await.unwrap();
        let (status, replayed) = (answer.status(), answer.headers().contains_key("idempotent-replayed"));
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap(), replayed)
    }
}
