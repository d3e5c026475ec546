//! Connections to the service that are refused, or break. `http2.rs` has those of HTTP/2.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use testkit::log::Log;
use testkit::proxy::{End, Link, Plan, Way};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};

use tower_idempotency::engine::Cause;
use tower_idempotency::operations::Filter;
use tower_idempotency_proxy::Upstream;

use crate::http2::{Ends, ends};
use crate::service::{Service, layer, proxied, proxy, says, send, send_call};

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
