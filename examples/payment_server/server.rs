//! The stages of the server: open, listen, serve, drain, close.

use std::error::Error;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::net::TcpListener;
use tower_idempotency::engine::{Drained, Reconciliation};
use tower_idempotency::store::Store as _;
use tower_idempotency::{AnyStore, IdempotencyLayer};
use tower_idempotency_admin::Latencies;

use crate::api::metrics::Scraped;
use crate::api::{admin, routes};
use crate::args::Args;
use crate::stop::Stop;
use crate::stores::Stores;
use crate::{connections, settings, stores};

type Failure = Box<dyn Error + Send + Sync>;

/// The time that runs have to finish. With the ten seconds that closing may take it is less than the 30 that Kubernetes
/// waits.
const DEADLINE: Duration = Duration::from_secs(15);

pub(crate) async fn run(mut args: Args) -> Result<(), Failure> {
    args.settings = settings::read(args.config.as_deref())?;
    let Stores { records, ledger, database, directory } = stores::open(&args).await?;
    let ledger = Arc::new(ledger);
    let latencies = Latencies::new();
    let scraped = Scraped::start(records.clone(), latencies.clone())?;
    let layer = routes::layer(records.clone(), &ledger, &args);
    report(&layer).await;
    let app = routes::app(&layer, ledger, [records.clone(), database.clone()], scraped, latencies);

    let stop = Stop::listen()?;
    let listener = TcpListener::bind(args.listen).await?;
    announce(listener.local_addr()?);
    let asking = layer.clone();
    tokio::spawn(async move { reconcile(&asking).await });
    let connections = connections::serve(listener, app, stop.asked()).await;

    tracing::info!("stopping: connections finish what is under way, and new keys are refused");
    let refusing = layer.clone();
    let draining = tokio::spawn(async move { refusing.drain(DEADLINE).await });
    let drained = draining.map(Result::unwrap_or_default).shared();
    connections.end(drained.clone()).await;
    // A run may go on after the end of its connection.
    let left = drained.await;
    if !left.is_complete() {
        let Drained { runs, unrecorded, .. } = left;
        tracing::warn!(
            runs,
            unrecorded,
            "not all was recorded in time; these keys will be refused after the next start"
        );
    }
    // The layer's reconciler holds the ledger's trees, and closing waits for all of the store's handles.
    drop(layer);
    // If the two are one, the second close has nothing to do.
    for closed in [records.close().await, database.close().await] {
        if let Err(error) = closed {
            // Every acknowledged answer is durable even if closing fails.
            tracing::warn!("{}", crate::chain(&error));
        }
    }
    drop(directory);
    tracing::info!("stopped");
    Ok(())
}

/// Logs the settings and the state that an operator wants to know at the start.
async fn report(layer: &IdempotencyLayer<AnyStore>) {
    tracing::debug!(?layer, "as it is set");
    match layer.interrupted(admin::LISTED).await.map(|interrupted| interrupted.len()) {
        Ok(0) => tracing::info!("no interrupted operations"),
        Ok(count) => tracing::warn!(count, "interrupted operations wait to be settled; see /admin"),
        Err(error) => tracing::error!("interrupted operations can't be listed: {}", crate::chain(&error)),
    }
}

/// Settles the operations that the last process left, without waiting for their clients. Does nothing under another
/// policy than `reconcile`.
async fn reconcile(layer: &IdempotencyLayer<AnyStore>) {
    match layer.reconcile_all().await {
        Ok(sum) if sum == Reconciliation::default() => {}
        Ok(Reconciliation { settled, run_again, unknown, .. }) => {
            tracing::info!(settled, run_again, unknown, "reconciled");
        }
        Err(error) => tracing::error!("not reconciled: {}", crate::chain(&error)),
    }
}

/// Prints the server's address, and two lines to try.
fn announce(address: SocketAddr) {
    let charge = format!(
        "curl -i http://{address}/v1/charges -H 'Idempotency-Key: try-1' \
         -d amount=1000 -d currency=eur -d source=tok_visa"
    );
    let again = "# again: the same charge, and idempotent-replayed: true";
    // This ignores errors: a server that can't print still serves.
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "listening on http://{address}\n{charge}\n{charge}  {again}");
    let _ = stdout.flush();
}
