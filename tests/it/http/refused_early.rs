//! Refusals given before the request's body was read, and bodies that end before they should: over real sockets.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::routing::post as route;
use bytes::Bytes;
use http::{Request, StatusCode, Version};
use http_body::{Frame, SizeHint};
use testkit::Answer;
use testkit::client::Raw;
use testkit::lab::{Lab, frames, keyed, post};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tower_idempotency::{IdempotencyLayer, MemoryStore, Rejection, Scope};

/// The most bytes of a refused body that are read on.
const READ_ON: usize = 8 << 20;

/// A server on a socket, which reports when the head of each request has come in.
struct Server {
    address: SocketAddr,
    // The idempotency layer reports each head in `heads`. The outermost layer reports it in `begun`.
    heads: mpsc::UnboundedReceiver<()>,
    begun: mpsc::UnboundedReceiver<()>,
    layer: IdempotencyLayer<MemoryStore>,
    effects: Arc<AtomicUsize>,
}

impl Server {
    async fn start(layer: IdempotencyLayer<MemoryStore>) -> Self {
        Self::start_within(layer, |app| app).await
    }

    async fn start_within(layer: IdempotencyLayer<MemoryStore>, around: impl FnOnce(Router) -> Router) -> Self {
        let (head, heads) = mpsc::unbounded_channel();
        let (begin, begun) = mpsc::unbounded_channel();
        let layer = layer.covers(move |_| head.send(()).is_ok());
        let effects = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&effects);
        let handler = move |body: Bytes| async move {
            counted.fetch_add(1, Ordering::SeqCst);
            format!("charged {}", body.len())
        };
        let app = around(Router::new().route("/charges", route(handler)).layer(layer.clone()));
        let app = app.layer(axum::middleware::map_request(move |request: axum::extract::Request| {
            let _ = begin.send(());
            std::future::ready(request)
        }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, heads, begun, layer, effects }
    }

    async fn connect(&self) -> Raw {
        Raw::connect(self.address).await.unwrap()
    }
}

/// The status of an answer, and whether its connection is closed.
fn told(answer: &Answer) -> (u16, bool) {
    (answer.status.as_u16(), answer.header("connection") == Some("close"))
}

/// A body in the form in which it is sent, and the header that announces it.
fn framed(body: &[u8], chunked: bool) -> (String, Vec<u8>) {
    if chunked {
        let chunk = [format!("{:x}\r\n", body.len()).as_bytes(), body, b"\r\n0\r\n\r\n"].concat();
        return ("transfer-encoding: chunked".to_owned(), chunk);
    }
    (format!("content-length: {}", body.len()), body.to_vec())
}

fn head(fields: &str, announced: &str) -> String {
    format!("POST /charges HTTP/1.1\r\nhost: pay.example\r\n{fields}{announced}\r\n\r\n")
}

fn layer() -> IdempotencyLayer<MemoryStore> {
    let scope = |parts: &http::request::Parts| match parts.headers.contains_key("x-stranger") {
        true => Err(Rejection::custom(StatusCode::UNAUTHORIZED, "Unauthorized", "Sign in first.")),
        false => Ok(Scope::new("alice")?),
    };
    IdempotencyLayer::new(MemoryStore::new()).require_key(true).scope(scope)
}

#[tokio::test]
async fn trap_85_after_a_refusal_before_the_body_the_next_request_on_the_connection_is_answered() {
    const REFUSED: [(&str, u16); 5] = [
        ("idempotency-key: a b\r\n", 400),
        ("idempotency-key: a\r\nidempotency-key: a\r\n", 400),
        ("", 400),
        ("idempotency-key: a\r\nx-stranger: 1\r\n", 401),
        ("idempotency-key: a\r\n", 413),
    ];
    let mut server = Server::start(layer().max_request_body(100)).await;
    let mut connection = server.connect().await;
    let (mut pairs, mut lost) = (0, 0);
    for round in 0..60 {
        for (fields, status) in REFUSED {
            let length = [101, 1_024, 16 * 1_024, 64 * 1_024][round % 4];
            let (announced, body) = framed(&vec![b'x'; length], round % 8 >= 4);
            connection.say(head(fields, &announced).as_bytes()).await.unwrap();
            // The head has come in, and is refused for itself, before there is a body.
            server.heads.recv().await.unwrap();
            connection.say(&body).await.unwrap();
            let refused = connection.answer().await.expect("the refusal is seen");
            assert_eq!(told(&refused), (status, false), "{fields:?} {length}");
            pairs += 1;
            let good = format!("{}good", head(&format!("idempotency-key: good-{pairs}\r\n"), "content-length: 4"));
            let answer = match connection.say(good.as_bytes()).await {
                Ok(()) => connection.answer().await,
                Err(_) => None,
            };
            if answer.is_some_and(|answer| answer.text() == "charged 4") {
                server.heads.recv().await.unwrap();
            } else {
                lost += 1;
                connection = server.connect().await;
            }
        }
    }
    println!("pairs {pairs}, lost {lost}");
    assert_eq!((pairs, lost, server.effects.load(Ordering::SeqCst)), (300, 0, 300));
}

