use std::net::Ipv4Addr;

use http_body_util::{BodyExt as _, Full};
use metrics_exporter_prometheus::PrometheusBuilder;
use testkit::client::sends_before_it_reads;
use testkit::log::Log;
use testkit::{Call, Connection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::sync::mpsc;

use super::*;
use crate::body::Flushed;

/// More than the system keeps for a stream.
const LONG: usize = 24 * 1024 * 1024;
/// The time until the test gives up.
const GIVE_UP: Duration = Duration::from_secs(20);

/// A connection from an address of this machine.
async fn from(last: u8, to: SocketAddr) -> Connection {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into()).unwrap();
    Connection::over(socket.connect(to).await.unwrap()).await.unwrap()
}

// Seeded fault: it is waited for.
#[tokio::test(start_paused = true)]
async fn a_connection_on_which_no_request_begins_is_closed_after_its_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = tower::service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(Body::empty())));
    tokio::spawn(serve(listener, app, Room::Shares(Places::with(4)), std::future::pending()));
    // Also after a request.
    let whole = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    for part in ["", "P", "POST / HTTP/1.1\r\nhost: a\r\n", whole, &format!("{whole}P")] {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(part.as_bytes()).await.unwrap();
        let (mut answer, whole) = (String::new(), part.contains("\r\n\r\n"));
        let closed = tokio::time::timeout(10 * HEAD_TIMEOUT, client.read_to_string(&mut answer));
        closed.await.expect("it is closed").unwrap();
        assert_eq!(answer.starts_with("HTTP/1.1 200 "), whole, "{part:?}: {answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_has_begun_has_more_time_than_its_head() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = tower::service_fn(async |_: Request<Body>| {
        tokio::time::sleep(10 * HEAD_TIMEOUT).await;
        Ok::<_, Infallible>(Response::new(Body::empty()))
    });
    tokio::spawn(serve(listener, app, Room::Shares(Places::with(4)), std::future::pending()));
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

// Seeded fault: the stream is closed with bytes unread, and the client that sends on is reset.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_only_once_it_has_sent_all_gets_an_answer_that_came_before() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = tower::service_fn(async |request: Request<Body>| {
        // The path is the status, and what the answer says of the connection.
        let (status, connection) = request.uri().path()[1..].split_once('/').unwrap();
        let refused = Response::builder().status(status).header("connection", connection).header("content-length", "0");
        Ok::<_, Infallible>(refused.body(Body::empty()).unwrap())
    });
    tokio::spawn(serve(listener, app, Room::Shares(Places::with(64)), std::future::pending()));
    for status in ["401", "408", "413", "422", "500", "503"] {
        for connection in ["close", "keep-alive"] {
            let head = format!("POST /{status}/{connection} HTTP/1.1\r\nhost: a\r\ncontent-length: {LONG}\r\n\r\n");
            let answer = sends_before_it_reads(address, head, LONG).await.expect("nothing resets it");
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{connection}: {answer}");
        }
    }
}

// Seeded fault: the windows of a stream and of its connection are as large as each other.
#[tokio::test]
async fn a_body_that_is_not_read_takes_no_room_from_the_others_on_its_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = tower::service_fn(async |request: Request<Body>| {
        if request.uri().path() == "/hangs" {
            std::future::pending::<()>().await;
        }
        let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
        Ok::<_, Infallible>(Response::new(Body::from(body)))
    });
    tokio::spawn(serve(listener, app, Room::Shares(Places::with(4)), std::future::pending()));
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut requests, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let post = |path: &str| Request::post(format!("http://a{path}")).body(()).unwrap();
    let mut hangs = Vec::new();
    for _ in 1..STREAMS {
        let (answer, mut body) = requests.send_request(post("/hangs"), false).unwrap();
        body.reserve_capacity(LONG);
        // It sends whatever it may.
        hangs.push(tokio::spawn(async move {
            let _answer = answer;
            while let Some(Ok(room)) = std::future::poll_fn(|cx| body.poll_capacity(cx)).await {
                body.send_data(vec![b'a'; room].into(), false).unwrap();
            }
        }));
    }
    for _ in 0..100 {
        let (answer, mut body) = requests.send_request(post("/"), false).unwrap();
        body.send_data(vec![b'a'; 1_024].into(), true).unwrap();
        let answer = tokio::time::timeout(GIVE_UP, answer).await.expect("it is answered");
        assert_eq!(answer.unwrap().status().as_u16(), 200);
    }
    hangs.iter().for_each(|hangs| hangs.abort());
}

