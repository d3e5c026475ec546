//! All other requests are passed on as they are, and streamed.

use testkit::client::Raw;
use testkit::{Answer, Call, Connection};
use tower_idempotency_proxy::{Upstream, UpstreamError};

use crate::service::{Service, Stream, layer, proxied, proxy, says, send_call};

#[tokio::test(flavor = "multi_thread")]
async fn both_directions_are_streamed() {
    let proxy = proxy(layer(), Service::default().start().await).await;
    // Each part is sent only after the one before it has come back.
    let mut stream = Stream::begin(proxy, "first ").await;
    for part in ["second ", "third"] {
        stream.echo(part).await;
    }
    stream.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_body_comes_back_whole() {
    let proxy = proxy(layer(), Service::default().start().await).await;
    let long: String = (0..1_000_000).map(|number| format!("{number},")).collect();
    let answer = send_call(proxy, &Call::post("/echo", &long)).await;
    assert!(answer.text() == long, "{} and {} bytes", answer.body.len(), long.len());
}

/// The line of a header that the service has got.
fn line<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_lose_what_belongs_to_one_connection_and_say_who_has_called() {
    let proxy = proxy(layer(), Service::default().start().await).await;
    let call = Call::get("/heads?a=b").header("te", "trailers").header("proxy-authorization", "secret");
    let answer = send_call(proxy, &call.header("x-forwarded-for", "192.0.2.1")).await;
    assert!(answer.text().starts_with("HTTP/1.1 /heads?a=b\n"), "{}", answer.text());
    assert_eq!(line(&answer, "host"), Some("pay.example"));
    assert_eq!((line(&answer, "te"), line(&answer, "proxy-authorization")), (None, None));
    assert_eq!(line(&answer, "via"), Some("1.1 idem"));
    assert!(answer.text().contains("x-forwarded-for: 192.0.2.1\nx-forwarded-for: 127.0.0.1\n"), "{}", answer.text());
    assert_eq!((answer.header("keep-alive"), answer.header("proxy-authenticate")), (None, None));
    assert_eq!(answer.header("x-end"), Some("to-end"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_be_read_in_two_ways_is_refused_and_its_key_is_free() {
    let service = Service::default();
    let proxy = proxy(layer(), service.start().await).await;
    let order = Call::post("/orders", "book").header("idempotency-key", "k").header("authorization", "Bearer a");
    let stripped = send_call(proxy, &order.clone().header("connection", "authorization")).await;
    assert_eq!(stripped.status.as_u16(), 400, "{stripped:?}");
    assert!(stripped.json()["detail"].as_str().unwrap().contains("Connection"), "{stripped:?}");
    assert_eq!(send_call(proxy, &order).await.status.as_u16(), 201);
    assert_eq!(service.keys().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_may_have_a_body_and_a_head_no_length() {
    let proxy = proxy(layer(), Service::default().start().await).await;
    let mut client = Raw::connect(proxy).await.unwrap();
    let head = "GET /echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    client.say(format!("{head}6\r\na body\r\n0\r\n\r\n").as_bytes()).await.unwrap();
    let said = String::from_utf8(client.rest().await.unwrap()).unwrap();
    assert!(said.contains("a body"), "{said}");
    let proxy = self::proxy(layer(), says("HTTP/1.1 200 OK\r\n\r\n").await.0).await;
    let mut client = Raw::connect(proxy).await.unwrap();
    client.say(b"HEAD /echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let said = String::from_utf8(client.rest().await.unwrap()).unwrap();
    assert!(said.starts_with("HTTP/1.1 200") && !said.contains("content-length"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_and_a_service_may_each_speak_http_2() {
    let address = Service::default().start().await;
    let origin: http::Uri = format!("http://{address}").parse().unwrap();
    for (upstream, version) in [(Upstream::new(origin.clone()), "HTTP/1.1"), (Upstream::http2(origin), "HTTP/2.0")] {
        let proxy = proxied(layer(), upstream.unwrap()).await;
        let order = Call::post("/heads", "a").header("idempotency-key", "k");
        let first = Connection::http2(proxy).await.unwrap().send(&order).await.unwrap();
        assert!(first.text().starts_with(version), "{version}: {}", first.text());
        assert_eq!(line(&first, "x-forwarded-host"), Some("pay.example"), "{version}");
        assert_eq!(line(&first, "via"), Some("2 idem"), "{version}");
        // A retry may come over the other version.
        assert!(send_call(proxy, &order).await.is_replay(), "{version}");
    }
}

#[test]
fn only_an_origin_is_a_service() {
    for wrong in ["http://127.0.0.1:3000/api", "ftp://127.0.0.1", "/", "http://user:password@127.0.0.1"] {
        let error = Upstream::new(wrong.parse().unwrap()).unwrap_err();
        assert!(matches!(error, UpstreamError::Origin), "{wrong}: {error}");
    }
}
