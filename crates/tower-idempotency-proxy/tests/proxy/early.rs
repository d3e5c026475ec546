//! Answers that come while a client still sends.

use std::net::SocketAddr;

use axum::Router;
use axum::routing::any;
use http::{HeaderMap, StatusCode};
use metrics_exporter_prometheus::PrometheusBuilder;
use testkit::client::sends_before_it_reads;
use tokio::net::TcpListener;
use tower_idempotency::{AnyStore, IdempotencyLayer};
use tower_idempotency_proxy::{Proxy, Upstream};

use crate::service::layer;

/// More than the system keeps for a stream.
const LONG: usize = 24 << 20;

/// Serves a proxy in front of a service as a program does.
async fn served(layer: IdempotencyLayer<AnyStore>, service: SocketAddr) -> SocketAddr {
    let upstream = Upstream::new(format!("http://{service}").parse().unwrap()).unwrap();
    let (listen, monitor) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await);
    let address = listen.local_addr().unwrap();
    let recorder = PrometheusBuilder::new().build_recorder().handle();
    tokio::spawn(Proxy::new(layer, upstream).serve(listen, monitor.unwrap(), recorder, std::future::pending()));
    address
}

/// The service's refusal, before it has read the body.
fn refusal(head: &HeaderMap) -> (StatusCode, &'static str) {
    let status = head.get("refuse").map(|status| StatusCode::from_bytes(status.as_bytes()).unwrap());
    (status.unwrap_or(StatusCode::UNAUTHORIZED), "not so")
}

// Seeded fault: a client's stream is closed as soon as it is answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_a_client_that_reads_only_once_it_has_sent_all() {
    let service = Router::new().route("/orders", any(async |head: HeaderMap| refusal(&head)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let there = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
    let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let few = || layer().max_buffered(1);
    for (layer, service, key, length, is_chunked, status) in [
        (layer(), there, "idempotency-key: k\r\n", 3 << 20, false, 413),
        (layer(), there, "idempotency-key: k\r\n", LONG, false, 413),
        (layer(), there, "idempotency-key: k\r\n", LONG, true, 413),
        (layer(), there, "idempotency-key: a b\r\n", LONG, false, 400),
        (layer().require_key(true), there, "", LONG, true, 400),
        (few(), there, "idempotency-key: k\r\n", 1 << 20, false, 503),
        (layer().max_request_body(LONG).max_buffered(1), there, "idempotency-key: k\r\n", LONG, true, 503),
        // The service's own, and the proxy's.
        (layer(), there, "", LONG, false, 401),
        (layer(), there, "", LONG, true, 401),
        (layer(), there, "refuse: 408\r\n", LONG, false, 408),
        (layer(), there, "refuse: 422\r\n", LONG, true, 422),
        (layer(), nowhere, "", LONG, false, 503),
    ] {
        let proxy = served(layer, service).await;
        let framed = match is_chunked {
            true => format!("transfer-encoding: chunked\r\n\r\n{length:x}\r\n"),
            false => format!("content-length: {length}\r\n\r\n"),
        };
        let head = format!("POST /orders HTTP/1.1\r\nhost: a\r\n{key}{framed}");
        let answer = sends_before_it_reads(proxy, head, length).await.expect("it can send all");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status} {key:?} {length} {is_chunked}: {answer}");
    }
}
