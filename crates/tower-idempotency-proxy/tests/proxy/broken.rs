//! Connections to the service that are refused, or break.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use testkit::proxy::{End, Link, Plan, Way};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};

use crate::service::{Service, layer, proxy, says, send};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_after_the_request_was_sent_leaves_the_outcome_unknown() {
    let service = Service::default();
    let address = service.start().await;
    let ways = [(Way::Request, 40), (Way::Request, 100), (Way::Response, 0), (Way::Response, 1), (Way::Response, 30)];
    for (way, after) in ways {
        for end in [End::Fin, End::Rst] {
            let link = Link::to(address, Plan::pass().cut(way, after, end)).await;
            let proxy = proxy(layer(), link.address).await;
            let before = service.keys().len();
            let broken = send(proxy, "k", "book").await;
            assert_eq!(broken.status.as_u16(), 502, "{way:?} {after} {end:?}: {broken:?}");
            for _ in 0..2 {
                let retry = send(proxy, "k", "book").await;
                assert_eq!(retry.refusal(), (409, "outcome-unknown".to_owned()), "{way:?} {after} {end:?}");
            }
            assert!(service.keys().len() - before <= 1, "{way:?} {after} {end:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_in_its_body_is_not_recorded_as_one() {
    let service = Service::default();
    let link = Link::to(service.start().await, Plan::pass().cut(Way::Response, 110, End::Rst)).await;
    let proxy = proxy(layer(), link.address).await;
    // Its head has come, and the client gets that, and then a body that breaks.
    let mut client = testkit::Connection::http1(proxy).await.unwrap();
    let call = testkit::Call::post("/orders", "book").header("idempotency-key", "k");
    assert!(client.send(&call).await.is_err());
    assert_eq!(send(proxy, "k", "book").await.refusal(), (409, "outcome-unknown".to_owned()));
    assert_eq!(service.keys().len(), 1);
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
    assert_eq!(send(proxy, "a", "book").await.status.as_u16(), 201);
    let second = send(proxy, "b", "book").await;
    assert_eq!(second.status.as_u16(), 502, "{second:?}");
    assert_eq!(send(proxy, "b", "book").await.problem(), "outcome-unknown");
    assert_eq!(seen.load(Ordering::SeqCst), 2, "one request for each key");
}
