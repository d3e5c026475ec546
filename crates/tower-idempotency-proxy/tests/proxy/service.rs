//! The service behind the proxy, and the proxy in front of it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::ServiceExt as _;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use testkit::{Answer, Call, Connection, Gate};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tower_idempotency::{AnyStore, IdempotencyLayer, MemoryStore, OnInFlight};
use tower_idempotency_proxy::{Proxy, Upstream};

/// A service that notes the heads and bodies of what it gets.
#[derive(Debug, Clone, Default)]
pub(crate) struct Service {
    noted: Arc<Mutex<Vec<(HeaderMap, String)>>>,
    /// Requests whose body is `waits` wait here.
    pub(crate) gate: Gate,
}

impl Service {
    pub(crate) fn app(&self) -> Router {
        Router::new()
            .route("/orders", post(order).get(orders))
            .route("/refunds", post(order))
            .route("/echo", post(echo).get(echo))
            .route("/heads", get(heads).post(heads))
            .with_state(self.clone())
    }

    pub(crate) async fn start(&self) -> SocketAddr {
        self.start_at(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn start_at(&self, listener: TcpListener) -> SocketAddr {
        let (address, app) = (listener.local_addr().unwrap(), self.app());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        address
    }

    /// The heads and bodies of the orders that have come.
    pub(crate) fn noted(&self) -> MutexGuard<'_, Vec<(HeaderMap, String)>> {
        self.noted.lock().unwrap()
    }

    /// The keys that have come with orders, in order.
    pub(crate) fn keys(&self) -> Vec<String> {
        let key = |(head, _): &(HeaderMap, String)| {
            head.get("idempotency-key").map(|key| key.to_str().unwrap().to_owned()).unwrap_or_default()
        };
        self.noted().iter().map(key).collect()
    }
}

/// `POST /orders`: each of them is an effect.
async fn order(State(service): State<Service>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    // One that breaks off is no order.
    let Ok(body) = axum::body::to_bytes(body, 1 << 20).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let mut body = String::from_utf8(body.to_vec()).unwrap();
    let number = {
        let mut noted = service.noted();
        // The second attempt may be answered otherwise.
        let key = parts.headers.get("idempotency-key");
        if let Some(then) = parts.headers.get("x-then")
            && noted.iter().any(|(head, _)| head.get("idempotency-key") == key)
        {
            then.to_str().unwrap().clone_into(&mut body);
        }
        noted.push((parts.headers, body.clone()));
        noted.len()
    };
    match body.as_str() {
        "waits" => service.gate.pass().await,
        // As long as a busy machine may need to send another request meanwhile.
        "slow" => tokio::time::sleep(Duration::from_secs(3)).await,
        _ => {}
    }
    // It answers CORS by itself, for one origin.
    let answer = Response::builder().header("content-type", "text/plain").header("access-control-allow-origin", "null");
    // The body may be a status and marks.
    let mut words = body.split(' ');
    let status = words.next().and_then(|word| word.parse::<StatusCode>().ok()).unwrap_or(StatusCode::CREATED);
    let answer = words.fold(answer, |answer, mark| answer.header("idempotency-mark", mark));
    answer.status(status).body(Body::from(format!("order {number}"))).unwrap()
}

/// `GET /orders`: how many there are.
async fn orders(State(service): State<Service>) -> String {
    service.noted().len().to_string()
}

/// `POST /echo`: each part of the body comes back at once.
async fn echo(request: Request) -> Response {
    Response::new(request.into_body())
}

/// The head of the request, as the body of the answer, which has headers of the connection.
async fn heads(request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let lines = parts.headers.iter().map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()));
    let body: String = lines.collect();
    let answer = Response::builder().header("keep-alive", "timeout=5").header("proxy-authenticate", "Basic");
    answer.header("x-end", "to-end").body(Body::from(format!("{:?} {}\n{body}", parts.version, parts.uri))).unwrap()
}

pub(crate) fn layer() -> IdempotencyLayer<AnyStore> {
    IdempotencyLayer::new(AnyStore::new(MemoryStore::new())).on_in_flight(OnInFlight::Reject)
}

/// Starts a proxy in front of the service at this address.
pub(crate) async fn proxy(layer: IdempotencyLayer<AnyStore>, service: SocketAddr) -> SocketAddr {
    proxied(layer, Upstream::new(format!("http://{service}").parse().unwrap()).unwrap()).await
}

pub(crate) async fn proxied(layer: IdempotencyLayer<AnyStore>, upstream: Upstream) -> SocketAddr {
    serve(Proxy::new(layer, upstream)).await
}

pub(crate) async fn serve(proxy: Proxy) -> SocketAddr {
    let app = proxy.service().into_make_service_with_connect_info::<SocketAddr>();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

/// Sends an order with a key over a connection of its own.
pub(crate) async fn send(proxy: SocketAddr, key: &str, body: &str) -> Answer {
    send_call(proxy, &Call::post("/orders", body).header("idempotency-key", key)).await
}

pub(crate) async fn send_call(proxy: SocketAddr, call: &Call) -> Answer {
    Connection::http1(proxy).await.unwrap().send(call).await.unwrap()
}

/// A request without a key whose body is sent in parts. Each of them comes back.
pub(crate) struct Stream {
    say: mpsc::Sender<&'static str>,
    answer: Incoming,
}

impl Stream {
    pub(crate) async fn begin(proxy: SocketAddr, first: &'static str) -> Self {
        let stream = TokioIo::new(TcpStream::connect(proxy).await.unwrap());
        let (mut sender, connection) = handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let (say, said) = mpsc::channel(1);
        let part = |part: &'static str| Ok::<_, Infallible>(Frame::data(Bytes::from_static(part.as_bytes())));
        let body = StreamBody::new(ReceiverStream::new(said).map(part));
        let request = http::Request::post("/echo").header("host", "a").body(body).unwrap();
        say.send(first).await.unwrap();
        let answer = sender.send_request(request).await.unwrap().into_body();
        let mut stream = Self { say, answer };
        stream.expect(first).await;
        stream
    }

    /// Sends one more part, and waits until it is back.
    pub(crate) async fn echo(&mut self, part: &'static str) {
        self.say.send(part).await.unwrap();
        self.expect(part).await;
    }

    async fn expect(&mut self, part: &str) {
        assert_eq!(self.answer.frame().await.unwrap().unwrap().into_data().unwrap(), part);
    }

    pub(crate) async fn end(self) {
        let Self { say, mut answer } = self;
        drop(say);
        assert!(answer.frame().await.is_none());
    }
}

/// Starts a service that says the same to each request, over a connection that ends after it, and counts them.
pub(crate) async fn says(answer: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&seen);
    // A proxy that keeps the connection may send the next request as it ends.
    let ends = answer.starts_with("HTTP/1.1 ") && answer.contains("content-length") && !answer.contains("connection:");
    let answer = if ends { answer.replacen("\r\n", "\r\nconnection: close\r\n", 1) } else { answer.to_owned() };
    tokio::spawn(async move {
        // Once the answer is written, they are half closed: a close before the whole request has come is a reset.
        let mut answered = Vec::new();
        loop {
            let mut stream = listener.accept().await.unwrap().0;
            if matches!(stream.read(&mut [0; 4096]).await, Ok(1..)) {
                counted.fetch_add(1, Ordering::SeqCst);
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
                answered.push(stream);
            }
        }
    });
    (address, seen)
}