#[tokio::test]
async fn a_body_that_declares_more_than_is_read_on_is_refused_at_once_and_the_connection_said_to_close() {
    let server = Server::start(layer()).await;
    for (fields, length, status) in
        [("idempotency-key: a b\r\n", READ_ON + 1, 400), ("idempotency-key: a\r\n", 2 * READ_ON, 413)]
    {
        let mut connection = server.connect().await;
        // The body is never sent.
        connection.say(head(fields, &format!("content-length: {length}")).as_bytes()).await.unwrap();
        let refused = connection.answer().await.unwrap();
        assert_eq!(told(&refused), (status, true));
        assert!(connection.answer().await.is_none(), "and it is closed");
    }
}

/// A body of so many bytes that does not say its length.
fn of_length(length: usize) -> Body {
    static CHUNK: [u8; 64 * 1_024] = [b'x'; 64 * 1_024];
    let chunks = std::iter::repeat_with(|| Ok::<_, std::io::Error>(&CHUNK[..])).take(length / CHUNK.len());
    Body::from_stream(futures_util::stream::iter(chunks.chain([Ok(&CHUNK[..length % CHUNK.len()])])))
}

#[tokio::test(start_paused = true)]
async fn a_body_that_goes_on_beyond_what_is_read_on_is_told_to_close() {
    let lab = Lab::counting(layer());
    for (length, closes) in [(3 << 20, false), (READ_ON, false), (READ_ON + 1, true), (2 * READ_ON, true)] {
        let refused = lab.send(post("a b", of_length(length))).await;
        assert_eq!(told(&refused), (400, closes), "{length}");
    }
}

#[tokio::test]
async fn a_client_that_waits_to_be_asked_for_its_body_is_refused_without_being_asked() {
    let server = Server::start(layer()).await;
    for expect in ["100-continue", "100-Continue"] {
        let mut connection = server.connect().await;
        let fields = format!("idempotency-key: a b\r\nexpect: {expect}\r\n");
        connection.say(head(&fields, "content-length: 10").as_bytes()).await.unwrap();
        let refused = connection.answer().await.unwrap();
        assert_eq!(told(&refused), (400, true), "and no 100 before");
    }
    // A request that is not refused gets 100.
    let mut connection = server.connect().await;
    connection
        .say(head("idempotency-key: a\r\nexpect: 100-continue\r\n", "content-length: 4").as_bytes())
        .await
        .unwrap();
    assert_eq!(connection.answer().await.unwrap().status, 100);
    connection.say(b"good").await.unwrap();
    assert_eq!(connection.answer().await.unwrap().text(), "charged 4");
}

/// A body that never has a byte.
struct Silent;

impl http_body::Body for Silent {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        Poll::Pending
    }
}

/// A body that must not be read, of at least this many bytes.
struct Forbidden(u64);

impl http_body::Body for Forbidden {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        panic!("it was asked for")
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        hint.set_lower(self.0);
        hint
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_of_which_nothing_comes_is_waited_for_one_second() {
    let lab = Lab::counting(layer());
    let began = tokio::time::Instant::now();
    let refused = lab.send(post("a b", Body::new(Silent))).await;
    refused.assert_refusal(400, "key-malformed", false, None);
    assert_eq!((began.elapsed().as_millis(), refused.header("connection")), (1_000, Some("close")));
}

#[tokio::test]
async fn a_body_that_is_not_to_be_read_is_not_polled() {
    let lab = Lab::counting(layer());
    let send = |body: Body, version: Version, expect: Option<&'static str>| {
        let mut request = keyed("POST", "/charges", "a b").version(version);
        if let Some(expect) = expect {
            request = request.header("expect", expect);
        }
        lab.send(request.body(body).unwrap())
    };
    let large = || Body::new(Forbidden(READ_ON as u64 + 1));
    for (version, closes) in
        [(Version::HTTP_10, true), (Version::HTTP_11, true), (Version::HTTP_2, false), (Version::HTTP_3, false)]
    {
        let mut refusals = vec![send(large(), version, None).await];
        if version != Version::HTTP_10 {
            refusals.push(send(Body::new(Forbidden(0)), version, Some("100-continue")).await);
        }
        for refused in refusals {
            assert_eq!((refused.status.as_u16(), refused.header("connection").is_some()), (400, closes), "{version:?}");
        }
        let small = send(Body::from("small"), version, None).await;
        assert_eq!(small.header("connection"), None);
    }
    // HTTP/1.0 has no such expectation: its client sends the body at once.
    let small = send(Body::from("small"), Version::HTTP_10, Some("100-continue")).await;
    assert_eq!((small.status.as_u16(), small.header("connection")), (400, None));
}

#[tokio::test]
async fn a_body_that_a_layer_outside_finds_too_long_is_told_to_close() {
    let app = Router::new().route("/charges", route(async || "done")).layer(layer());
    let lab = Lab::of(app.layer(tower_http::limit::RequestBodyLimitLayer::new(10)));
    let refused = lab.send(post("k", frames([Ok("more than"), Ok(" ten bytes")]))).await;
    refused.assert_refusal(413, "body-too-large", false, None);
    assert_eq!(refused.header("connection"), Some("close"));
    let broken = lab.send(post("k", frames([Ok("a"), Err("cable")]))).await;
    broken.assert_refusal(400, "body-incomplete", true, None);
    assert_eq!(broken.header("connection"), Some("close"));
}

