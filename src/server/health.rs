//! Probes for orchestrators and load balancers: `/livez` and `/readyz`.
//!
//! - A process is *live* as long as it can do something useful without a restart: `/livez` answers 200. It answers 503
//!   once only a restart helps, which is when a store is [poisoned](NotReady::Poisoned).
//! - A process is *ready* while it takes new keys: `/readyz` answers 200. Otherwise it answers 503, with the reasons
//!   [`NotReady`].
//!
//! Both answer with the same JSON, which names the stores in use and is never cached:
//!
//! ```json
//! {"live":true,"ready":false,"stores":[{"reasons":["draining"],"store":"sled"}]}
//! ```
//!
//! It has no key, path, address or text of an error, so it can be shown to anyone. It is made from memory alone: the
//! answer comes at once even if the disk or the database hangs.
//!
//! With axum, [`routes`] returns a router. Elsewhere, answer with [`livez`] and [`readyz`], or look at [`Readiness`].
//!
//! A shared store makes all its servers not ready at once while its database is away or full. A load balancer without
//! any ready server answers with an error of its own, also to replays and to requests without a key. If those matter,
//! answer by [`Readiness::reasons`] instead, and leave [`Away`](NotReady::Away) and [`Full`](NotReady::Full) out.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde::Serialize;

use crate::store::{Health, Store};

/// A reason why a process takes no new key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum NotReady {
    /// `poisoned`: the disk has failed. Only a restart helps.
    Poisoned,
    /// `slow`: a write has been under way for five seconds. New keys are refused until it is over.
    Slow,
    /// `full`: a limit of the store is reached. New keys are refused until records expire or the limit is raised.
    Full,
    /// `away`: the database can't be reached, and the circuit breaker is open.
    Away,
    /// `draining`: the process shuts down, or will after the [notice](crate::Shutdown::notice).
    Draining,
    /// `closed`: the store was closed.
    Closed,
}

/// Whether a process takes new keys over one store. It serializes as in the answers of [`livez`] and [`readyz`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Readiness {
    /// The name of the store: see [`Store::name`].
    pub store: &'static str,
    /// The reasons why not; none if the process is ready.
    pub reasons: Vec<NotReady>,
}

impl Readiness {
    /// Returns the readiness over `store` now.
    #[must_use]
    pub fn of<St: Store>(store: &St) -> Self {
        Self::new(store.name(), &store.health(), store.slots().is_leaving())
    }

    fn new(store: &'static str, health: &Health, is_leaving: bool) -> Self {
        let of_store = match health {
            Health::Good => None,
            Health::Slow { .. } => Some(NotReady::Slow),
            Health::Full { .. } => Some(NotReady::Full),
            Health::Away { .. } => Some(NotReady::Away),
            Health::Poisoned { .. } => Some(NotReady::Poisoned),
            Health::Closed => Some(NotReady::Closed),
        };
        let leaving = is_leaving.then_some(NotReady::Draining);
        Self { store, reasons: of_store.into_iter().chain(leaving).collect() }
    }

    /// Returns whether new keys are taken, as far as the health of the store shows. Requests may still be refused:
    /// while the queue of the store is full, too many ends wait to be recorded, the clocks of a shared store are too
    /// far apart, or its lease is being lost. [`Stats`](crate::engine::Stats) and the gauges show these.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.reasons.is_empty()
    }

    /// Returns whether the process can do something useful without a restart.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !self.reasons.contains(&NotReady::Poisoned)
    }
}

/// Returns the answer to `GET /livez`: 200 if the process is [live](Readiness::is_live) over all `stores`, else 503.
#[must_use]
pub fn livez<St: Store>(stores: &[St]) -> Response<Bytes> {
    answer(stores, Readiness::is_live)
}

/// Returns the answer to `GET /readyz`: 200 if the process is [ready](Readiness::is_ready) over all `stores`, else 503.
#[must_use]
pub fn readyz<St: Store>(stores: &[St]) -> Response<Bytes> {
    answer(stores, Readiness::is_ready)
}

/// Returns a router with `GET /livez` and `GET /readyz` for a process that uses `stores`. A store that comes twice
/// counts once. Merge it outside of the layer, and of whatever authenticates clients:
///
/// ```
/// # #[cfg(feature = "memory")] {
/// use axum::{Router, routing::post};
/// use tower_idempotency::{IdempotencyLayer, MemoryStore, server::health};
/// # async fn charge() {}
///
/// let store = MemoryStore::new();
/// let charges = Router::new().route("/charges", post(charge)).route_layer(IdempotencyLayer::new(store.clone()));
/// let app: Router = charges.merge(health::routes([store]));
/// # let _ = app;
/// # }
/// ```
#[cfg(feature = "axum")]
pub fn routes<St, S>(stores: impl IntoIterator<Item = St>) -> axum::Router<S>
where
    St: Store,
    S: Clone + Send + Sync + 'static,
{
    use std::sync::Arc;

    use axum::body::Body;
    use axum::routing::get;

    use crate::store::distinct;

    let stores: Arc<[St]> = distinct(stores).into();
    let probe = |answer: fn(&[St]) -> Response<Bytes>| {
        let stores = Arc::clone(&stores);
        get(async move || answer(&stores).map(Body::from))
    };
    axum::Router::new().route("/livez", probe(livez)).route("/readyz", probe(readyz))
}

fn answer<St: Store>(stores: &[St], is_good: fn(&Readiness) -> bool) -> Response<Bytes> {
    let stores: Vec<_> = stores.iter().map(Readiness::of).collect();
    let [live, ready] = [Readiness::is_live, Readiness::is_ready].map(|is| stores.iter().all(is));
    let body = serde_json::json!({ "live": live, "ready": ready, "stores": stores }).to_string();
    let mut answer = Response::new(body.into());
    if !stores.iter().all(is_good) {
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_fault_of_a_store_is_a_reason_and_only_poison_needs_a_restart() {
        let (since, reason) = (Duration::from_secs(7), "postgres://alice:secret@db.example".to_owned());
        let faults = [
            (Health::Slow { since }, NotReady::Slow, true),
            (Health::Full { limit: "max_records" }, NotReady::Full, true),
            (Health::Away { since, reason: reason.clone() }, NotReady::Away, true),
            (Health::Poisoned { reason }, NotReady::Poisoned, false),
            (Health::Closed, NotReady::Closed, true),
        ];
        for (health, reason, is_live) in faults {
            for (is_leaving, reasons) in [(false, vec![reason]), (true, vec![reason, NotReady::Draining])] {
                let readiness = Readiness::new("store", &health, is_leaving);
                assert_eq!(readiness, Readiness { store: "store", reasons });
                assert_eq!((readiness.is_ready(), readiness.is_live()), (false, is_live), "{health:?}");
            }
        }
        assert!(Readiness::new("store", &Health::Good, false).is_ready());
        let leaving = Readiness::new("store", &Health::Good, true);
        assert_eq!((leaving.is_ready(), leaving.is_live()), (false, true));
    }

    #[test]
    fn no_text_of_a_fault_is_shown() {
        let reason = "postgres://alice:secret@db.example".to_owned();
        let readiness = Readiness::new("store", &Health::Poisoned { reason }, false);
        let shown = serde_json::to_string(&readiness).expect("it serializes");
        assert_eq!(shown, r#"{"store":"store","reasons":["poisoned"]}"#);
    }
}
