//! A service of HTTP/2: its streams, and how it ends them.

use hyper_util::rt::{TokioExecutor, TokioIo};
use testkit::Gate;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tower_idempotency_proxy::Upstream;

use crate::service::{layer, proxied, send, send_call};

/// The time until a test gives up.
const GIVE_UP: std::time::Duration = std::time::Duration::from_secs(20);

/// A service of HTTP/2 that answers with such a length, or without one, and ends its stream or resets it.
async fn of_http2(length: Option<u64>, reset: Option<h2::Reason>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_request, mut respond))) = connection.accept().await {
                    let head = http::Response::builder().status(201);
                    let head = length.into_iter().fold(head, |head, length| head.header("content-length", length));
                    let mut body = respond.send_response(head.body(()).unwrap(), false).unwrap();
                    body.send_data("order".into(), reset.is_none()).unwrap();
                    if let Some(reset) = reset {
                        tokio::spawn(async move {
                            // What was sent before goes first, as long as the connection's task has its turns.
                            for _ in 0..1_000 {
                                tokio::task::yield_now().await;
                            }
                            body.send_reset(reset);
                        });
                    }
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_reset_without_an_error_is_no_end_whatever_its_length() {
    for reset in [None, Some(h2::Reason::NO_ERROR), Some(h2::Reason::CANCEL), Some(h2::Reason::INTERNAL_ERROR)] {
        // Five bytes come.
        for length in [None, Some(5), Some(9)] {
            let origin = format!("http://{}", of_http2(length, reset).await).parse().unwrap();
            let proxy = proxied(layer(), Upstream::http2(origin).unwrap()).await;
            let call = testkit::Call::post("/orders", "book").header("idempotency-key", "k");
            let first = testkit::Connection::http1(proxy).await.unwrap().send(&call).await;
            let is_whole = reset.is_none() && length != Some(9);
            assert!(first.is_ok() == is_whole || length == Some(5), "{length:?} {reset:?}: {first:?}");
            let again = send(proxy, "k", "book").await;
            let problem = if is_whole { "" } else { "outcome-unknown" };
            assert_eq!((&*again.problem(), again.is_replay()), (problem, is_whole), "{length:?} {reset:?}: {first:?}");
        }
    }
}

/// A service of HTTP/2 that takes two requests at a time on a connection. Those to `/waits` wait at the gate.
async fn of_two_streams(gate: Gate) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let gate = gate.clone();
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let gate = gate.clone();
                async move {
                    if request.uri().path() == "/waits" {
                        gate.pass().await;
                    }
                    Ok::<_, std::convert::Infallible>(http::Response::new(axum::body::Body::from("done")))
                }
            });
            let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(http.max_concurrent_streams(2).serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_does_not_take_the_streams_of_the_others() {
    let gate = Gate::default();
    let origin = format!("http://{}", of_two_streams(gate.clone()).await).parse().unwrap();
    let proxy = proxied(layer(), Upstream::http2(origin).unwrap()).await;
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(tokio::spawn(async move { send_call(proxy, &testkit::Call::get("/waits")).await }));
        tokio::time::timeout(GIVE_UP, gate.arrival()).await.expect("each is sent");
    }
    for key in [Some("k"), None] {
        let call = testkit::Call::post("/orders", "book");
        let call = key.into_iter().fold(call, |call, key| call.header("idempotency-key", key));
        let answer = tokio::time::timeout(GIVE_UP, send_call(proxy, &call)).await.expect("it is sent");
        assert_eq!(answer.text(), "done", "{key:?}: {answer:?}");
    }
    gate.open();
    for waits in waiting {
        assert_eq!(waits.await.unwrap().text(), "done");
    }
}

