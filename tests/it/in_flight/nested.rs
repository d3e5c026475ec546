//! An exchange within an exchange: which request passes the inner layer, and which is an exchange of its own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post as route};
use http::{HeaderName, HeaderValue, StatusCode, Uri};
use testkit::lab::operator::Operated as _;
use testkit::lab::{Lab, keyed, layer, post};
use testkit::{Answer, Gate};
use tower::ServiceExt as _;
use tower_idempotency::test_util::{StoreCall, TestStore};
use tower_idempotency::{
    IdempotencyContext, IdempotencyLayer, Keep, MemoryStore, OnInFlight, OnInterrupted, Release, Scope, Unsure,
};

/// A router whose batch endpoint sends sub-requests through the same router, with heads that are copies of its own.
#[derive(Clone)]
struct Batches {
    effects: Arc<AtomicUsize>,
    app: Arc<Mutex<Option<Router>>>,
}

impl Batches {
    fn behind(layer: IdempotencyLayer<MemoryStore>) -> Lab {
        let this = Self { effects: Arc::default(), app: Arc::default() };
        let app = Router::new()
            .route("/charges", route(charge))
            .route("/refunds", route(charge))
            .route("/batch", route(batch))
            .layer(layer)
            .with_state(this.clone());
        *this.app.lock().unwrap() = Some(app.clone());
        Lab::of(app)
    }
}

async fn charge(State(batches): State<Batches>) -> String {
    format!("effect {}", batches.effects.fetch_add(1, Ordering::SeqCst) + 1)
}

/// Sends the sub-requests. The body has a line for each, with its path and its key; `-` leaves the key out.
async fn batch(State(batches): State<Batches>, request: Request) -> String {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let mut answers = Vec::new();
    for line in std::str::from_utf8(&body).unwrap().lines() {
        let (target, key) = line.split_once(' ').unwrap();
        let app = batches.app.lock().unwrap().clone().unwrap();
        let answer = app.oneshot(sub_request(&parts, target, key)).await.unwrap();
        let answer = Answer::of(answer).await;
        let marker = if answer.is_replay() { " again" } else { "" };
        answers.push(match answer.status.as_u16() {
            200 => format!("{}{marker}", answer.text()),
            status => format!("{status} {}", answer.problem()),
        });
    }
    answers.join(", ")
}

fn sub_request(parts: &Parts, target: &str, key: &str) -> Request {
    let mut parts = parts.clone();
    parts.uri = Uri::try_from(target).unwrap();
    parts.headers.remove("idempotency-key");
    if key != "-" {
        parts.headers.insert("idempotency-key", HeaderValue::from_str(key).unwrap());
    }
    Request::from_parts(parts, Body::from("a"))
}

async fn send(lab: &Lab, key: &str, body: &'static str) -> String {
    lab.send(keyed("POST", "/batch", key).body(Body::from(body)).unwrap()).await.text().to_owned()
}

#[tokio::test]
async fn trap_80_a_sub_request_with_a_key_of_its_own_is_an_exchange_of_its_own() {
    let layer = layer();
    let lab = Batches::behind(layer.clone());
    assert_eq!(send(&lab, "batch-1", "/charges sub-1\n/charges sub-2").await, "effect 1, effect 2");
    assert_eq!(send(&lab, "batch-2", "/charges sub-1\n/charges sub-3").await, "effect 1 again, effect 3");
    assert_eq!(send(&lab, "batch-1", "/charges sub-1\n/charges sub-2").await, "effect 1, effect 2", "a replay");
    // From outside, too: it is the same operation.
    assert_eq!(lab.post("sub-2", "a").await.text(), "effect 2");
    assert_eq!(layer.store().len(), 5);
}

#[tokio::test]
async fn a_sub_request_of_the_same_operation_passes() {
    let layer = layer();
    let lab = Batches::behind(layer.clone());
    assert_eq!(send(&lab, "batch-1", "/charges batch-1").await, "effect 1");
    assert_eq!(send(&lab, "batch-2", "/charges -").await, "effect 2", "without a key it asks for nothing");
    assert_eq!((layer.stats().runs, layer.store().len()), (2, 2));
}

