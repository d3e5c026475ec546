//! A server's process: `alien serve`. It ends with the process that has started it.

use std::net::SocketAddr;
use std::path::PathBuf;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::io::AsyncReadExt as _;
use tower_idempotency::{AnyStore, IdempotencyContext, IdempotencyLayer, OnInterrupted};
use tower_idempotency_proxy::{Proxy, Upstream};

use crate::bank::{Bank, Failure, Order};

/// Which server it is.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Serve {
    /// Without the layer.
    #[arg(long)]
    pub(crate) naive: bool,
    /// A proxy with the layer, in front of the server at this address. The ledger is a directory for its records.
    #[arg(long)]
    pub(crate) upstream: Option<SocketAddr>,
    /// Where it listens.
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// A directory, `memory`, or a URL of PostgreSQL.
    #[arg(long)]
    pub(crate) ledger: String,
    /// The schema of this run, in PostgreSQL.
    #[arg(long, default_value = "alien")]
    pub(crate) schema: String,
}

#[derive(Clone)]
struct App {
    bank: Bank,
    schema: String,
}

/// Serves until the standard input ends.
pub(crate) async fn serve(serve: Serve) -> Result<(), Failure> {
    let app = match serve.upstream {
        Some(upstream) => {
            let store = AnyStore::connect(&format!("sled:{}", serve.ledger)).await?;
            let upstream = Upstream::new(format!("http://{upstream}").parse()?)?;
            let proxy = Proxy::new(IdempotencyLayer::new(store).require_key(true), upstream);
            Router::new().fallback_service(proxy.service())
        }
        None => bank(&serve).await?,
    };
    let listener = tokio::net::TcpListener::bind(serve.listen).await?;
    // A thread of its own reads the input, which has no end while the parent lives.
    tokio::spawn(async {
        let _ = tokio::io::stdin().read(&mut [0]).await;
        std::process::exit(0);
    });
    axum::serve(listener, app).await?;
    Ok(())
}

/// Returns the server that charges.
async fn bank(serve: &Serve) -> Result<Router, Failure> {
    let bank = match &*serve.ledger {
        "memory" => Bank::memory(),
        url if url.starts_with("postgres") => Bank::postgres(url, &serve.schema).await?,
        directory => Bank::sled(&PathBuf::from(directory))?,
    };
    // Memory keeps no transaction, and no process of it is killed: a run that was interrupted is refused.
    let (store, on_interrupted) = match &bank {
        Bank::Sled { store, .. } => (AnyStore::new(store.clone()), OnInterrupted::Rerun),
        Bank::Memory { store, .. } => (AnyStore::new(store.clone()), OnInterrupted::Refuse),
        Bank::Postgres { store, .. } => (AnyStore::new(store.clone()), OnInterrupted::Rerun),
    };
    let charges = if serve.naive {
        post(naive)
    } else {
        post(ours).route_layer(IdempotencyLayer::new(store).require_key(true).on_interrupted(on_interrupted))
    };
    let app = Router::new().route("/charges", charges).route("/ledger", get(ledger));
    Ok(app.with_state(App { bank, schema: serve.schema.clone() }))
}

async fn naive(State(app): State<App>, Json(order): Json<Order>) -> Response {
    app.bank.charge(order, None, &app.schema).await.map_or_else(failed, |answer| answer.map(Into::into))
}

async fn ours(State(app): State<App>, context: IdempotencyContext, Json(order): Json<Order>) -> Response {
    let charged = app.bank.charge(order, Some(&context), &app.schema).await;
    charged.map_or_else(failed, |answer| answer.map(Into::into))
}

async fn ledger(State(app): State<App>) -> Response {
    app.bank.charges(&app.schema).await.map_or_else(failed, |charges| Json(charges).into_response())
}

fn failed(error: Failure) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response()
}