/// How a service of HTTP/2 ends the stream of a request, or the connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ends {
    Reset(u32),
    /// After an interim answer with this status.
    Interim(&'static str, u32),
    /// The same, by the end of the connection, with no stream that was processed.
    InterimGoAway(&'static str),
    /// With the last stream that it may have processed, as seen from the request's, and an error.
    GoAway(i32, u32),
}

/// A connection on which each request ends so, when all of it is there.
async fn ending(mut stream: tokio::net::TcpStream, how: Ends) -> std::io::Result<()> {
    const PREFACE: usize = 24;
    let frame = |kind: u8, stream: u32, body: &[u8]| {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0], &stream.to_be_bytes(), body].concat()
    };
    stream.write_all(&frame(4, 0, &[])).await?;
    stream.read_exact(&mut [0; PREFACE]).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let [_, a, b, kind, flags, of @ ..] = head;
        let mut body = vec![0; usize::from(u16::from_be_bytes([a, b]))];
        stream.read_exact(&mut body).await?;
        // Of data, or of a head without any.
        if kind == 0 && !body.is_empty() || kind == 1 && flags & 1 == 1 {
            let request = u32::from_be_bytes(of);
            // A literal value with the name of index 8 of HPACK's static table, which is the status.
            let interim = |status: &str| {
                let mut head = frame(1, request, &[&[8, 3], status.as_bytes()].concat());
                head[4] = 4;
                head
            };
            let go_away = |last: u32, reason: u32| frame(7, 0, &[last.to_be_bytes(), reason.to_be_bytes()].concat());
            match how {
                Ends::Interim(status, reason) => {
                    let reset = frame(3, request, &reason.to_be_bytes());
                    stream.write_all(&[interim(status), reset].concat()).await?;
                }
                Ends::InterimGoAway(status) => {
                    stream.write_all(&[interim(status), go_away(0, 0)].concat()).await?;
                    stream.shutdown().await?;
                }
                Ends::Reset(reason) => stream.write_all(&frame(3, request, &reason.to_be_bytes())).await?,
                Ends::GoAway(last, reason) => {
                    let last = request.saturating_add_signed(last).min(u32::MAX >> 1);
                    stream.write_all(&go_away(last, reason)).await?;
                    stream.shutdown().await?;
                }
            }
        }
    }
}

pub(crate) async fn ends(how: Ends) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(ending(stream, how));
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_a_service_of_http_2_has_not_processed_by_its_word_is_free() {
    const NO_ERROR: u32 = 0;
    const REFUSED_STREAM: u32 = 7;
    const CANCEL: u32 = 8;
    const ENHANCE_YOUR_CALM: u32 = 11;
    for (how, is_refused) in [
        (Ends::Reset(REFUSED_STREAM), true),
        (Ends::Reset(CANCEL), false),
        (Ends::Reset(NO_ERROR), false),
        (Ends::Reset(ENHANCE_YOUR_CALM), false),
        (Ends::GoAway(-1, NO_ERROR), true),
        (Ends::GoAway(-1, ENHANCE_YOUR_CALM), true),
        // It may have been processed.
        (Ends::GoAway(0, NO_ERROR), false),
        (Ends::GoAway(0, ENHANCE_YOUR_CALM), false),
        (Ends::GoAway(i32::MAX, NO_ERROR), false),
        (Ends::GoAway(0, REFUSED_STREAM), false),
        // It has begun.
        (Ends::Interim("100", REFUSED_STREAM), false),
        (Ends::Interim("103", REFUSED_STREAM), false),
        (Ends::InterimGoAway("100"), false),
        (Ends::InterimGoAway("103"), false),
    ] {
        // Without a body, hyper does not say whose stream a GOAWAY has ended.
        for (body, is_refused) in [("book", is_refused), ("", is_refused && matches!(how, Ends::Reset(_)))] {
            let origin = format!("http://{}", ends(how).await).parse().unwrap();
            let proxy = proxied(layer(), Upstream::http2(origin).unwrap()).await;
            let expected = if is_refused { (503, "none;retry", Some("1")) } else { (502, "unknown;retry=?0", None) };
            for key in [None, Some("k")] {
                let call = testkit::Call::post("/orders", body);
                let call = key.into_iter().fold(call, |call, key| call.header("idempotency-key", key));
                let first = send_call(proxy, &call).await;
                let effect = first.header("idempotency-effect").unwrap();
                let said = (first.status.as_u16(), effect, first.header("retry-after"));
                assert_eq!(said, expected, "{how:?} {key:?} {body:?}");
            }
            let problem = if is_refused { "custom" } else { "outcome-unknown" };
            assert_eq!(send(proxy, "k", body).await.problem(), problem, "{how:?} {body:?}");
        }
    }
}
