//! Ends a server step by step, within a bounded time. [`Shutdown`] says which steps there are.

use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{Either, join, join_all, select};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::engine::{Drained, drain};
use crate::store::{Store, StoreError, distinct};

/// The time that runs have to finish. With `SEND_TIMEOUT`, and the ten seconds that closing may take, it is less
/// than the 30 that Kubernetes waits.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);
/// The time that connections without a run have to end.
const CONNECTIONS_TIMEOUT: Duration = Duration::from_secs(3);
/// The time that the answers of the last runs have to be sent.
const SEND_TIMEOUT: Duration = Duration::from_millis(500);

/// Serves until a signal, and then ends the server in the right order, within a bounded time:
///
/// 1. **Not ready.** `readyz` of `server::health` answers 503 `draining`. All else goes on for
///    [`notice`](Self::notice), in which load balancers choose another server.
/// 2. **No new connections.** [`stop_accepting`](Self::stop_accepting) is ready.
/// 3. **Drained.** New keys are refused (503 `shutting-down`), and replays are still given. Runs have
///    [`drain_within`](Self::drain_within) to finish and to be recorded, whether their clients are there or not.
/// 4. **No connections.** The server's future ends by itself when all connections have ended. It is dropped if it has
///    not ended half a second after step 3, or after [`connections_within`](Self::connections_within) from step 2 on if
///    that is later. So a client that stalls holds up nothing for longer, and no connection is closed while a run goes
///    on that drain waits for.
/// 5. **Closed.** The stores are closed: see [`Store::close`]. An embedded store takes at most ten seconds, and a
///    shared one two `call_timeout`s.
///
/// By default, this takes at most 25.5 seconds from the signal on: 15 for the runs, half a second for the answers, and
/// 10 to close. A server that is idle takes a few milliseconds.
///
/// ```
/// # #[cfg(all(feature = "server", feature = "memory"))]
/// # #[tokio::main]
/// # async fn main() {
/// # use std::future::ready;
/// # use tower_idempotency::{IdempotencyLayer, MemoryStore, Shutdown};
/// let store = MemoryStore::new();
/// let shutdown = Shutdown::of([store.clone()]);
/// let layer = IdempotencyLayer::new(store);
/// # drop(layer);
/// // … axum::serve(listener, app).with_graceful_shutdown(shutdown.stop_accepting())
/// # let server = shutdown.stop_accepting();
/// // … SIGTERM, or Ctrl-C
/// # let signal = ready(());
/// let stopped = shutdown.serve(server, signal).await;
/// assert!(stopped.is_clean());
/// # }
/// # #[cfg(not(all(feature = "server", feature = "memory")))]
/// # fn main() {}
/// ```
///
/// The page [`operators`](crate::guide::operators) has a whole server, and what to set for Kubernetes.
#[derive(Debug)]
pub struct Shutdown<St> {
    stores: Vec<St>,
    notice: Duration,
    drain_within: Duration,
    connections_within: Duration,
    /// `true` once the server is to stop accepting.
    stopping: watch::Sender<bool>,
}

/// What is left when a server has ended.
#[must_use = "runs and outcomes may be left"]
#[derive(Debug)]
#[non_exhaustive]
pub struct Stopped<T> {
    /// The output of the server's future; `None` if the future was dropped while connections were open.
    pub output: Option<T>,
    /// The runs and outcomes that were left after [`Shutdown::drain_within`], over all stores.
    pub drained: Drained,
    /// The first error of closing the stores. What was recorded stays recorded.
    pub closed: Result<(), StoreError>,
}

impl<T> Stopped<T> {
    /// Returns whether all runs have ended and are recorded, all connections have ended, and the stores are closed.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.output.is_some() && self.drained.is_complete() && self.closed.is_ok()
    }
}

impl<St: Store> Shutdown<St> {
    /// Creates the shutdown of a server that uses these stores. A store that comes twice counts once.
    pub fn of(stores: impl IntoIterator<Item = St>) -> Self {
        Self {
            stores: distinct(stores),
            notice: Duration::ZERO,
            drain_within: DRAIN_TIMEOUT,
            connections_within: CONNECTIONS_TIMEOUT,
            stopping: watch::Sender::new(false),
        }
    }

    /// Sets how long the server goes on as before after it has become not ready. Give load balancers the time to
    /// notice: the interval of their checks, as often as a check has to fail. Default: none.
    #[must_use]
    pub fn notice(self, notice: Duration) -> Self {
        Self { notice, ..self }
    }

