use metrics_exporter_prometheus::PrometheusBuilder;
use testkit::log::Log;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tower::Layer as _;
use tower_idempotency::{AnyStore, IdempotencyLayer, MemoryStore};

use super::*;

#[tokio::test]
async fn a_key_that_the_service_does_not_get_is_said_once() {
    let log = Log::begin(tracing::Level::WARN);
    // Nothing is reached.
    let upstream = Upstream::new(Uri::from_static("http://127.0.0.1:1")).unwrap();
    let layered = IdempotencyLayer::new(AnyStore::new(MemoryStore::new())).layer(upstream.clone());
    for (method, key, is_covered, is_said) in [
        ("POST", None, false, false),
        ("GET", Some("k"), false, false),
        ("POST", Some("k"), true, false),
        ("PUT", Some("k"), false, true),
        ("PUT", Some("k"), false, false),
    ] {
        let request = Request::builder().method(method).uri("/orders").header("host", "pay.example");
        let request = key.into_iter().fold(request, |request, key| request.header("idempotency-key", key));
        let request = request.body(Body::empty()).unwrap();
        let answer = match is_covered {
            true => layered.clone().oneshot(request).await.unwrap(),
            false => upstream.clone().oneshot(request).await.unwrap(),
        };
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{method} {key:?}");
        let lines = log.lines();
        let is_of_key = |line: &&String| line.contains("has a key, which the service does not get");
        assert_eq!(lines.iter().filter(is_of_key).count(), usize::from(is_said), "{method} {key:?}: {lines:?}");
    }
}

#[test]
fn cors_of_a_service_is_left_out_where_the_proxy_answers_it_and_else_said_once() {
    let log = Log::begin(tracing::Level::WARN);
    let upstream = Upstream::new(Uri::from_static("http://127.0.0.1:1")).unwrap();
    let answers_cors = upstream.clone().without_cors();
    for (upstream, has_cors, is_covered, is_said) in [
        (&upstream, true, false, false),
        (&upstream, false, true, false),
        (&answers_cors, true, true, false),
        (&upstream, true, true, true),
        (&upstream, true, true, false),
    ] {
        let mut headers = HeaderMap::from_iter([(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))]);
        if has_cors {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        }
        let left = if upstream.target.answers_cors { 1 } else { headers.len() };
        upstream.target.cors(&mut headers, is_covered);
        assert_eq!((headers.len(), log.lines().len()), (left, usize::from(is_said)), "{has_cors} {is_covered}");
    }
}

#[tokio::test]
async fn an_answer_to_a_covered_request_that_does_not_say_its_end_is_said_once() {
    let log = Log::begin(tracing::Level::WARN);
    for (head, key, is_said) in [
        ("HTTP/1.1 201 Created\r\n\r\n", None, false),
        ("HTTP/1.1 201 Created\r\ncontent-length: 5\r\n\r\n", Some("a"), false),
        ("HTTP/1.1 201 Created\r\n\r\n", Some("b"), true),
        ("HTTP/1.1 201 Created\r\n\r\n", Some("c"), false),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let serving = async {
            let mut stream = listener.accept().await.unwrap().0;
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
            stream.write_all(format!("{head}order").as_bytes()).await.unwrap();
        };
        let layered = IdempotencyLayer::new(AnyStore::new(MemoryStore::new())).layer(Upstream::new(origin).unwrap());
        let request = Request::post("/orders").header("host", "pay.example").header("content-length", "0");
        let request = key.into_iter().fold(request, |request, key| request.header("idempotency-key", key));
        let (answer, ()) = tokio::join!(layered.oneshot(request.body(Body::empty()).unwrap()), serving);
        assert_eq!(answer.unwrap().status(), StatusCode::CREATED);
        let lines = log.lines();
        let said = lines.iter().filter(|line| line.contains("neither a Content-Length nor the coding chunked")).count();
        assert_eq!(said, usize::from(is_said), "{key:?}: {lines:?}");
    }
}

#[tokio::test]
async fn a_request_for_which_there_is_no_place_is_counted_and_answered_so() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let mut upstream = Upstream::new(Uri::from_static("http://127.0.0.1:1")).unwrap();
    upstream.places = Places::with(0);
    let answer = upstream.oneshot(Request::post("/orders").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        (answer.headers()["idempotency-effect"].as_bytes(), answer.headers()["retry-after"].as_bytes()),
        (&b"none;retry"[..], &b"1"[..])
    );
    let metrics = recorder.handle().render();
    assert!(metrics.contains("idempotency_proxy_unanswered_total{kind=\"overloaded\"} 1\n"), "{metrics}");
}