#[tokio::test]
async fn a_sub_request_is_what_it_asks_for_and_not_what_its_enclosing_request_did() {
    let lab = Batches::behind(layer());
    assert_eq!(send(&lab, "batch-1", "/charges sub-1").await, "effect 1");
    assert_eq!(send(&lab, "batch-2", "/refunds sub-1").await, "422 key-reused", "the path is the sub-request's own");
    assert_eq!(send(&lab, "batch-3", "/charges?for=bob sub-1").await, "422 key-reused");
}

#[tokio::test]
async fn a_sub_request_of_a_sub_request_is_told_from_both() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let app: Arc<Mutex<Option<Router>>> = Arc::default();
    let step = |next: Option<(&'static str, &'static str)>| {
        let (seen, app) = (Arc::clone(&seen), Arc::clone(&app));
        move |request: Request| async move {
            let (parts, _) = request.into_parts();
            seen.lock().unwrap().push(parts.uri.path().to_owned());
            let Some((target, key)) = next else { return "done".to_owned() };
            let app = app.lock().unwrap().clone().unwrap();
            Answer::of(app.oneshot(sub_request(&parts, target, key)).await.unwrap()).await.text().to_owned()
        }
    };
    let router = Router::new()
        .route("/one", route(step(Some(("/two", "two")))))
        .route("/two", route(step(Some(("/three", "three")))))
        .route("/three", route(step(None)))
        .layer(layer());
    *app.lock().unwrap() = Some(router.clone());
    let lab = Lab::of(router);
    let send =
        |path: &'static str, key: &'static str| lab.send(keyed("POST", path, key).body(Body::from("a")).unwrap());
    assert_eq!(send("/one", "one").await.text(), "done");
    assert_eq!(*seen.lock().unwrap(), ["/one", "/two", "/three"]);
    // Each was recorded under its own target: sent from outside, they are the same requests.
    for (path, key) in [("/two", "two"), ("/three", "three")] {
        assert!(send(path, key).await.is_replay(), "{path}");
    }
}