    /// Sets how long runs may take to finish and to be recorded. Those that are left are interrupted when the process
    /// ends. Over a shared store, handlers that another process may run again are dropped shortly before. Default: 15
    /// seconds.
    #[must_use]
    pub fn drain_within(self, limit: Duration) -> Self {
        Self { drain_within: limit, ..self }
    }

    /// Sets how long connections go on, after the server has stopped accepting, whose requests are no runs: a request
    /// without a key, a download, a client that stalls. Default: 3 seconds.
    #[must_use]
    pub fn connections_within(self, limit: Duration) -> Self {
        Self { connections_within: limit, ..self }
    }

    /// Returns a future that is ready when the server is to stop accepting connections and to let each finish the
    /// request under way: for axum's `with_graceful_shutdown`, tonic's `serve_with_shutdown`, a loop that accepts, or a
    /// consumer of messages. It is also ready once this value is dropped without [`serve`](Self::serve), or `serve` is
    /// cancelled.
    ///
    /// # Cancel safety
    /// If the future is dropped, nothing changes.
    pub fn stop_accepting(&self) -> impl Future<Output = ()> + Send + 'static + use<St> {
        let mut stopping = self.stopping.subscribe();
        // An error means that the shutdown was dropped.
        async move { drop(stopping.wait_for(|stopping| *stopping).await) }
    }

    /// Drives `server` until `signal`, and then takes the steps, also if the server ends by itself before. Returns what
    /// is left, and logs it. Exit the process then: a runtime that is dropped may wait for a disk that hangs.
    ///
    /// The server's future ends once it has stopped accepting and its connections have ended. A future that owns its
    /// connections ends them when it is dropped, as a `JoinSet` does. `axum::serve` does not own them: those that have
    /// stalled stay open until the runtime ends, and a late request on one is refused. They keep their clones of the
    /// router. If its state has sled trees of `store.db()`, closing waits for these until its ten seconds are over.
    ///
    /// Whatever else holds such trees, a layer with a reconciler for example, has to be dropped before or moved into
    /// `server`.
    ///
    /// # Cancel safety
    /// If the future is dropped, the server's future is, too. Once `signal` is ready, the process stays not ready; once
    /// the runs are waited for, new keys stay refused. The stores are not closed.
    pub async fn serve<S: IntoFuture>(self, server: S, signal: impl Future<Output = ()>) -> Stopped<S::Output> {
        let Self { stores, notice, drain_within, connections_within, stopping } = self;
        let announce = || stores.iter().for_each(|store| store.slots().announce_drain());
        let noticed = async {
            signal.await;
            tracing::info!(target: "tower_idempotency", "shutting down: not ready any more");
            announce();
            sleep(notice).await;
        };
        let mut server = Box::pin(server.into_future());
        let ended = match select(&mut server, pin!(noticed)).await {
            Either::Left((output, _)) => {
                tracing::info!(target: "tower_idempotency", "shutting down: the server has ended by itself");
                announce();
                Some(output)
            }
            Either::Right(_) => None,
        };
        stopping.send_replace(true);
        let drained = async {
            let left = join_all(stores.iter().map(|store| drain(store.slots(), drain_within))).await;
            left.into_iter().fold(Drained::default(), |sum, left| Drained {
                runs: sum.runs + left.runs,
                unsaved: sum.unsaved + left.unsaved,
            })
        };
        let drained = drained.shared();
        let over = {
            let drained = drained.clone();
            async move {
                sleep(connections_within).await;
                let _ = drained.await;
                sleep(SEND_TIMEOUT).await;
            }
        };
        // The server is dropped at the end of this, with all that its connections hold, before the stores are closed.
        let served = async move {
            if ended.is_some() {
                return ended;
            }
            match select(server, pin!(over)).await {
                Either::Left((output, _)) => Some(output),
                Either::Right(_) => None,
            }
        };
        // Drain comes first: it refuses new keys from its first poll on.
        let (drained, output) = join(drained, served).await;
        if output.is_none() {
            tracing::warn!(target: "tower_idempotency", "connections that have not ended are closed");
        }
        if !drained.is_complete() {
            let Drained { runs, unsaved } = drained;
            tracing::warn!(
                target: "tower_idempotency", runs, unsaved,
                "not all was recorded in time: after the next start, these operations are interrupted"
            );
        }
        let closed = join_all(stores.iter().map(Store::close)).await.into_iter().collect();
        if let Err(error) = &closed {
            // What was answered is durable even if closing fails.
            tracing::warn!(target: "tower_idempotency", %error, "a store was not closed");
        }
        Stopped { output, drained, closed }
    }
}
