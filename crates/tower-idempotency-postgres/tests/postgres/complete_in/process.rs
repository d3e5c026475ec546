//! A process whose handlers charge in transactions of their own.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use axum::routing::post;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tokio::sync::Mutex;
use tower::ServiceExt as _;
use tower_idempotency::{IdempotencyContext, IdempotencyLayer, OnInFlight, OnInterrupted, Release};
use tower_idempotency_postgres::PostgresStore;
use tower_idempotency_postgres::tokio_postgres::Client;
use tower_idempotency_shared::SharedStoreBuilder;

use crate::lab::{Lab, builder, client, lab};

/// The result of a handler: an answer, or the report that it has done nothing.
pub(crate) type Said = Result<String, String>;

/// A handler of these tests.
pub(crate) type Handler = Arc<dyn Fn(IdempotencyContext, Process) -> BoxFuture<'static, Said> + Send + Sync>;

/// A process: its store, and a connection of the application's own.
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) store: PostgresStore,
    pub(crate) client: Arc<Mutex<Client>>,
    pub(crate) namespace: String,
    runs: Arc<AtomicUsize>,
}

impl Process {
    pub(crate) async fn new(lab: &Lab) -> Self {
        // Six seconds after it has begun, it trusts the leases that it reads.
        Self::with(
            lab,
            SharedStoreBuilder::default().call_timeout(Duration::from_secs(1)).lease(Duration::from_secs(6)),
        )
        .await
    }

    pub(crate) async fn with(lab: &Lab, shared: SharedStoreBuilder) -> Self {
        let backend = builder(&lab.url, &lab.namespace).open().await.unwrap();
        let client = Arc::new(Mutex::new(client(&lab.url).await));
        let namespace = lab.namespace.clone();
        Self { store: shared.open(backend).await.unwrap(), client, namespace, runs: Arc::default() }
    }

    pub(crate) fn layer(&self) -> IdempotencyLayer<PostgresStore> {
        IdempotencyLayer::new(self.store.clone())
            .on_interrupted(OnInterrupted::Rerun)
            .on_in_flight(OnInFlight::Wait(Duration::from_secs(60)))
    }

    /// Sends a request with this key to a handler behind the layer. Returns status, body, and whether it is a replay.
    pub(crate) async fn send(&self, key: &str, handler: &Handler) -> (StatusCode, String, bool) {
        self.send_by(self.layer(), key, handler).await
    }

    pub(crate) async fn send_by(
        &self,
        layer: IdempotencyLayer<PostgresStore>,
        key: &str,
        handler: &Handler,
    ) -> (StatusCode, String, bool) {
        let (process, handler) = (self.clone(), Arc::clone(handler));
        let run = move |context: IdempotencyContext| {
            process.runs.fetch_add(1, Ordering::SeqCst);
            let said = handler(context, process);
            async move {
                let nothing = |error: String| (StatusCode::SERVICE_UNAVAILABLE, Release, error).into_response();
                said.await.map_or_else(nothing, IntoResponse::into_response)
            }
        };
        let request = Request::post("/charges").header("idempotency-key", key).body(Body::empty()).unwrap();
        let answer = Router::new().route("/charges", post(run)).layer(layer).oneshot(request).await.unwrap();
        let replayed = answer.headers().contains_key("idempotent-replayed");
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap(), replayed)
    }

    pub(crate) fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }
}

pub(crate) fn handler<F>(handler: fn(IdempotencyContext, Process) -> F) -> Handler
where
    F: Future<Output = Said> + Send + 'static,
{
    Arc::new(move |context, process| Box::pin(handler(context, process)))
}

/// Tests that run at once make it one after the other: `IF NOT EXISTS` alone fails while another transaction makes it.
pub(crate) const TABLE: &str = "BEGIN; SELECT pg_advisory_xact_lock(hashtext('charge'));
    CREATE TABLE IF NOT EXISTS charge (key text NOT NULL, namespace text NOT NULL); COMMIT";
pub(crate) const CHARGE: &str = "INSERT INTO charge VALUES ($1, $2)";

/// The charges of a namespace with this key. Nothing in the table keeps a second one out.
pub(crate) async fn charges(lab: &Lab, key: &str) -> i64 {
    let sql = "SELECT count(*) FROM charge WHERE key = $1 AND namespace = $2";
    lab.client.query_one(sql, &[&key, &lab.namespace]).await.unwrap().get(0)
}

pub(crate) fn answer(text: &str) -> Response<Bytes> {
    Response::new(Bytes::from(text.to_owned()))
}

/// Charges and completes, and commits.
pub(crate) async fn charge(context: IdempotencyContext, process: Process) -> Said {
    charged(context, process).await.map_err(|error| error.to_string())
}

async fn charged(context: IdempotencyContext, process: Process) -> Result<String, Box<dyn Error + Send + Sync>> {
    let mut client = process.client.lock().await;
    let transaction = client.transaction().await?;
    transaction.execute(CHARGE, &[&context.key().as_str(), &process.namespace]).await?;
    let committed = process.store.complete_in(&context, &transaction, answer("charged")).await?;
    transaction.commit().await?;
    drop(committed);
    Ok("not what was recorded".to_owned())
}

pub(crate) async fn start(promise: &str) -> Option<(Lab, Process)> {
    let lab = lab(promise).await?;
    lab.client.batch_execute(TABLE).await.unwrap();
    let process = Process::new(&lab).await;
    Some((lab, process))
}