#[tokio::test]
async fn a_client_that_was_asked_for_its_body_already_is_read_on() {
    let lab = Lab::counting(layer().max_request_body(10));
    let request = keyed("POST", "/charges", "k").header("expect", "100-continue");
    let refused = lab.send(request.body(frames([Ok("more than"), Ok(" ten bytes")])).unwrap()).await;
    assert_eq!((refused.status.as_u16(), refused.header("connection")), (413, None));
}

// Seeded faults: each body over the limit counts as asked for; the head is not looked at.
#[tokio::test]
async fn a_client_that_declares_too_long_a_body_is_not_asked_for_it() {
    let lab = Lab::counting(layer().max_request_body(10));
    let request = || keyed("POST", "/charges", "k").header("expect", "100-continue");
    // A layer outside may have replaced the body by one that does not say how long it is.
    for request in [
        request().body(Body::new(Forbidden(11))).unwrap(),
        request().header("content-length", 11).body(Body::new(Forbidden(0))).unwrap(),
    ] {
        let refused = lab.send(request).await;
        assert_eq!((refused.status.as_u16(), refused.header("connection")), (413, Some("close")));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_refused_request_would_have_run_is_given_back_before_its_body_is_read_on() {
    use tower::{Service as _, ServiceBuilder, ServiceExt, service_fn};
    let answer = |_: Request<Body>| async { Ok::<_, std::convert::Infallible>(http::Response::new(Body::empty())) };
    let stranger = || keyed("POST", "/charges", "k").header("x-stranger", "1").body(Body::new(Silent)).unwrap();
    let endless = || {
        let first = futures_util::stream::iter([Ok::<_, std::io::Error>("more than ten bytes")]);
        Body::from_stream(futures_util::StreamExt::chain(first, futures_util::stream::pending()))
    };
    let large = || keyed("POST", "/charges", "k").body(endless()).unwrap();
    for request in [stranger(), large()] {
        let layer = layer().max_request_body(10);
        let mut service = ServiceBuilder::new().layer(layer).concurrency_limit(1).service(service_fn(answer));
        let ready = ServiceExt::<Request<Body>>::ready(&mut service).await.unwrap();
        let mut refused = Box::pin(ready.call(request));
        let _ = futures_util::poll!(&mut refused);
        let good = keyed("POST", "/charges", "good").body(Body::from("a")).unwrap();
        let hour = std::time::Duration::from_secs(3_600);
        let answered = tokio::time::timeout(hour, service.clone().oneshot(good)).await;
        assert_eq!(answered.expect("the only permit is free").unwrap().status(), 200);
    }
}

// HTTP/2: hyper takes a stream that is reset with NO_ERROR for one that has ended.

/// Sends 50 requests whose streams are reset half-way, and a whole one. Returns the number of runs.
async fn runs_of_resets(around: impl FnOnce(Router) -> Router) -> usize {
    let mut server = Server::start_within(layer(), around).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = |key: &str| {
        let request = Request::post("http://pay.example/charges").version(Version::HTTP_2);
        request.header("idempotency-key", key).body(()).unwrap()
    };
    for number in 0..50 {
        client = client.ready().await.unwrap();
        let (_answer, mut body) = client.send_request(request(&format!("cut-{number}")), false).unwrap();
        body.send_data(Bytes::from_static(b"amount=1000"), false).unwrap();
        server.begun.recv().await.unwrap();
        body.send_reset(h2::Reason::NO_ERROR);
    }
    // The same without a reset, and without a length.
    client = client.ready().await.unwrap();
    let (answer, mut body) = client.send_request(request("whole"), false).unwrap();
    body.send_data(Bytes::from_static(b"amount=1000"), false).unwrap();
    body.send_data(Bytes::from_static(b"00"), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
    let _ = server.layer.drain(std::time::Duration::from_secs(30)).await;
    assert_eq!(server.layer.store().len(), server.effects.load(Ordering::SeqCst));
    server.effects.load(Ordering::SeqCst)
}

#[tokio::test]
async fn a_stream_that_is_reset_half_way_charges_nothing_though_its_beginning_is_a_valid_charge() {
    assert_eq!(runs_of_resets(|app| app).await, 1);
}

#[tokio::test]
async fn nor_where_a_layer_outside_has_read_the_body_already() {
    let reading = async |request: axum::extract::Request, next: axum::middleware::Next| {
        let (parts, body) = request.into_parts();
        match axum::body::to_bytes(body, 10_000).await {
            Ok(body) => next.run(axum::extract::Request::from_parts(parts, Body::from(body))).await,
            Err(_) => axum::response::IntoResponse::into_response(StatusCode::BAD_REQUEST),
        }
    };
    assert_eq!(runs_of_resets(|app| app.layer(axum::middleware::from_fn(reading))).await, 1);
}
