//! The stages of the server: open, listen, serve, end.

use std::error::Error;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tower_idempotency::operations::{Filter, Reconciliation, StateKind};
use tower_idempotency::{AnyStore, IdempotencyLayer, Shutdown};
use tower_idempotency_admin::Latencies;

use crate::api::metrics::Scraped;
use crate::api::{admin, routes};
use crate::args::Args;
use crate::ledger::since_1970;
use crate::stop::Stop;
use crate::stores::Stores;
use crate::{connections, settings, stores};

type Failure = Box<dyn Error + Send + Sync>;

pub(crate) async fn run(mut args: Args) -> Result<(), Failure> {
    args.settings = settings::read(args.config.as_deref())?;
    let Stores { records, ledger, database, directory } = stores::open(&args).await?;
    let ledger = Arc::new(ledger);
    let latencies = Latencies::new();
    let scraped = Scraped::start(records.clone(), latencies.clone())?;
    let layer = routes::layer(records.clone(), &ledger, &args);
    layer.check()?;
    report(&layer).await;
    let stores = [records, database];
    let app = routes::app(&layer, ledger, stores.clone(), scraped, latencies, routes::retention(&args));

    let (stop, shutdown) = (Stop::listen()?, Shutdown::of(stores));
    let bound = TcpListener::bind(args.listen).await;
    let listener = bound.map_err(|error| format!("--listen {}: {error}", args.listen))?;
    announce(listener.local_addr()?);
    // The layer's reconciler holds the ledger's trees, so nothing here keeps the layer.
    tokio::spawn(async move { reconcile(&layer).await });
    let server = connections::serve(listener, app, shutdown.stop_accepting());
    // It logs what is left. A connection that stalls is cut, and leaves nothing.
    let stopped = shutdown.serve(server, stop.asked()).await;
    drop(directory);
    stopped.closed?;
    if !stopped.drained.is_complete() {
        return Err("some charges were not recorded when the server had to end".into());
    }
    tracing::info!("stopped");
    Ok(())
}

/// Logs the settings and the state that an operator wants to know at the start.
async fn report(layer: &IdempotencyLayer<AnyStore>) {
    tracing::debug!(?layer, "as it is set");
    let interrupted = Filter::all().in_state(StateKind::Interrupted);
    match layer.operations().list(&interrupted, None, admin::LISTED).await.map(|listing| listing.operations.len()) {
        Ok(0) => tracing::info!("no interrupted operations so far"),
        Ok(count) => tracing::warn!(count, "interrupted operations wait to be settled; see /admin"),
        Err(error) => tracing::error!("interrupted operations can't be listed: {}", crate::chain(&error)),
    }
}

/// Settles the operations that the last process left, without waiting for their clients. Does nothing under another
/// policy than `reconcile`.
async fn reconcile(layer: &IdempotencyLayer<AnyStore>) {
    match layer.operations().by("startup").reconcile_all().await {
        Ok(sum) if sum == Reconciliation::default() => {}
        Ok(Reconciliation { settled, run_again, unknown, .. }) => {
            tracing::info!(settled, run_again, unknown, "reconciled");
        }
        Err(error) => tracing::error!("not reconciled: {}", crate::chain(&error)),
    }
}

/// Prints the server's address, and two lines to try: the second answer has the same charge, and
/// `idempotent-replayed: true`.
fn announce(address: SocketAddr) {
    let charge = format!(
        "curl -i http://{address}/v1/charges -H 'Idempotency-Key: try-{}' \
         -d amount=1000 -d currency=eur -d source=tok_visa",
        // The charge of an earlier start would be replayed.
        since_1970().as_secs()
    );
    // This ignores errors: a server that can't print still serves.
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "listening on http://{address}\n{charge}\n{charge}");
    let _ = stdout.flush();
}
