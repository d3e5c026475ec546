//! The servers: the same handler, bare, behind our layer, and behind the alternatives.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::post;
use axum_idempotent::{IdempotentLayer, IdempotentOptions};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use peers::process;
use ruts::store::Ttl;
use ruts::store::moka::MokaStore;
use ruts::{CookieOptions, Session, SessionLayer};
use testkit::bench::exchange::{KEY, SMALL, bare, layer, protected};
use testkit::bench::minimum::{Engine, Minimum, Writes, durable, on_fjall, on_sled};
use tower_cookies::CookieManagerLayer;
use tower_idempotency::metrics::{BUCKETS, Metrics};
use tower_idempotency::store::Store as _;
use tower_idempotency::{AnyStore, FjallStore, MemoryStore, OnInterrupted, SledStore};
use tower_idempotency_proxy::{Proxy, Upstream};
use tracing::Level;
use tracing_subscriber::fmt;

use crate::records::Records;

const DAY: Duration = Duration::from_secs(86_400);
/// A number larger than the requests of any run here.
const MANY: u64 = 100_000_000;

/// The beginning of the names of proxies.
const PROXY: &str = "proxy, ";

/// Serves until the process is killed.
pub(crate) fn serve(name: &str, directory: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let app = match name.strip_prefix(PROXY) {
            Some(kind) => proxy(kind, directory).await,
            None => app(name, directory),
        };
        process::serve(app).await;
    });
}

fn app(name: &str, directory: &Path) -> Router {
    let sled = || SledStore::builder().max_records(MANY).open(directory).expect("it opens");
    let fjall = || FjallStore::builder().max_records(MANY).open(directory).expect("it opens");
    let minimum = |engine: Engine| Arc::new(Minimum::open(engine, directory));
    match name {
        "bare axum" => bare(SMALL).with_state(()),
        "ours, memory" => protected(SMALL, memory(), OnInterrupted::Rerun),
        "ours, metrics on" => {
            let seconds = Matcher::Suffix("_seconds".to_owned());
            let recorder =
                PrometheusBuilder::new().set_buckets_for_metric(seconds, &BUCKETS).expect("there are buckets");
            let scraped = recorder.install_recorder().expect("it is the only one");
            let store = memory();
            store.observe(Metrics::new()).expect("it is the only one");
            tokio::spawn(scrape(scraped));
            protected(SMALL, store, OnInterrupted::Rerun)
        }
        "ours, events on" => with_events(std::io::sink),
        "ours, events in a file" => {
            with_events(Mutex::new(File::create(directory.join("log")).expect("it can be written")))
        }
        "ours, sled, rerun" => protected(SMALL, sled(), OnInterrupted::Rerun),
        "ours, sled, refuse" => protected(SMALL, sled(), OnInterrupted::Refuse),
        "ours, fjall, rerun" => protected(SMALL, fjall(), OnInterrupted::Rerun),
        "ours, fjall, refuse" => protected(SMALL, fjall(), OnInterrupted::Refuse),
        "by hand, one write" => durable(SMALL, minimum(on_sled), Writes::One),
        "by hand, two writes" => durable(SMALL, minimum(on_sled), Writes::Two),
        "by hand on fjall, one write" => durable(SMALL, minimum(on_fjall), Writes::One),
        "by hand on fjall, two writes" => durable(SMALL, minimum(on_fjall), Writes::Two),
        "axum-idempotent" => axum_idempotent(),
        "cratestack-axum" => cratestack(),
        "moka by hand" => moka_by_hand(),
        _ => panic!("no contender is called {name}"),
    }
}

/// Returns a proxy in front of a bare server in this process, without a layer or with one.
async fn proxy(kind: &str, directory: &Path) -> Router {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let origin = format!("http://{}", listener.local_addr().expect("it has one"));
    let service = bare(SMALL).with_state(());
    tokio::spawn(async move { axum::serve(listener, service).await.expect("it serves") });
    let upstream = Upstream::new(origin.parse().expect("an origin")).expect("a service");
    let store = match kind {
        "bare" => return Router::new().fallback_service(upstream),
        "memory" => AnyStore::new(memory()),
        "sled" => AnyStore::new(SledStore::builder().max_records(MANY).open(directory).expect("it opens")),
        _ => panic!("no proxy is called {kind}"),
    };
    Router::new().fallback_service(Proxy::new(layer(store, OnInterrupted::Refuse), upstream).service())
}

fn memory() -> MemoryStore {
    MemoryStore::builder().max_records(MANY as usize).max_bytes(64 << 30).build()
}

/// Answers requests with a layer whose events are shown, as text.
fn with_events<W: for<'w> fmt::MakeWriter<'w> + Send + Sync + 'static>(writer: W) -> Router {
    fmt().with_max_level(Level::INFO).with_ansi(false).with_writer(writer).init();
    let layer = layer(memory(), OnInterrupted::Rerun).run_level(Level::INFO).replay_level(Level::INFO);
    bare(SMALL).layer(layer).with_state(())
}

/// Renders the metrics every second, more often than any Prometheus server asks.
async fn scrape(recorder: PrometheusHandle) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        recorder.run_upkeep();
        std::hint::black_box(recorder.render());
    }
}

/// Returns the app behind `axum-idempotent`, keyed by the header alone: this is its fastest setting, because nothing is
/// hashed. It needs a session.
fn axum_idempotent() -> Router {
    let options =
        IdempotentOptions::default().use_idempotency_key_header(Some(KEY), false).expire_after(DAY.as_secs() as i64);
    let store = Arc::new(MokaStore::builder().max_capacity(MANY).build());
    let log_in = async |session: Session<MokaStore>| {
        let ttl = Ttl::new(DAY.as_secs() as i64).expect("a day");
        session.set("user", &1, ttl, None).await.expect("a session");
    };
    bare(SMALL)
        .route("/login", post(log_in))
        .layer(IdempotentLayer::<MokaStore>::new(options))
        .layer(SessionLayer::new(store).with_cookie_options(CookieOptions::build().name("session")))
        .layer(CookieManagerLayer::new())
        .with_state(())
}

fn cratestack() -> Router {
    let layer = cratestack_axum::idempotency::IdempotencyLayer::new(Arc::new(Records::default()), DAY);
    bare(SMALL).layer(layer).with_state(())
}

type Cache = moka::sync::Cache<String, (StatusCode, HeaderMap, Bytes)>;

/// Returns the app behind a quick hand-written solution: a cache of answers, without a claim or a fingerprint.
fn moka_by_hand() -> Router {
    let cache = Cache::builder().max_capacity(MANY).time_to_live(DAY).build();
    bare(SMALL).layer(from_fn_with_state(cache, remember)).with_state(())
}

async fn remember(State(cache): State<Cache>, request: Request, next: Next) -> Response {
    let key = request.headers().get(KEY).and_then(|key| key.to_str().ok()).map(str::to_owned);
    let Some(key) = key else { return next.run(request).await };
    if let Some((status, headers, body)) = cache.get(&key) {
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
        return response;
    }
    let (parts, body) = next.run(request).await.into_parts();
    let body = to_bytes(body, 1 << 20).await.expect("it is small");
    cache.insert(key, (parts.status, parts.headers.clone(), body.clone()));
    Response::from_parts(parts, body.into())
}
