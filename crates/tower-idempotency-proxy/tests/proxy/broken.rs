//! Connections to the service that are refused, or break.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper_util::rt::{TokioExecutor, TokioIo};
use testkit::Gate;
use testkit::log::Log;
use testkit::proxy::{End, Link, Plan, Way};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};

use tower_idempotency::engine::Cause;
use tower_idempotency::operations::Filter;
use tower_idempotency_proxy::Upstream;

use crate::service::{Service, layer, proxied, proxy, says, send, send_call};

/// The time until a test gives up.
const GIVE_UP: std::time::Duration = std::time::Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_refused_frees_the_key() {
    // The address is this test's own, and nothing listens there yet.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind((testkit::dice::loopback(), 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    let (service, proxy) = (Service::default(), proxy(layer(), address).await);
    for _ in 0..2 {
        let refused = send(proxy, "k", "book").await;
        assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, Some("1")), "{refused:?}");
        assert_eq!(refused.json()["retry_with_same_key"], true, "{refused:?}");
    }
    service.start_at(socket.listen(16).unwrap());
    let done = send(proxy, "k", "book").await;
    assert_eq!((done.status.as_u16(), done.is_replay()), (201, false), "{done:?}");
    assert_eq!(service.keys().len(), 1);
}

// Seeded fault: nothing is counted.
#[tokio::test]
async fn a_request_that_the_service_has_not_answered_is_counted_by_its_kind() {
    let nothing = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere = nothing.local_addr().unwrap();
    drop(nothing);
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let log = Log::begin(tracing::Level::WARN);
    let one = |address| Upstream::new(format!("http://{address}").parse().unwrap()).unwrap();
    let two = |address| Upstream::http2(format!("http://{address}").parse().unwrap()).unwrap();
    let switched = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: order\r\n\r\n";
    for (upstream, kind, said) in [
        (one(nowhere), "not-reached", None),
        (one(says("").await.0), "broken", None),
        (one(says("HTTP/3\r\n").await.0), "unreadable", Some("can't be read")),
        (one(says(switched).await.0), "unreadable", Some("has switched protocols unasked")),
        (one(silent.local_addr().unwrap()).passed_within(std::time::Duration::from_millis(50)), "late", None),
        (two(ends(Ends::Reset(7)).await), "refused", None),
    ] {
        // Of this thread, which is the runtime's only one.
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let _guard = metrics::set_default_local_recorder(&recorder);
        send_call(proxied(layer(), upstream).await, &testkit::Call::post("/orders", "book")).await;
        let (metrics, line) = (recorder.handle().render(), format!("unanswered_total{{kind=\"{kind}\"}} 1\n"));
        assert!(metrics.contains(&line), "{kind}: {metrics}");
        // What the service's developers have to mend is said.
        let lines = log.lines();
        assert_eq!(lines.len(), usize::from(said.is_some()), "{kind}: {lines:?}");
        assert!(said.is_none_or(|said| lines[0].contains(said)), "{kind}: {lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_after_the_request_was_sent_leaves_the_outcome_unknown() {
    let service = Service::default();
    let address = service.start().await;
    let ways = [(Way::Request, 40), (Way::Request, 100), (Way::Response, 0), (Way::Response, 1), (Way::Response, 30)];
    for (way, after) in ways {
        for end in [End::Fin, End::Rst] {
            let link = Link::to(address, Plan::pass().cut(way, after, end)).await;
            let layer = layer();
            let proxy = proxy(layer.clone(), link.address).await;
            let before = service.keys().len();
            let broken = send(proxy, "k", "book").await;
            assert_eq!(broken.status.as_u16(), 502, "{way:?} {after} {end:?}: {broken:?}");
            for _ in 0..2 {
                let retry = send(proxy, "k", "book").await;
                assert_eq!(retry.refusal(), (409, "outcome-unknown".to_owned()), "{way:?} {after} {end:?}");
            }
            assert!(service.keys().len() - before <= 1, "{way:?} {after} {end:?}");
            let listed = layer.operations().list(&Filter::all().caused_by(Cause::Broken), None, 9).await.unwrap();
            assert_eq!(listed.operations.len(), 1, "{way:?} {after} {end:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_in_its_body_is_not_recorded_as_one() {
    let service = Service::default();
    let link = Link::to(service.start().await, Plan::pass().cut(Way::Response, 145, End::Rst)).await;
    let proxy = proxy(layer(), link.address).await;
    let mut client = testkit::Connection::http1(proxy).await.unwrap();
    let call = testkit::Call::post("/orders", "book").header("idempotency-key", "k");
    assert!(client.send(&call).await.is_err());
    assert_eq!(send(proxy, "k", "book").await.refusal(), (409, "outcome-unknown".to_owned()));
    assert_eq!(service.keys().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_http_1_gets_the_part_of_an_answer_that_has_come() {
    for (answer, end) in [
        ("HTTP/1.1 201 Created\r\ncontent-length: 9\r\n\r\norder", "\r\n\r\norder"),
        ("HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n5\r\norder\r\n", "\r\n\r\n5\r\norder\r\n"),
    ] {
        let proxy = proxy(layer(), says(answer).await.0).await;
        for key in ["", "idempotency-key: k\r\n"] {
            let mut client = testkit::client::Raw::connect(proxy).await.unwrap();
            let head = format!("POST /orders HTTP/1.1\r\nhost: a\r\n{key}content-length: 4\r\n\r\nbook");
            client.say(head.as_bytes()).await.unwrap();
            let said = String::from_utf8(client.rest().await.unwrap()).unwrap();
            assert!(said.starts_with("HTTP/1.1 201") && said.ends_with(end), "{key}: {said:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_hangs_is_given_up_after_max_run() {
    // It accepts, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let layer = layer().max_run(std::time::Duration::from_millis(200));
    let proxy = proxy(layer, silent.local_addr().unwrap()).await;
    let first = send(proxy, "k", "book").await;
    assert_eq!(first.refusal(), (500, "outcome-unknown".to_owned()), "{first:?}");
    assert_eq!(send(proxy, "k", "book").await.refusal(), (409, "outcome-unknown".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_may_be_cut_is_not_recorded_as_a_whole_one() {
    for (answer, status) in [
        // Where the connection's end is the body's, half a body looks like a whole one.
        ("HTTP/1.0 201 Created\r\n\r\n{\"order\":1", 201),
        ("HTTP/1.1 201 Created\r\ntransfer-encoding: identity\r\nconnection: close\r\n\r\n{\"order\":1", 201),
        ("HTTP/1.1 201 Created\r\ntransfer-encoding: chunked, gzip\r\n\r\n{\"order\":1", 201),
        // The service's word for it does not make half a body a whole one.
        ("HTTP/1.1 200 OK\r\nidempotency-mark: keep\r\nconnection: close\r\n\r\nhalf of it", 200),
        // No upgrade was asked for.
        ("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n", 502),
    ] {
        let (service, seen) = says(answer).await;
        let proxy = proxy(layer(), service).await;
        let mut client = testkit::Connection::http1(proxy).await.unwrap();
        let call = testkit::Call::post("/orders", "book").header("idempotency-key", "k");
        let first = client.send(&call).await.unwrap();
        assert_eq!(first.status.as_u16(), status, "{answer}");
        assert_eq!(send(proxy, "k", "book").await.problem(), "outcome-unknown", "{answer}");
        assert_eq!(seen.load(Ordering::SeqCst), 1, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_over_a_kept_connection_that_ends_is_not_sent_again() {
    // It answers once on each connection, and closes it when the next request comes.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (mut stream, counted) = (listener.accept().await.unwrap().0, Arc::clone(&counted));
            tokio::spawn(async move {
                let mut bytes = vec![0; 4096];
                for is_answered in [true, false] {
                    if !matches!(stream.read(&mut bytes).await, Ok(1..)) {
                        return;
                    }
                    counted.fetch_add(1, Ordering::SeqCst);
                    if is_answered {
                        stream.write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 4\r\n\r\nmade").await.unwrap();
                    }
                }
            });
        }
    });
    let proxy = proxy(layer(), address).await;
    let get = testkit::Call::get("/orders");
    let mut connections = 0;
    // A connection is free for the next request some time after the answer.
    while send_call(proxy, &get).await.status.as_u16() == 201 && connections < 1_000 {
        connections += 1;
    }
    assert_eq!(seen.load(Ordering::SeqCst), connections + 1, "each is sent once");
    // One with a key has a connection of its own.
    for key in ["a", "b"] {
        assert_eq!(send(proxy, key, "book").await.status.as_u16(), 201);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_a_gateway_has_to_put_up_with_is_read_and_recorded() {
    let many: String = (0..400).map(|number| format!("x-{number}: {number}\r\n")).collect();
    for (head, length) in [
        ("content-length : 5\r\n", None),
        ("content-length: 5\r\nx-folded: one\r\n two\r\n", Some(("x-folded", "one two"))),
        ("content-length: 5\r\nset-cookie: a=\x01b\r\nx-end: 1\r\n", Some(("x-end", "1"))),
        (&*format!("content-length: 5\r\n{many}"), Some(("x-399", "399"))),
    ] {
        let answer = format!("HTTP/1.1 201 Created\r\n{head}\r\norder");
        let (service, seen) = says(answer.leak()).await;
        let proxy = proxy(layer(), service).await;
        for is_replay in [false, true] {
            let answer = send(proxy, "k", "book").await;
            assert_eq!(
                (answer.status.as_u16(), answer.text(), answer.is_replay()),
                (201, "order", is_replay),
                "{head}"
            );
            if let Some((name, value)) = length {
                let of_one_blank =
                    answer.header(name).map(|value| value.split_ascii_whitespace().collect::<Vec<_>>().join(" "));
                assert_eq!(of_one_blank.as_deref(), Some(value), "{head}");
            }
        }
        assert_eq!(seen.load(Ordering::SeqCst), 1, "{head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_can_t_be_read_is_unknown_and_called_so() {
    for answer in
        ["HTTP/1.1 abc\r\n\r\n", "order 1", "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\na"]
    {
        let (service, seen) = says(answer).await;
        let proxy = proxy(layer(), service).await;
        let first = send(proxy, "k", "book").await;
        assert_eq!((first.status.as_u16(), first.header("idempotency-effect")), (502, Some("unknown;retry=?0")));
        assert!(first.json()["detail"].as_str().unwrap().contains("could not be read"), "{answer}: {first:?}");
        assert_eq!(send(proxy, "k", "book").await.problem(), "outcome-unknown", "{answer}");
        assert_eq!(seen.load(Ordering::SeqCst), 1, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_next_to_chunks_is_left_out_and_cuts_nothing() {
    let answer =
        "HTTP/1.1 201 Created\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n5\r\norder\r\n0\r\n\r\n";
    let proxy = proxy(layer(), says(answer).await.0).await;
    for _ in 0..2 {
        assert_eq!(send(proxy, "k", "book").await.text(), "order");
        assert_eq!(send_call(proxy, &testkit::Call::post("/orders", "book")).await.text(), "order");
    }
}

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

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_a_key_has_the_layer_s_limit_and_one_without_has_the_proxy_s() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (short, long) = (std::time::Duration::from_millis(50), std::time::Duration::from_millis(300));
    for (key, passed_within, max_run, expected) in [
        (Some("k"), short, long, (500, "outcome-unknown")),
        (Some("k"), long, short, (500, "outcome-unknown")),
        (None, short, long, (504, "custom")),
        (None, long, short, (504, "custom")),
    ] {
        let upstream = Upstream::new(format!("http://{}", silent.local_addr().unwrap()).parse().unwrap()).unwrap();
        let proxy = proxied(layer().max_run(max_run), upstream.passed_within(passed_within)).await;
        let call = testkit::Call::post("/orders", "book");
        let call = key.into_iter().fold(call, |call, key| call.header("idempotency-key", key));
        let late = send_call(proxy, &call).await;
        assert_eq!((late.status.as_u16(), &*late.problem()), expected, "{key:?} {passed_within:?} {max_run:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_key_waits_no_longer_than_it_may() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let within = std::time::Duration::from_millis(100);
    let upstream = |address| Upstream::new(format!("http://{address}").parse().unwrap()).unwrap().passed_within(within);
    let proxy = proxied(layer(), upstream(silent.local_addr().unwrap())).await;
    let late = send_call(proxy, &testkit::Call::get("/orders")).await;
    assert_eq!((late.status.as_u16(), late.header("idempotency-effect")), (504, Some("unknown;retry=?0")), "{late:?}");
    // A body that stops is cut, with a key and without.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut streams = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await.unwrap();
            streams.push(stream);
        }
    });
    let proxy = proxied(layer(), upstream(address)).await;
    for call in [testkit::Call::get("/orders"), testkit::Call::post("/orders", "book").header("idempotency-key", "k")] {
        assert!(testkit::Connection::http1(proxy).await.unwrap().send(&call).await.is_err(), "{call:?}");
    }
    assert_eq!(send(proxy, "k", "book").await.problem(), "outcome-unknown");
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
enum Ends {
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

async fn ends(how: Ends) -> std::net::SocketAddr {
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

/// A service that answers when it has read a head, and closes with the rest unread, which resets the connection.
async fn refuses_early(answer: &'static str) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 512]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_read_although_the_service_has_closed_without_the_request_s_body() {
    // Sockets hold a part of it at the most.
    let body = "a".repeat(1_000_000);
    for (answer, status, retry) in [
        ("HTTP/1.1 401 Unauthorized\r\ncontent-length: 7\r\nconnection: close\r\n\r\nsign in", 401, 401),
        ("HTTP/1.1 413 Too Large\r\ncontent-length: 7\r\n\r\nno room", 413, 413),
        // Half an answer is none, and so is no answer.
        ("HTTP/1.1 401 Unauthorized\r\ncontent-le", 502, 409),
        ("", 502, 409),
    ] {
        let service = refuses_early(answer).await;
        // Whether a write fails before the answer is read is chance.
        for _ in 0..20 {
            let call = testkit::Call::post("/orders", &body);
            let keyed = call.clone().header("idempotency-key", "k");
            // Each has a connection of its own: the service closes one without saying so, and the next request may meet
            // that.
            let (one, other) = (proxy(layer(), service).await, proxy(layer(), service).await);
            for (proxy, call, expected) in [(one, &call, status), (other, &keyed, status), (other, &keyed, retry)] {
                let answer = send_call(proxy, call).await;
                assert_eq!(answer.status.as_u16(), expected, "{answer:?}");
            }
        }
    }
}
