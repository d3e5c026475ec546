//! Fallbacks of axum's routers are no routes: `route_layer` does not wrap them, and `layer` does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::routing::{self, MethodRouter};
use axum::{Router, handler::Handler};
use testkit::lab::{keyed, layer};
use tower::ServiceExt as _;
use tower_idempotency::{IdempotencyLayer, MemoryStore, Rejection};

type Layer = IdempotencyLayer<MemoryStore>;

/// A handler that counts its effects.
#[derive(Clone, Default)]
struct Charge(Arc<AtomicUsize>);

impl Charge {
    fn handler(&self) -> impl Handler<((),), ()> + use<> {
        let Self(effects) = self.clone();
        move || async move { effects.fetch_add(1, Ordering::Relaxed).to_string() }
    }

    /// A route for another path and another method.
    fn page() -> MethodRouter {
        routing::get(async || "a page")
    }
}

/// A router whose handler is reached by a POST to this path, and whether the layer sees that request.
type Kind = (&'static str, fn(Layer, &Charge) -> Router, &'static str, bool);

const KINDS: [Kind; 15] = [
    (
        "a route",
        |layer, charge| Router::new().route("/x", routing::post(charge.handler())).route_layer(layer),
        "/x",
        true,
    ),
    (
        "a later route",
        |layer, charge| page().route_layer(layer).route("/x", routing::post(charge.handler())),
        "/x",
        false,
    ),
    ("fallback", |layer, charge| page().fallback(charge.handler()).route_layer(layer), "/x", false),
    ("fallback, layer", |layer, charge| page().fallback(charge.handler()).layer(layer), "/x", true),
    ("a later fallback", |layer, charge| page().layer(layer).fallback(charge.handler()), "/x", false),
    (
        "fallback_service",
        |layer, charge| page().fallback_service(routing::any(charge.handler())).route_layer(layer),
        "/x",
        false,
    ),
    (
        "fallback_service, layer",
        |layer, charge| page().fallback_service(routing::any(charge.handler())).layer(layer),
        "/x",
        true,
    ),
    (
        "a nested fallback",
        |layer, charge| page().nest("/v", page().fallback(charge.handler())).route_layer(layer),
        "/v/x",
        false,
    ),
    (
        "a nested fallback, layer",
        |layer, charge| page().nest("/v", page().fallback(charge.handler())).layer(layer),
        "/v/x",
        true,
    ),
    (
        "a nested fallback, layer within",
        |layer, charge| page().nest("/v", page().fallback(charge.handler()).layer(layer)),
        "/v/x",
        true,
    ),
    (
        "a MethodRouter's fallback",
        |layer, charge| Router::new().route("/page", Charge::page().fallback(charge.handler()).route_layer(layer)),
        "/page",
        false,
    ),
    (
        "a MethodRouter's fallback, layer",
        |layer, charge| Router::new().route("/page", Charge::page().fallback(charge.handler()).layer(layer)),
        "/page",
        true,
    ),
    (
        "a MethodRouter's fallback, route_layer of its router",
        |layer, charge| Router::new().route("/page", Charge::page().fallback(charge.handler())).route_layer(layer),
        "/page",
        true,
    ),
    (
        "method_not_allowed_fallback before",
        |layer, charge| page().method_not_allowed_fallback(charge.handler()).route_layer(layer),
        "/page",
        true,
    ),
    (
        "method_not_allowed_fallback after",
        |layer, charge| page().route_layer(layer).method_not_allowed_fallback(charge.handler()),
        "/page",
        false,
    ),
];

fn page() -> Router {
    Router::new().route("/page", Charge::page())
}

/// The check of `docs/layer-order.md`: the layer answers a probe by itself, and never runs it.
async fn is_covered(app: &Router, path: &str) -> bool {
    let probe = keyed("POST", path, "check").header("idempotency-probe", "?1").body(Body::empty()).unwrap();
    app.clone().oneshot(probe).await.unwrap().extensions().get::<Rejection>().is_some()
}

// What axum does, and what `docs/layer-order.md` says of it.
#[tokio::test]
async fn each_kind_of_router_runs_a_handler_twice_for_one_key_where_the_layer_does_not_see_it() {
    for (kind, router, path, is_seen) in KINDS {
        let charge = Charge::default();
        let app = router(layer(), &charge);
        let post = || keyed("POST", path, "k").body(Body::empty()).unwrap();
        for _ in 0..2 {
            let answer = app.clone().oneshot(post()).await.unwrap();
            assert_eq!(answer.status(), 200, "{kind}");
        }
        assert_eq!(charge.0.load(Ordering::Relaxed), if is_seen { 1 } else { 2 }, "{kind}");
        assert_eq!(is_covered(&app, path).await, is_seen, "{kind}");
    }
}