async fn is_served(connection: &mut Connection) -> bool {
    connection.send(&Call::get("/")).await.is_ok_and(|answer| answer.status.as_u16() == 200)
}

#[tokio::test]
async fn a_connection_beyond_its_client_s_share_is_closed_and_one_beyond_all_places_waits() {
    // Of this thread, which is the runtime's only one.
    let recorder = PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = tower::service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(Body::empty())));
    tokio::spawn(serve(listener, app, Room::Shares(Places::with(4)), std::future::pending()));
    let (mut one, mut two) = (from(1, address).await, from(1, address).await);
    assert!(is_served(&mut one).await && is_served(&mut two).await);
    // A client that is closed while it sends sees an error.
    assert!(!is_served(&mut from(1, address).await).await, "beyond its share");
    let metrics = recorder.handle().render();
    assert!(metrics.contains("idempotency_proxy_refused_connections_total 1"), "{metrics}");
    let (mut three, mut four) = (from(2, address).await, from(3, address).await);
    assert!(is_served(&mut three).await && is_served(&mut four).await, "there is room for others");
    let mut waits = from(4, address).await;
    let waiting = tokio::spawn(async move { is_served(&mut waits).await });
    // All are taken, and those who have a place keep it.
    for has_a_place in [&mut one, &mut two, &mut three, &mut four] {
        assert!(is_served(has_a_place).await);
    }
    assert!(!waiting.is_finished(), "all places are taken");
    drop(one);
    let served = tokio::time::timeout(GIVE_UP, waiting).await.expect("it is served or closed");
    assert!(served.unwrap(), "it has the place that is free again");
}

#[tokio::test]
async fn a_request_that_is_reset_without_an_error_has_no_end() {
    // It says whether each body is whole, once its first part is there.
    let (say, mut said) = mpsc::unbounded_channel();
    let collects = move |request: Request<Body>| {
        let say = say.clone();
        async move {
            let mut body = request.into_body();
            let first = body.frame().await.is_some_and(|frame| frame.is_ok());
            say.send(first).unwrap();
            say.send(body.collect().await.is_ok()).unwrap();
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // The task of a connection drops a request whose stream was reset, and this is to see what its body says.
    let app = tower::service_fn(move |request| {
        let answering = tokio::spawn(collects(request));
        async { answering.await.unwrap() }
    });
    tokio::spawn(serve(listener, app, Room::Shares(Places::with(4)), std::future::pending()));
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    for reset in [None, Some(h2::Reason::NO_ERROR), Some(h2::Reason::CANCEL)] {
        let request = Request::post("http://pay.example/").body(()).unwrap();
        let (_answer, mut body) = client.send_request(request, false).unwrap();
        body.send_data("half".into(), false).unwrap();
        assert_eq!(said.recv().await, Some(true), "{reset:?}");
        match reset {
            Some(reset) => body.send_reset(reset),
            None => body.send_trailers(http::HeaderMap::new()).unwrap(),
        }
        assert_eq!(said.recv().await, Some(reset.is_none()), "{reset:?}");
    }
}

#[test]
fn connections_beyond_a_share_are_said_once_a_minute_with_how_many_they_were() {
    let log = Log::begin(tracing::Level::WARN);
    let (mut refused, places) = (Refused::default(), Places::with(4));
    let peer = SocketAddr::from(([10, 0, 0, 1], 80));
    // When it was said last, in seconds; `None`: what the step before has left.
    for (said, count) in [(None, Some(1)), (None, None), (Some(50), None), (Some(61), Some(3)), (None, None)] {
        refused.said = said.map_or(refused.said, |said| Instant::now().checked_sub(Duration::from_secs(said)));
        refused.note(peer, &places);
        let lines = log.lines();
        let expected = count.map(|count| format!("client=10.0.0.1 share=2 count={count}"));
        assert_eq!(lines.len(), usize::from(expected.is_some()), "{said:?}: {lines:?}");
        assert!(expected.is_none_or(|expected| lines[0].ends_with(&expected)), "{lines:?}");
    }
}

// Before, HTTP/1.1 took 400 KiB, and HTTP/2 16.
#[tokio::test]
async fn a_head_of_more_than_64_kib_is_refused_over_each_version_on_each_port() {
    for room in [Room::Shares(Places::with(4)), Room::Latest(4)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = tower::service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(Body::empty())));
        tokio::spawn(serve(listener, app, room, std::future::pending()));
        for (fields, status) in [(60, 200), (66, 431), (90, 431)] {
            for is_http2 in [false, true] {
                let mut client = match is_http2 {
                    true => Connection::http2(address).await.unwrap(),
                    false => Connection::http1(address).await.unwrap(),
                };
                let long = Request::get("http://pay.example/").header("host", "pay.example");
                let long = (0..fields).fold(long, |long, number| long.header(format!("x-{number}"), "a".repeat(1_024)));
                let answer = client.exchange(long.body(Full::default()).unwrap()).await;
                let answer = answer.unwrap_or_else(|error| panic!("{fields} {is_http2}: {error:?}"));
                assert_eq!(answer.status.as_u16(), status, "{fields} {is_http2}");
            }
        }
    }
}

