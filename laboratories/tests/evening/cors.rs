//! What pages of other origins read of the proxy's answers: each of them, where the proxy answers CORS, and only the
//! first ones, where the service does.

use std::net::SocketAddr;

use axum::Router;
use axum::ServiceExt as _;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, COOKIE, HeaderMap, SET_COOKIE};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::{get, post};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use testkit::Gate;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tower_http::cors::CorsLayer;
use tower_idempotency::{AnyStore, IdempotencyLayer, MemoryStore, OnInFlight};
use tower_idempotency_proxy::{Proxy, Upstream};

use crate::browser::{Browser, Manner};

const LONGEST: usize = 100;

async fn bound() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

async fn serve(app: Router) -> SocketAddr {
    let (listener, address) = bound().await;
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// A page that does nothing by itself, on an origin of its own.
async fn page() -> String {
    format!("http://{}", serve(Router::new().route("/", get(async || Html("a page")))).await)
}

/// The headers that scripts send, and may read.
fn cors(origins: &[String], allow: Vec<HeaderName>, expose: Vec<HeaderName>) -> CorsLayer {
    let origins: Vec<HeaderValue> = origins.iter().map(|origin| origin.parse().expect("an origin")).collect();
    let cors =
        CorsLayer::new().allow_origin(origins).allow_credentials(true).allow_methods([Method::GET, Method::POST]);
    cors.allow_headers([allow, vec![CONTENT_TYPE]].concat()).expose_headers(expose)
}

/// A service that answers CORS by itself, for these origins.
async fn service(origins: &[String], gate: &Gate) -> SocketAddr {
    let own = || HeaderName::from_static("idempotency-key");
    let app = Router::new().route("/orders", post(order).get(async || "orders")).with_state(gate.clone());
    serve(app.layer(cors(origins, vec![own()], vec![CACHE_CONTROL]))).await
}

/// Says which cookie has come, and sets one.
async fn order(State(gate): State<Gate>, head: HeaderMap, body: String) -> Response {
    if body == "waits" {
        gate.pass().await;
    }
    let cookie = head.get(COOKIE).and_then(|cookie| cookie.to_str().ok()).unwrap_or("no cookie").to_owned();
    let head = [(SET_COOKIE, "basket=7"), (CACHE_CONTROL, "no-store")];
    (StatusCode::CREATED, head, format!("{body}, {cookie}")).into_response()
}

/// A service that breaks each connection once it has a request.
async fn breaking() -> SocketAddr {
    let (listener, address) = bound().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
        }
    });
    address
}

/// A proxy in front of a service, which answers CORS for these origins, if there are any.
async fn proxy(service: SocketAddr, origins: &[String]) -> SocketAddr {
    let layer = IdempotencyLayer::new(AnyStore::new(MemoryStore::new())).on_in_flight(OnInFlight::Reject);
    let layer = layer.require_key(true).max_request_body(LONGEST);
    let headers = layer.cors_headers();
    let upstream = Upstream::new(format!("http://{service}").parse().expect("a URL")).expect("an origin");
    let mut proxy = Proxy::new(layer, upstream);
    if !origins.is_empty() {
        proxy = proxy.cors(cors(origins, headers.allow, headers.expose));
    }
    let app = proxy.service().into_make_service_with_connect_info::<SocketAddr>();
    let (listener, address) = bound().await;
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// The script by which a page sends an order. Its value is what it can read of the answer, or the name of the error.
fn order_script(proxy: SocketAddr, key: Option<&str>, body: &str, credentials: &str) -> String {
    let mut headers = json!({ "content-type": "text/plain" });
    if let Some(key) = key {
        headers["idempotency-key"] = json!(key);
    }
    let init = json!({ "method": "POST", "headers": headers, "body": body, "credentials": credentials });
    format!(
        r##"fetch("http://{proxy}/orders", {init}).then(async (answer) => {{
            const read = (name) => answer.headers.get(name);
            const problem = (read("content-type") || "").includes("problem") ? await answer.json() : {{}};
            return {{
                status: answer.status, text: answer.bodyUsed ? problem.title : await answer.text(),
                replayed: read("idempotent-replayed"), effect: read("idempotency-effect"),
                type: (problem.type || "").split("#").pop(),
            }};
        }}, (error) => ({{ failed: error.name }}))"##
    )
}

struct Page<'a> {
    browser: &'a Browser,
    proxy: SocketAddr,
}

