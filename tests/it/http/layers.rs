//! Layers of tower and tower-http inside and outside the idempotency layer: the answers to the client and its retry,
//! under each policy. The table in `docs/layer-order.md` has the results of these tests, word for word.

use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, StatusCode};
use testkit::lab::asked::{Asked, found};
use testkit::lab::disk::Disk;
use testkit::lab::{Shedding, post};
use testkit::{Answer, Gate, on_both};
use tower::util::BoxCloneService;
use tower::{BoxError, ServiceBuilder, ServiceExt as _, service_fn};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::map_response_body::MapResponseBodyLayer;
use tower_http::timeout::TimeoutLayer;
use tower_idempotency::server::answer_panic;
use tower_idempotency::store::Abort;
use tower_idempotency::{AnyStore, IdempotencyContext, IdempotencyLayer, MemoryStore, OnInFlight, OnInterrupted};

type Stack = BoxCloneService<Request<Body>, Response, BoxError>;

/// Real time, as a store's writer is a thread of its own; nothing is asserted about it. The handlers that are cut by it
/// never end by themselves.
const TIMEOUT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq)]
enum Guard {
    HttpTimeout,
    HttpTimeout503,
    CatchPanic,
    CatchPanicMarked,
    Timeout,
    LoadShed,
    LoadShedClassified,
    ConcurrencyLimit,
}

#[derive(Clone, Copy, PartialEq)]
enum Policy {
    Refuse,
    Reconcile,
    Rerun,
    Atomic,
}

impl Guard {
    const ALL: [(Self, bool); 13] = [
        (Self::HttpTimeout, true),
        (Self::HttpTimeout503, true),
        (Self::HttpTimeout, false),
        (Self::Timeout, true),
        (Self::Timeout, false),
        (Self::CatchPanic, true),
        (Self::CatchPanicMarked, true),
        (Self::CatchPanic, false),
        (Self::LoadShed, true),
        (Self::LoadShedClassified, true),
        (Self::LoadShed, false),
        (Self::ConcurrencyLimit, true),
        (Self::ConcurrencyLimit, false),
    ];

    /// The mishap of the first request's handler after its effect.
    fn mishap(self, inside: bool) -> Mishap {
        match self {
            Self::HttpTimeout | Self::HttpTimeout503 | Self::Timeout if inside => Mishap::Hangs,
            Self::HttpTimeout | Self::HttpTimeout503 | Self::Timeout => Mishap::Lasts,
            Self::CatchPanic | Self::CatchPanicMarked => Mishap::Panics,
            Self::LoadShed | Self::LoadShedClassified | Self::ConcurrencyLimit => Mishap::None,
        }
    }

    /// Returns whether another request has the only place, when the first comes.
    fn is_busy(self) -> bool {
        matches!(self, Self::LoadShed | Self::LoadShedClassified | Self::ConcurrencyLimit)
    }

    fn around(self, inner: Stack) -> Stack {
        match self {
            Self::HttpTimeout | Self::HttpTimeout503 => {
                let is_503 = self == Self::HttpTimeout503;
                let status = if is_503 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::REQUEST_TIMEOUT };
                let timeout = TimeoutLayer::with_status_code(status, TIMEOUT);
                ServiceBuilder::new().layer(timeout).service(inner).boxed_clone()
            }
            Self::Timeout => ServiceBuilder::new().timeout(TIMEOUT).service(inner).boxed_clone(),
            Self::CatchPanic => {
                let catching = ServiceBuilder::new().layer(MapResponseBodyLayer::new(Body::new));
                catching.layer(CatchPanicLayer::new()).service(inner).boxed_clone()
            }
            Self::CatchPanicMarked => {
                let catching = ServiceBuilder::new().layer(MapResponseBodyLayer::new(Body::new));
                catching.layer(CatchPanicLayer::custom(answer_panic)).service(inner).boxed_clone()
            }
            Self::LoadShed | Self::LoadShedClassified => {
                ServiceBuilder::new().load_shed().concurrency_limit(1).service(inner).boxed_clone()
            }
            Self::ConcurrencyLimit => ServiceBuilder::new().concurrency_limit(1).service(inner).boxed_clone(),
        }
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HttpTimeout => "tower-http `TimeoutLayer`, 408 or 504",
            Self::HttpTimeout503 => "tower-http `TimeoutLayer`, another status",
            Self::CatchPanic => "tower-http `CatchPanicLayer::new()`",
            Self::CatchPanicMarked => "tower-http `CatchPanicLayer::custom(answer_panic)`",
            Self::Timeout => "tower `timeout`",
            Self::LoadShed => "tower `load_shed`",
            Self::LoadShedClassified => "tower `load_shed`, its error classified",
            Self::ConcurrencyLimit => "tower `concurrency_limit`",
        })
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Mishap {
    None,
    /// It never answers.
    Hangs,
    /// It answers when the test lets it.
    Lasts,
    Panics,
}

/// A handler that takes effect, and then has a mishap the first time.
#[derive(Clone)]
struct Handler<D> {
    mishap: Mishap,
    effects: Arc<AtomicUsize>,
    gate: Gate,
    // The store, if effect and answer are committed together.
    commits: Option<D>,
}

