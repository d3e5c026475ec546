//! Connections of clients: HTTP/1.1 and HTTP/2, bounded in time and number.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use http::{Request, Version};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tower::{Service, ServiceExt as _};

use crate::body::Whole;
use crate::places::{Place, Places};
use crate::read_on::ReadOn;

/// How long a client may take for the head of a request, and for the next request on its connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a client of HTTP/2 is asked whether it is there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(20);
const PONG_TIMEOUT: Duration = Duration::from_secs(10);
/// The most requests at a time on a connection of HTTP/2.
const STREAMS: u32 = 100;
/// The bytes of a request on such a connection that wait until they are read on, and those of all: one that is not read
/// takes no room from the others. A gateway has the requests of many clients on one connection.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = STREAMS * STREAM_WINDOW;
/// The pause after a connection could not be accepted, because too many files are open.
const PAUSE: Duration = Duration::from_millis(100);

/// The least time between two log lines about connections that are closed.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// Serves `app`, until `stop`. There are as many connections as `places`: others wait in the listener's queue, and
/// those of one client beyond its share are closed. After `stop` no connection is accepted, and each finishes the
/// request under way. Connections that are open when the future is dropped are cut.
pub(crate) async fn serve<S>(listener: TcpListener, app: S, places: Places, stop: impl Future<Output = ()>)
where
    S: Service<Request<Body>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    let mut http = Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    http.http2().timer(TokioTimer::new()).keep_alive_interval(PING_EVERY).keep_alive_timeout(PONG_TIMEOUT);
    http.http2().max_concurrent_streams(STREAMS);
    http.http2().initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
    let (mut open, graceful, mut refused) = (JoinSet::new(), GracefulShutdown::new(), Refused::default());
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(_) = open.join_next() => {}
            accepted = listener.accept(), if !places.are_taken() => match accepted {
                Ok((stream, peer)) => {
                    match places.take(Some(peer.ip())) {
                        Some(place) => _ = open.spawn(connection(&http, &graceful, stream, place, peer, app.clone())),
                        None => refused.note(peer, &places),
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection can't be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
    drop((listener, app));
    graceful.shutdown().await;
}

/// The connections that are closed because their client has its share, since the last log line about them.
#[derive(Default)]
struct Refused {
    count: u64,
    said: Option<Instant>,
}

impl Refused {
    /// Counts one, and logs at most once a minute.
    fn note(&mut self, peer: SocketAddr, places: &Places) {
        metrics::counter!("idempotency_proxy_refused_connections_total").increment(1);
        self.count += 1;
        if self.said.is_none_or(|said| said.elapsed() >= SAID_EVERY) {
            let (client, share, count) = (peer.ip(), places.share(), std::mem::take(&mut self.count));
            tracing::warn!(
                %client, share, count,
                "a client has its share of the connections, and those beyond it are closed; allow the process more files"
            );
            self.said = Some(Instant::now());
        }
    }
}

fn connection<S>(
    http: &Builder<TokioExecutor>,
    graceful: &GracefulShutdown,
    stream: TcpStream,
    place: Place,
    peer: SocketAddr,
    app: S,
) -> impl Future<Output = ()> + use<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    // What is sent is sent at once.
    let _ = stream.set_nodelay(true);
    let began = Arc::new(Notify::new());
    let begins = Arc::clone(&began);
    let app = app.map_request(move |mut request: Request<Incoming>| {
        begins.notify_one();
        request.extensions_mut().insert(ConnectInfo(peer));
        let says_its_end = request.version() == Version::HTTP_2;
        request.map(|body| Body::new(Whole::new(body, says_its_end)))
    });
    let stream = TokioIo::new(ReadOn::new(stream, place));
    let connection = http.serve_connection(stream, TowerToHyperService::new(app)).into_owned();
    let connection = graceful.watch(connection);
    async move {
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = &mut connection => ended,
            // hyper has no timeout for the bytes by which it tells the versions of HTTP apart.
            first = tokio::time::timeout(HEAD_TIMEOUT, began.notified()) => match first {
                Ok(()) => connection.await,
                Err(_) => return,
            },
        };
        if let Err(error) = ended {
            tracing::debug!(error, "a connection has ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use http_body_util::BodyExt as _;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use testkit::{Call, Connection};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpSocket;
    use tokio::sync::mpsc;

    use super::*;

    /// More than the system keeps for a stream.
    const LONG: usize = 64 * 1024 * 1024;
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
        tokio::spawn(serve(listener, app, Places::with(4), std::future::pending()));
        let mut client = TcpStream::connect(address).await.unwrap();
        let closed = tokio::time::timeout(10 * HEAD_TIMEOUT, client.read(&mut [0])).await.expect("it is closed");
        assert_eq!(closed.unwrap(), 0);
    }

    // Seeded fault: the stream is closed with bytes unread, and the client that sends on is reset.
    #[tokio::test]
    async fn a_client_that_reads_only_once_it_has_sent_all_gets_an_answer_that_came_before() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = tower::service_fn(async |_: Request<Body>| {
            let refused = Response::builder().status(413).header("connection", "close").header("content-length", "0");
            Ok::<_, Infallible>(refused.body(Body::empty()).unwrap())
        });
        tokio::spawn(serve(listener, app, Places::with(4), std::future::pending()));
        let mut client = TcpStream::connect(address).await.unwrap();
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {LONG}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(&vec![b'a'; LONG]).await.expect("nothing resets it");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
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
        tokio::spawn(serve(listener, app, Places::with(4), std::future::pending()));
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
        tokio::spawn(serve(listener, app, Places::with(4), std::future::pending()));
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
        tokio::spawn(serve(listener, app, Places::with(4), std::future::pending()));
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
}