impl Page<'_> {
    /// Sends an order from the page that the browser is on.
    async fn order(&self, key: &str, body: &str) -> Value {
        self.sends(Some(key), body, "omit").await
    }

    async fn sends(&self, key: Option<&str>, body: &str, credentials: &str) -> Value {
        self.browser.script(&format!("return {}", order_script(self.proxy, key, body, credentials))).await
    }

    /// Asks for what the service has, which takes no preflight.
    async fn get(&self) -> Value {
        let script = r#".then((answer) => answer.text(), (error) => ({ failed: error.name }))"#;
        self.browser.script(&format!(r#"return fetch("http://{}/orders"){script}"#, self.proxy)).await
    }

    /// Sends a request whose answer is a refusal that the page can read: its status, its problem, and what it says of
    /// the operation.
    async fn refused(&self, key: Option<&str>, body: &str) -> (u64, String, String) {
        let answer = self.sends(key, body, "omit").await;
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        assert!(!text("text").is_empty(), "{answer}");
        (answer["status"].as_u64().unwrap_or_else(|| panic!("{answer}")), text("type"), text("effect"))
    }
}

fn done(text: &str, is_replay: bool) -> Value {
    let replayed = is_replay.then_some("true");
    json!({ "status": 201, "text": text, "replayed": replayed, "effect": null, "type": "" })
}

fn failed() -> Value {
    json!({ "failed": "TypeError" })
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_two_origins_read_first_answers_replays_and_each_refusal() {
    let promise = "pages of other origins read the proxy's answers";
    let Some(browser) = Browser::start(promise, Manner::default()).await else { return };
    let (shop, app, stranger, gate) = (page().await, page().await, page().await, Gate::default());
    let origins = [shop.clone(), app.clone()];
    // The service would let each of them read, which is not asked.
    let service = service(&[&origins[..], std::slice::from_ref(&stranger)].concat(), &gate).await;
    let page = Page { browser: &browser, proxy: proxy(service, &origins).await };

    browser.go(&shop).await;
    // The first one is asked for by a preflight: a script's header is in it.
    assert_eq!(page.order("k", "book").await, done("book, no cookie", false));
    assert_eq!(page.order("k", "book").await, done("book, no cookie", true));
    let problem = |status, name: &str, effect: &str| (status, name.to_owned(), effect.to_owned());
    assert_eq!(page.refused(None, "book").await, problem(400, "key-missing", "none;retry=?0"));
    assert_eq!(page.refused(Some("k"), "pen").await, problem(422, "key-reused", "unknown;retry=?0"));
    let long = "a".repeat(LONGEST + 1);
    assert_eq!(page.refused(Some("long"), &long).await, problem(413, "body-too-large", "none;retry=?0"));
    browser.script(&format!("window.first = {}", order_script(page.proxy, Some("slow"), "waits", "omit"))).await;
    gate.arrival().await;
    assert_eq!(page.refused(Some("slow"), "waits").await, problem(409, "in-flight", "pending;retry"));
    gate.open();
    assert_eq!(browser.script("return window.first").await, done("waits, no cookie", false));
    // The proxy's own.
    let nowhere = bound().await.1;
    let unreached = Page { browser: &browser, proxy: proxy(nowhere, &origins).await };
    assert_eq!(unreached.refused(Some("k"), "book").await, problem(503, "custom", "none;retry"));
    let broken = Page { browser: &browser, proxy: proxy(breaking().await, &origins).await };
    assert_eq!(broken.refused(Some("k"), "book").await, problem(502, "custom", "unknown;retry=?0"));
    assert_eq!(broken.refused(Some("k"), "book").await, problem(409, "outcome-unknown", "unknown;retry=?0"));

    // The page's cookie is one of the host, whatever the port, and comes only if it is asked for.
    browser.script("document.cookie = 'session=1'").await;
    assert_eq!(page.sends(Some("with"), "book", "include").await, done("book, session=1", false));
    assert_eq!(page.sends(Some("with"), "book", "include").await["type"], "credentials-changed", "basket=7 is new");
    assert_eq!(page.sends(Some("again"), "book", "include").await["text"], "book, session=1; basket=7");
    assert_eq!(page.sends(Some("again"), "book", "include").await["replayed"], "true");

    // Another origin reads the replay of what the first one has sent.
    browser.go(&app).await;
    assert_eq!(page.order("k", "book").await, done("book, no cookie", true));
    assert_eq!(page.refused(Some("k"), "pen").await.0, 422);
    assert_eq!(page.get().await, "orders");
    // A third one reads nothing, and nothing that it sends is done.
    browser.go(&stranger).await;
    assert_eq!(page.get().await, failed());
    assert_eq!(page.order("k", "book").await, failed());
    assert_eq!(page.order("stranger", "book").await, failed());
    browser.go(&app).await;
    assert_eq!(page.order("stranger", "book").await, done("book, no cookie", false));
}

/// The control: this is what the proxy's CORS is for.
#[tokio::test(flavor = "multi_thread")]
async fn where_only_the_service_answers_cors_no_page_reads_a_replay_or_a_refusal() {
    let promise = "replays can't be read where only the service answers CORS";
    let Some(browser) = Browser::start(promise, Manner::default()).await else { return };
    let shop = page().await;
    let service = service(std::slice::from_ref(&shop), &Gate::default()).await;
    let page = Page { browser: &browser, proxy: proxy(service, &[]).await };
    browser.go(&shop).await;
    assert_eq!(page.order("k", "book").await["status"], 201);
    assert_eq!(page.order("k", "book").await, failed(), "the replay");
    assert_eq!(page.order("k", "pen").await, failed(), "a refusal");
    assert_eq!(page.sends(None, "book", "omit").await, failed(), "a refusal");
}
