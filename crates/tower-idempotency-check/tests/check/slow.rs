//! A slow request, and what is sent while it runs: it ends after that has come, however busy the machine is.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// How long a slow request takes at least, and how long it runs on after what is sent meanwhile has come. The check
/// judges what came 400 ms before the end or earlier.
const LEAST: Duration = Duration::from_millis(1_500);
const RUNS_ON: Duration = Duration::from_millis(500);
/// How long it waits for what never comes.
const MOST: Duration = Duration::from_secs(8);

/// How many requests of each key have come.
#[derive(Clone, Default)]
pub(crate) struct Slow(Arc<watch::Sender<HashMap<Vec<u8>, usize>>>);

impl Slow {
    /// Counts the requests of these routes.
    pub(crate) fn count<S: Clone + Send + Sync + 'static>(&self, routes: Router<S>) -> Router<S> {
        routes.layer(from_fn_with_state(
            self.clone(),
            async |State(slow): State<Self>, request: Request, next: Next| {
                if let Some(key) = request.headers().get("idempotency-key") {
                    slow.0.send_modify(|came| *came.entry(key.as_bytes().to_vec()).or_default() += 1);
                }
                next.run(request).await
            },
        ))
    }

    /// Runs a slow request with this key, until so many others with it have come.
    pub(crate) async fn run(&self, key: &[u8], others: usize) {
        let mut came = self.0.subscribe();
        let others = async {
            let _ = came.wait_for(|came| came.get(key).is_some_and(|came| *came > others)).await;
            sleep(RUNS_ON).await;
        };
        let _ = tokio::join!(sleep(LEAST), timeout(MOST, others));
    }
}
