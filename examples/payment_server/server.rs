//! The server's life: open, listen, serve, drain, close.

use std::error::Error;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tower_idempotency::engine::Reconciliation;
use tower_idempotency::{AnyStore, IdempotencyLayer};

use crate::args::Args;
use crate::stop::Stop;
use crate::stores::Stores;
use crate::{admin, routes, stores};

type Failure = Box<dyn Error + Send + Sync>;

/// How long connections, and then runs, have to finish.
const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let Stores { any, sled, ledger } = stores::open(&args)?;
    let ledger = Arc::new(ledger);
    let layer = routes::layer(any, &ledger, &args);
    report(&layer).await;
    let app = routes::app(&layer, ledger);

    let stop = Stop::listen()?;
    let listener = TcpListener::bind(args.listen).await?;
    announce(listener.local_addr()?)?;
    let refusing = layer.clone();
    let stopping = async move {
        stop.asked().await;
        tracing::info!("stopping: connections finish what is under way, and new keys are refused");
        tokio::spawn(async move { refusing.drain(DEADLINE).await });
    };
    let asking = layer.clone();
    tokio::spawn(async move { reconcile(&asking).await });
    serve(listener, app, stopping).await?;

    // A run may outlive its connection.
    let left = layer.drain(DEADLINE).await;
    if left > 0 {
        tracing::warn!(left, "runs did not end in time; their keys will be refused after the next start");
    }
    // Its reconciler holds the ledger's trees, and closing waits for all that was lent.
    drop(layer);
    if let Some(store) = sled
        && let Err(error) = store.close().await
    {
        // What was answered is durable all the same.
        tracing::warn!("{}", crate::chain(&error));
    }
    tracing::info!("stopped");
    Ok(())
}

/// What an operator wants to know at the start.
async fn report(layer: &IdempotencyLayer<AnyStore>) {
    for line in layer.describe() {
        tracing::debug!(option = line.name, value = line.value, protects = line.protects);
    }
    match layer.interrupted(admin::LISTED).await.map(|interrupted| interrupted.len()) {
        Ok(0) => tracing::info!("no interrupted operations"),
        Ok(count) => tracing::warn!(count, "interrupted operations wait to be settled; see /admin/interrupted"),
        Err(error) => tracing::error!("interrupted operations can't be listed: {}", crate::chain(&error)),
    }
}

/// Settles what the last process left, without waiting for its clients. Nothing under another policy than `reconcile`.
async fn reconcile(layer: &IdempotencyLayer<AnyStore>) {
    match layer.reconcile_all().await {
        Ok(sum) if sum == Reconciliation::default() => {}
        Ok(Reconciliation { settled, run_again, unknown, .. }) => {
            tracing::info!(settled, run_again, unknown, "reconciled");
        }
        Err(error) => tracing::error!("not reconciled: {}", crate::chain(&error)),
    }
}

/// Says where the server listens, and what to try.
fn announce(address: SocketAddr) -> io::Result<()> {
    let charge = format!(
        "curl -i http://{address}/v1/charges -H 'Idempotency-Key: try-1' \
         -d amount=1000 -d currency=eur -d source=tok_visa"
    );
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "listening on http://{address}")?;
    writeln!(stdout, "{charge}")?;
    writeln!(stdout, "{charge}  # again: the same charge, and idempotent-replayed: true")?;
    stdout.flush()
}

async fn serve(listener: TcpListener, app: Router, stop: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
    let listener = listener.tap_io(|stream| {
        // An answer is one small write: there is nothing to wait for.
        let _ = stream.set_nodelay(true);
    });
    let (stopping, stopped) = oneshot::channel();
    let asked = async move {
        stop.await;
        let _ = stopping.send(());
    };
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let overtime = async {
        let _ = stopped.await;
        tokio::time::sleep(DEADLINE).await;
    };
    tokio::select! {
        served = axum::serve(listener, app).with_graceful_shutdown(asked) => served,
        () = overtime => {
            tracing::warn!("connections did not end in time");
            Ok(())
        }
    }
}
