//! Clients that take connections and time.

use std::process::{Command, Stdio};
use std::time::Duration;

use testkit::client::Raw;
use testkit::process::memory;
use testkit::{Call, Connection};
use tokio::net::TcpStream;

use super::parts::{Language, Parts};

/// The files that the proxy may have open, and more connections than that.
const FILES: usize = 600;
const CONNECTIONS: usize = 400;
const STREAMS: usize = 60;
/// The time until a test gives up. The proxy takes 30 seconds.
const BOUND: Duration = Duration::from_secs(150);

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_says_nothing_or_half_a_head_is_cut() {
    let Some((_directory, parts, _service)) = Parts::served("idle clients of the proxy are cut").await else { return };
    let _proxy = parts.start_proxy(&[]).await;
    // Nothing, a version of HTTP, half a head, and no second request.
    let whole = "POST /orders HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
    let ends = ["", "PRI * HTTP/2.0\r\n", "POST /orders HT", whole].map(|said| {
        let proxy = parts.proxy;
        tokio::spawn(async move {
            let mut client = Raw::connect(proxy).await.unwrap();
            client.say(said.as_bytes()).await.unwrap();
            // A reset is an end.
            let _ = tokio::time::timeout(BOUND, client.rest()).await.expect("the connection ends");
        })
    });
    for end in ends {
        end.await.unwrap();
    }
    assert_eq!(parts.effects().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_client_takes_leaves_room_for_others_and_for_the_second_port() {
    let directory = tempfile::tempdir().unwrap();
    let parts = Parts::new(Language::Python, directory.path());
    let slow = async || std::future::pending::<&str>().await;
    let orders = async || (http::StatusCode::CREATED, "made");
    let app =
        axum::Router::new().route("/orders", axum::routing::post(orders)).route("/slow", axum::routing::post(slow));
    let listener = tokio::net::TcpListener::bind(parts.service).await.unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let idem = parts.proxy_command();
    let mut limited = Command::new("sh");
    limited
        .args(["-c", &format!("ulimit -n {FILES} && exec \"$@\""), "sh"])
        .arg(idem.get_program())
        .args(idem.get_args())
        .arg("--one-account");
    limited.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut proxy = parts.start_proxy_by(&mut limited).await;

    // Streams to a place that does not answer, without a key: more than there are files for.
    let mut streams = Vec::new();
    let (told, mut tells) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..10 {
        let client = Connection::http2(parts.proxy).await.unwrap();
        for _ in 0..STREAMS {
            let (mut client, told) = (client.another(), told.clone());
            streams.push(tokio::spawn(async move {
                if let Ok(answer) = client.send(&Call::post("/slow", "a")).await {
                    told.send((answer.status.as_u16(), answer.header("idempotency-effect").map(str::to_owned)))
                        .unwrap();
                }
            }));
        }
    }
    let refused = tells.recv().await.unwrap();
    assert_eq!(refused, (503, Some("none;retry".to_owned())));
    // And idle connections.
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS {
        idle.push(TcpStream::connect(parts.proxy).await.unwrap());
    }
    // The second port answers, and so does the first one, to another client.
    for path in ["/readyz", "/metrics"] {
        let answer = Connection::http1(parts.monitor).await.unwrap().send(&Call::operator(path)).await.unwrap();
        assert_eq!(answer.status.as_u16(), 200, "{path}");
    }
    let call = Call::post("/orders", "item=book").header("idempotency-key", "k");
    let answer = from_another_address(parts.proxy).await.send(&call).await.unwrap();
    assert_eq!(answer.status.as_u16(), 201, "{answer:?}");
    streams.iter().for_each(tokio::task::JoinHandle::abort);
    drop((idle, streams));
    let mut again = None;
    testkit::process::until("there is room again", async || {
        let Ok(mut client) = Connection::http1(parts.proxy).await else { return false };
        again = client.send(&call).await.ok();
        again.is_some()
    })
    .await;
    assert!(again.unwrap().is_replay() && proxy.0.try_wait().unwrap().is_none(), "it runs on");
}

/// A connection from another address of this machine.
async fn from_another_address(to: std::net::SocketAddr) -> Connection {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((std::net::Ipv4Addr::new(127, 0, 0, 2), 0).into()).unwrap();
    Connection::over(socket.connect(to).await.unwrap()).await.unwrap()
}

/// What the heads below may take: 300 on connections of HTTP/1.1, and 1,200 over HTTP/2, besides some megabytes.
const MOST: u64 = 90 << 20;
/// A recorded answer. The most is 1 MiB.
const LENGTH: usize = 1_000_000;

/// Requests over a connection of HTTP/2 whose answers are not read.
type Unread = Vec<(h2::client::ResponseFuture, h2::SendStream<axum::body::Bytes>)>;

/// Sends as many requests over one connection as it takes. `fields` are those of 1 KB in each head; `ends` says whether
/// a body has an end.
async fn unread(to: std::net::SocketAddr, key: impl Fn(usize) -> String, fields: usize, ends: bool) -> Unread {
    let stream = TcpStream::connect(to).await.unwrap();
    let (mut client, connection) = h2::client::Builder::new().initial_window_size(0).handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut sent = Vec::new();
    for number in 0..100 {
        client = client.ready().await.unwrap();
        let request = http::Request::post("http://pay.example/orders").header("idempotency-key", key(number));
        let long = (0..fields).fold(request, |request, field| request.header(format!("x-{field}"), "a".repeat(1_000)));
        sent.push(client.send_request(long.body(()).unwrap(), ends).unwrap());
    }
    sent
}

// Seeded faults: a head has any length that hyper takes; an answer that is not read takes no room.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_says_long_heads_and_reads_no_answer_takes_little_memory_and_leaves_room_for_others() {
    let directory = tempfile::tempdir().unwrap();
    let parts = Parts::new(Language::Python, directory.path());
    let app = axum::Router::new().route("/orders", axum::routing::post(async || "a".repeat(LENGTH)));
    let listener = tokio::net::TcpListener::bind(parts.service).await.unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let proxy = parts.start_proxy(&[]).await;
    let call = Call { headers: Vec::new(), ..Call::post("/orders", "") }.header("idempotency-key", "k");
    assert_eq!(Connection::http2(parts.proxy).await.unwrap().send(&call).await.unwrap().text().len(), LENGTH);
    let before = memory(proxy.0.id(), "VmHWM:");

    let mut clients = Vec::new();
    // Half of a head, on each port, and heads whose requests have no end.
    for (address, length, count) in
        [(parts.proxy, 60_000, 100), (parts.proxy, 390_000, 200), (parts.monitor, 390_000, 100)]
    {
        for _ in 0..count {
            let mut client = Raw::connect(address).await.unwrap();
            let _ = client.say(format!("GET / HTTP/1.1\r\nx-long: {}", "a".repeat(length)).as_bytes()).await;
            clients.push(client);
        }
    }
    let mut sent = Vec::new();
    for of in 0..4 {
        sent.push(unread(parts.proxy, move |number| format!("{of}-{number}"), 50, false).await);
    }
    // The same answer, which is not read.
    let mut replays = Vec::new();
    for _ in 0..8 {
        replays.push(unread(parts.proxy, |_| "k".to_owned(), 0, true).await);
    }
    let overloaded = async || {
        let answer = Connection::http1(parts.monitor).await.unwrap().send(&Call::operator("/metrics")).await.unwrap();
        let line = "idempotency_proxy_unanswered_total{kind=\"overloaded\"} ";
        let count = answer.text().lines().find_map(|said| said.strip_prefix(line)).map(str::to_owned);
        count.is_some_and(|count| count.parse::<usize>().unwrap() >= 800 - 256)
    };
    testkit::process::until("what has no room is refused", overloaded).await;
    let taken = memory(proxy.0.id(), "VmHWM:") - before;
    assert!(taken < MOST, "{} MiB", taken >> 20);
    // There is room for another client.
    let answer = from_another_address(parts.proxy).await.send(&call).await.unwrap();
    assert!(answer.is_replay() && answer.text().len() == LENGTH, "{:?}", answer.status);
}