#[tokio::test]
async fn a_context_that_outlived_its_run_protects_nothing() {
    let kept: Arc<Mutex<Option<Parts>>> = Arc::default();
    let keeps = Arc::clone(&kept);
    let effects = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&effects);
    let handler = move |request: Request| async move {
        *keeps.lock().unwrap() = Some(request.into_parts().0);
        format!("effect {}", counted.fetch_add(1, Ordering::SeqCst) + 1)
    };
    let lab = Lab::of(Router::new().route("/charges", route(handler)).layer(layer()));
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    let parts = kept.lock().unwrap().clone().unwrap();
    assert!(parts.extensions.get::<IdempotencyContext>().is_some());
    let later = lab.send(Request::from_parts(parts, Body::from("a"))).await;
    assert_eq!((later.text(), later.is_replay()), ("effect 1", true));
    assert_eq!(effects.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn within_an_exchange_another_scope_makes_another_operation() {
    let store = MemoryStore::new();
    let inner = IdempotencyLayer::new(store.clone()).scope(|_| Ok(Scope::new("tenant")?));
    let nested = Router::new().route("/charges", route(async || "done")).layer(inner);
    let lab = Lab::of(Router::new().nest("/v1", nested).layer(IdempotencyLayer::new(store.clone())));
    let charge = || lab.send(keyed("POST", "/v1/charges", "k").body(Body::from("a")).unwrap());
    assert_eq!(charge().await.text(), "done");
    assert!(charge().await.is_replay());
    assert_eq!(store.len(), 2);
}

// A seeded fault: a layer over another store that passes.
#[tokio::test]
async fn a_layer_over_another_store_never_passes() {
    let (outer, inner) = (MemoryStore::new(), MemoryStore::new());
    let effects = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&effects);
    let handler = move || async move { format!("effect {}", counted.fetch_add(1, Ordering::SeqCst) + 1) };
    let nested = || Router::new().route("/charges", route(handler.clone())).layer(IdempotencyLayer::new(inner.clone()));
    let both = Lab::of(nested().layer(IdempotencyLayer::new(outer.clone())));
    assert_eq!(both.post("k", "a").await.text(), "effect 1");
    assert_eq!((outer.len(), inner.len()), (1, 1), "each has its own record");
    // If the outer layer has no record any more, the inner one answers.
    let forgetful = Lab::of(nested().layer(IdempotencyLayer::new(MemoryStore::new())));
    assert_eq!(forgetful.post("k", "a").await.text(), "effect 1");
    assert_eq!(effects.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_a_layer_inside_refuses_is_no_outcome_outside() {
    let fails = TestStore::new();
    for (policy, again) in [(OnInterrupted::Refuse, "outcome-unknown"), (OnInterrupted::Rerun, "")] {
        let (outer, inner) = (MemoryStore::new(), fails.clone());
        inner.fail_next(StoreCall::Claim);
        let nested = Router::new().route("/charges", route(async || "done")).layer(IdempotencyLayer::new(inner));
        let lab = Lab::of(nested.layer(IdempotencyLayer::new(outer).on_interrupted(policy)));
        assert_eq!(lab.post("k", "a").await.refusal(), (503, "store-unavailable".to_owned()));
        assert_eq!(lab.post("k", "a").await.problem(), again);
    }

    let (outer, inner) = (MemoryStore::new(), MemoryStore::new());
    let panics = Router::new().route("/charges", route(async || -> &'static str { panic!("on purpose") }));
    let lab = Lab::of(panics.layer(IdempotencyLayer::new(inner)).layer(IdempotencyLayer::new(outer.clone())));
    assert_eq!(lab.post("k", "a").await.refusal(), (500, "outcome-unknown".to_owned()));
    assert_eq!(lab.post("k", "a").await.refusal(), (409, "outcome-unknown".to_owned()));
    let listed = IdempotencyLayer::new(outer).interrupted(9).await.unwrap();
    assert_eq!(listed[0].state.status(), Some(500));
}

/// A router whose handler at `/order` takes effect, sends a request to `/step` under the key `step`, and passes its
/// answer on.
fn passing_on<R: IntoResponse>(
    store: TestStore,
    step: impl Fn() -> R + Clone + Send + Sync + 'static,
) -> (Lab, Arc<AtomicUsize>) {
    let (effects, app) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Option<Router>>>::default());
    let (counted, inner) = (Arc::clone(&effects), Arc::clone(&app));
    let order = move |request: Request| async move {
        counted.fetch_add(1, Ordering::SeqCst);
        let app = inner.lock().unwrap().clone().unwrap();
        app.oneshot(sub_request(&request.into_parts().0, "/step", "step")).await.unwrap()
    };
    let router = Router::new().route("/order", route(order)).route("/step", route(async move || step()));
    let router = router.layer(IdempotencyLayer::new(store));
    *app.lock().unwrap() = Some(router.clone());
    (Lab::of(router), effects)
}

#[tokio::test]
async fn a_refusal_that_a_handler_passes_on_after_its_effect_neither_frees_the_key_nor_is_recorded() {
    let (lab, effects) = passing_on(TestStore::new(), || "done");
    let order = || lab.send(keyed("POST", "/order", "k").body(Body::from("a")).unwrap());
    assert_eq!(lab.send(keyed("POST", "/step", "step").body(Body::from("other")).unwrap()).await.text(), "done");
    assert_eq!(order().await.refusal(), (422, "key-reused".to_owned()), "of the step");
    assert_eq!(order().await.refusal(), (409, "outcome-unknown".to_owned()), "of the order");
    assert_eq!(effects.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_mark_of_a_sub_request_s_handler_is_not_the_enclosing_one_s() {
    let marked: [(fn() -> Response, bool); 4] = [
        (|| (Release, "busy").into_response(), true),
        (|| (StatusCode::CREATED, Unsure, "who knows").into_response(), true),
        (|| (StatusCode::GATEWAY_TIMEOUT, Keep, "late").into_response(), false),
        // Its status would free the key, although the step may have had an effect.
        (|| (StatusCode::UNAUTHORIZED, Keep, "later").into_response(), false),
    ];
    for (step, is_final) in marked {
        let (lab, effects) = passing_on(TestStore::new(), step);
        let order = || lab.send(keyed("POST", "/order", "k").body(Body::from("a")).unwrap());
        let first = order().await;
        assert!(!first.is_replay());
        assert_eq!(order().await.is_replay(), is_final, "judged by its own status: {}", first.status);
        assert_eq!(effects.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn sub_requests_of_a_request_without_a_key_are_told_apart_by_where_they_go() {
    let lab = Batches::behind(layer());
    let batch = async |body: &'static str| {
        let request = Request::post("/batch").header("host", "pay.example").body(Body::from(body)).unwrap();
        lab.send(request).await.text().to_owned()
    };
    assert_eq!(batch("/charges sub-1\n/charges sub-1").await, "effect 1, effect 1 again");
    assert_eq!(batch("/charges sub-1").await, "effect 1 again");
    assert_eq!(batch("/refunds sub-1").await, "422 key-reused");
    assert_eq!(batch("/charges?for=bob sub-1").await, "422 key-reused");
}

#[tokio::test(start_paused = true)]
async fn a_context_that_outlived_its_run_protects_nothing_even_while_the_operation_runs_again() {
    for unprotected in [false, true] {
        let kept: Arc<Mutex<Option<Parts>>> = Arc::default();
        let (gate, effects) = (Gate::default(), Arc::<AtomicUsize>::default());
        let (keeps, counted, behind) = (Arc::clone(&kept), Arc::clone(&effects), gate.clone());
        let handler = move |request: Request| async move {
            if counted.fetch_add(1, Ordering::SeqCst) > 0 {
                behind.pass().await;
                return "second".into_response();
            }
            *keeps.lock().unwrap() = Some(request.into_parts().0);
            (Release, "first").into_response()
        };
        let store = TestStore::new();
        if unprotected {
            store.fail_next(StoreCall::Claim);
        }
        let layer = IdempotencyLayer::new(store).fail_open(true).on_in_flight(OnInFlight::Reject);
        let lab = Lab::of(Router::new().route("/charges", route(handler)).layer(layer.clone()));
        assert_eq!(lab.post("k", "a").await.text(), "first");
        assert_eq!(layer.stats().fail_open_runs, u64::from(unprotected));
        let second = lab.spawn(post("k", "a"));
        gate.arrival().await;
        let parts = kept.lock().unwrap().clone().unwrap();
        let stale = lab.send(Request::from_parts(parts, Body::from("a")));
        let stale = tokio::time::timeout(Duration::from_secs(3_600), stale).await.expect("it does not run");
        assert_eq!(stale.refusal(), (409, "in-flight".to_owned()));
        gate.open();
        assert_eq!(second.await.unwrap().text(), "second");
        assert_eq!(effects.load(Ordering::SeqCst), 2);
    }
}

/// Batches and charges at routers of their own, each behind the layer.
fn in_nested_routers(layer: &IdempotencyLayer<MemoryStore>) -> Lab {
    let this = Batches { effects: Arc::default(), app: Arc::default() };
    let charges =
        |layer: &IdempotencyLayer<MemoryStore>| Router::new().route("/create", route(charge)).layer(layer.clone());
    let app = Router::new()
        .nest("/charges", charges(layer))
        .nest("/refunds", charges(layer))
        .nest("/batch", Router::new().route("/all", route(batch)).layer(layer.clone()))
        .with_state(this.clone());
    *this.app.lock().unwrap() = Some(app.clone());
    Lab::of(app)
}

#[tokio::test]
async fn sub_requests_to_nested_routers_are_told_apart_by_where_these_are_nested() {
    let lab = in_nested_routers(&layer());
    let batch = async |key: &str, body: &'static str| {
        lab.send(keyed("POST", "/batch/all", key).body(Body::from(body)).unwrap()).await.text().to_owned()
    };
    assert_eq!(batch("batch-1", "/charges/create sub-1").await, "effect 1");
    assert_eq!(batch("batch-2", "/charges/create sub-1").await, "effect 1 again");
    assert_eq!(batch("batch-3", "/refunds/create sub-1").await, "422 key-reused");
    // A client's own request counts as it is.
    let charge = || keyed("POST", "/charges/create", "own").body(Body::from("a")).unwrap();
    assert_eq!(lab.send(charge()).await.text(), "effect 2");
    assert!(lab.send(charge()).await.is_replay());
}

#[tokio::test]
async fn a_sub_request_without_a_key_has_no_context() {
    let contexts = Arc::new(Mutex::new(Vec::new()));
    let app: Arc<Mutex<Option<Router>>> = Arc::default();
    let (seen, inner) = (Arc::clone(&contexts), Arc::clone(&app));
    let order = move |request: Request| async move {
        let (parts, _) = request.into_parts();
        for method in ["POST", "GET"] {
            let mut step = sub_request(&parts, "/step", "-");
            *step.method_mut() = method.parse().unwrap();
            let app = inner.lock().unwrap().clone().unwrap();
            app.oneshot(step).await.unwrap();
        }
        // Its own key, sent on: the same operation.
        let app = inner.lock().unwrap().clone().unwrap();
        app.oneshot(sub_request(&parts, "/step", "k")).await.unwrap()
    };
    let step = move |context: Option<IdempotencyContext>| async move {
        seen.lock().unwrap().push(context.map(|context| context.key().as_str().to_owned()));
        "done"
    };
    let router = Router::new().route("/order", route(order)).route("/step", any(step)).layer(layer());
    *app.lock().unwrap() = Some(router.clone());
    let lab = Lab::of(router);
    assert_eq!(lab.send(keyed("POST", "/order", "k").body(Body::from("a")).unwrap()).await.text(), "done");
    assert_eq!(*contexts.lock().unwrap(), [None, None, Some("k".to_owned())]);
    // Middleware that hands the request on leaves it where it is.
    let seen = Arc::clone(&contexts);
    let step = move |context: IdempotencyContext| async move {
        seen.lock().unwrap().push(Some(context.key().as_str().to_owned()));
    };
    let other = IdempotencyLayer::new(MemoryStore::new()).header_name(HeaderName::from_static("x-other"));
    let lab = Lab::of(Router::new().route("/charges", route(step)).layer(other).layer(layer()));
    assert_eq!(lab.post("through", "a").await.status, 200);
    assert_eq!(contexts.lock().unwrap().pop(), Some(Some("through".to_owned())));
}

#[tokio::test]
async fn a_run_that_goes_on_while_draining_can_finish_what_it_asks_for() {
    let layer = layer();
    let gate = Gate::default();
    let (app, behind) = (Arc::<Mutex<Option<Router>>>::default(), gate.clone());
    let inner = Arc::clone(&app);
    let order = move |request: Request| async move {
        behind.pass().await;
        let app = inner.lock().unwrap().clone().unwrap();
        app.oneshot(sub_request(&request.into_parts().0, "/step", "step")).await.unwrap()
    };
    let router =
        Router::new().route("/order", route(order)).route("/step", route(async || "done")).layer(layer.clone());
    *app.lock().unwrap() = Some(router.clone());
    let lab = Lab::of(router);
    let running = lab.spawn(keyed("POST", "/order", "k").body(Body::from("a")).unwrap());
    gate.arrival().await;
    let mut draining = Box::pin(layer.drain(Duration::from_secs(60)));
    assert!(futures_util::poll!(&mut draining).is_pending());
    assert_eq!(lab.post("new", "a").await.refusal(), (503, "shutting-down".to_owned()));
    gate.open();
    assert_eq!(running.await.unwrap().text(), "done");
    assert_eq!((draining.await.runs, layer.store().len()), (0, 2));
}