impl<D: Disk> Handler<D> {
    async fn answer(self, request: Request<Body>) -> Result<Response, BoxError> {
        if request.uri().path() == "/busy" {
            self.gate.pass().await;
            return Ok("busy".into_response());
        }
        let number = self.effects.fetch_add(1, Ordering::SeqCst) + 1;
        let answer = format!("effect {number}");
        if let Some(store) = &self.commits {
            let context = request.extensions().get::<IdempotencyContext>().unwrap().clone();
            let committed = Bytes::from(answer.clone());
            // The call sends the transaction, even if this future is dropped later.
            let committing = store.complete_in(&context, [], move |[]| {
                Ok::<_, Abort<std::io::Error>>(http::Response::new(committed.clone()))
            });
            drop(committing);
        }
        match self.mishap {
            Mishap::Hangs if number == 1 => pending().await,
            Mishap::Lasts if number == 1 => self.gate.pass().await,
            Mishap::Panics if number == 1 => panic!("on purpose"),
            _ => {}
        }
        Ok(answer.into_response())
    }
}

fn stack(guard: Guard, inside: bool, layer: IdempotencyLayer<AnyStore>, handler: Handler<impl Disk>) -> Stack {
    let handler = service_fn(move |request| handler.clone().answer(request)).boxed_clone();
    let layer = if guard == Guard::LoadShedClassified { layer.classify(Shedding) } else { layer };
    if inside {
        return ServiceBuilder::new().layer(layer).service(guard.around(handler)).boxed_clone();
    }
    guard.around(ServiceBuilder::new().layer(layer).service(handler).boxed_clone())
}

/// The answers that a client sees.
async fn sees(service: Stack, effects: &AtomicUsize) -> String {
    let before = effects.load(Ordering::SeqCst);
    let response = match std::panic::AssertUnwindSafe(service.oneshot(post("k", "a"))).catch_unwind().await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) if error.is::<tower::load_shed::error::Overloaded>() => return "`Overloaded`".to_owned(),
        Ok(Err(error)) if error.is::<tower::timeout::error::Elapsed>() => return "`Elapsed`".to_owned(),
        Ok(Err(error)) => panic!("{error}"),
        Err(_) => return "a panic".to_owned(),
    };
    let answer = Answer::of(response).await;
    let ran = effects.load(Ordering::SeqCst) - before;
    match (answer.problem().as_str(), answer.is_replay()) {
        ("", true) if answer.text() == "found" => "what was found".to_owned(),
        ("", true) => format!("replay of {}", answer.status.as_u16()),
        ("", false) if before == 0 || answer.status != 200 => answer.status.as_u16().to_string(),
        ("", false) => format!("runs again, {}", ["without effect", "a second effect"][ran]),
        (problem, _) => format!("{} `{problem}`", answer.status.as_u16()),
    }
}

async fn cell<D: Disk>(guard: Guard, inside: bool, policy: Policy) -> String {
    let directory = tempfile::tempdir().unwrap();
    let commits = (policy == Policy::Atomic).then(|| D::open(directory.path()).unwrap());
    let store = commits.clone().map_or_else(|| AnyStore::new(MemoryStore::new()), AnyStore::new);
    let layer = IdempotencyLayer::new(store).on_in_flight(OnInFlight::Wait(LONG));
    let layer = match policy {
        Policy::Refuse => layer.on_interrupted(OnInterrupted::Refuse),
        Policy::Reconcile => layer.reconcile_with(Asked::default().says([found("found")])),
        Policy::Rerun | Policy::Atomic => layer.on_interrupted(OnInterrupted::Rerun),
    };
    let (effects, gate) = (Arc::<AtomicUsize>::default(), Gate::default());
    let mishap = guard.mishap(inside);
    let handler = Handler { mishap, effects: Arc::clone(&effects), gate: gate.clone(), commits };
    let service = stack(guard, inside, layer, handler);
    if !guard.is_busy() {
        let first = sees(service.clone(), &effects).await;
        gate.open();
        let mut retry = sees(service.clone(), &effects).await;
        // A timeout outside may cut the wait for the record, too: clients come again.
        for _ in 0..100 {
            if retry != first {
                break;
            }
            retry = sees(service.clone(), &effects).await;
        }
        return format!("{first}, then {retry}");
    }
    let mut busy = post("another", "a");
    *busy.uri_mut() = "/busy".parse().unwrap();
    let occupant = tokio::spawn(service.clone().oneshot(busy));
    gate.arrival().await;
    let mut first = Box::pin(sees(service.clone(), &effects));
    let first = match futures_util::poll!(&mut first) {
        std::task::Poll::Ready(seen) => seen,
        // Shedding takes a moment if the run itself is shed.
        std::task::Poll::Pending if guard != Guard::ConcurrencyLimit => first.await,
        std::task::Poll::Pending => {
            assert_eq!(effects.load(Ordering::SeqCst), 0, "it waits for its place");
            gate.open();
            format!("waits, {}", first.await)
        }
    };
    gate.open();
    occupant.await.unwrap().unwrap();
    format!("{first}, then {}", sees(service, &effects).await)
}

on_both!(
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    the_guide_says_what_clients_see_of_layers_inside_and_outside
);
async fn the_guide_says_what_clients_see_of_layers_inside_and_outside<D: Disk>() {
    let mut rows = Vec::new();
    for (guard, inside) in Guard::ALL {
        let mut row = format!("| {guard} | {} |", if inside { "inside" } else { "outside" });
        for policy in [Policy::Refuse, Policy::Reconcile, Policy::Rerun, Policy::Atomic] {
            row.push_str(&format!(" {} |", cell::<D>(guard, inside, policy).await));
        }
        rows.push(row);
    }
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/layer-order.md")).unwrap();
    let missing: Vec<_> = rows.iter().filter(|row| !page.contains(*row)).collect();
    assert!(missing.is_empty(), "docs/layer-order.md should have these rows:\n{}", rows.join("\n"));
}