// Seeded faults: none is cut; the latest one is.
#[tokio::test]
async fn connections_that_say_half_a_request_keep_no_other_one_out_of_the_second_port() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = tower::service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(Body::empty())));
    tokio::spawn(serve(listener, app, Room::Latest(8), std::future::pending()));
    let mut half = Vec::new();
    for _ in 0..100 {
        let mut client = TcpStream::connect(address).await.unwrap();
        // One of those that are cut.
        let _ = client.write_all(b"GET /metrics HTTP/1.1\r\nhost: a\r\n").await;
        half.push(client);
    }
    let mut last = from(1, address).await;
    for _ in 0..3 {
        assert!(is_served(&mut last).await);
    }
    // The first ones are cut, and not the latest.
    let cut = tokio::time::timeout(GIVE_UP, async { half[0].read(&mut [0]).await }).await;
    assert!(!matches!(cut.expect("it is cut before its time"), Ok(1..)));
    let mut latest = half.pop().unwrap();
    latest.write_all(b"connection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    latest.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

// Seeded faults: the last byte goes with those before it; hyper takes more than it sends.
#[tokio::test]
async fn what_an_answer_has_taken_is_taken_until_it_is_written_over_http_2() {
    let (places, listener) = (Places::with(1), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let (address, taken) = (listener.local_addr().unwrap(), places.clone());
    let app = tower::service_fn(move |_: Request<Body>| {
        let answer = Flushed::new(Full::from(vec![b'a'; 300]), [taken.take(None), None]);
        async { Ok::<_, Infallible>(Response::new(Body::new(answer))) }
    });
    tokio::spawn(serve(listener, app, Room::Shares(Places::with(4)), std::future::pending()));
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut client, connection) =
        h2::client::Builder::new().initial_window_size(100).handshake::<_, bytes::Bytes>(stream).await.unwrap();
    tokio::spawn(connection);
    let (answer, _) = client.send_request(Request::get("http://a/").body(()).unwrap(), true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    for length in [100, 100, 99, 1] {
        assert_eq!(body.data().await.unwrap().unwrap().len(), length);
        assert!(places.are_taken() || length < 100, "{length}");
        body.flow_control().release_capacity(length).unwrap();
    }
    assert!(body.data().await.is_none() && !places.are_taken());
}
