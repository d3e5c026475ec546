//! All other requests are passed on as they are, and streamed.

use http::Method;
use http_body_util::BodyExt as _;
use testkit::client::Raw;
use testkit::{Answer, Call, Connection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tower_http::cors::CorsLayer;
use tower_idempotency_proxy::{Proxy, Upstream, UpstreamError};

use crate::service::{Service, Stream, layer, proxied, proxy, says, send_call, serve};

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

/// A service that says what it has got: its body, and whether there were trailers, or a head that names some.
async fn says_of_trailers() -> std::net::SocketAddr {
    let app = axum::Router::new().fallback(async |request: axum::extract::Request| {
        let names_some = request.headers().contains_key("trailer");
        let body = request.into_body().collect().await.unwrap();
        let trailers = body.trailers().cloned();
        format!("{:?} {trailers:?} {names_some}", body.to_bytes())
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_gets_no_trailers_which_could_say_what_heads_may_not() {
    const NAMES: [&str; 4] = ["idempotency-key", "x-account", "x_account", "x-forwarded-for"];
    const GOT: &str = "b\"book\" None false";
    let origin: http::Uri = format!("http://{}", says_of_trailers().await).parse().unwrap();
    for upstream in [Upstream::new, Upstream::http2] {
        let proxy = proxied(layer(), upstream(origin.clone()).unwrap()).await;
        for key in [None, Some("one"), Some("two")] {
            let key_line = key.map(|key| format!("idempotency-key: {key}\r\n")).unwrap_or_default();
            let trailers: String = NAMES.iter().map(|name| format!("{name}: other\r\n")).collect();
            let head = format!(
                "POST /orders HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{key_line}trailer: {}\r\n\
                 transfer-encoding: chunked\r\n\r\n4\r\nbook\r\n0\r\n{trailers}\r\n",
                NAMES.join(", ")
            );
            let mut client = Raw::connect(proxy).await.unwrap();
            client.say(head.as_bytes()).await.unwrap();
            assert_eq!(client.answer().await.unwrap().text(), GOT, "{key:?}");

            let (mut client, connection) =
                h2::client::handshake(tokio::net::TcpStream::connect(proxy).await.unwrap()).await.unwrap();
            tokio::spawn(connection);
            let request = http::Request::post("http://pay.example/orders").header("trailer", NAMES.join(", "));
            let request =
                key.iter().fold(request, |request, key| request.header("idempotency-key", format!("{key}-2")));
            let (answer, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
            body.send_data("book".into(), false).unwrap();
            let value = http::HeaderValue::from_static("other");
            body.send_trailers(
                NAMES.map(|name| (http::HeaderName::from_static(name), value.clone())).into_iter().collect(),
            )
            .unwrap();
            let said = answer.await.unwrap().into_body().data().await.unwrap().unwrap();
            assert_eq!(said, GOT, "{key:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_lengths_are_one_on_both_sides() {
    // It answers with what has come.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut read = Vec::new();
            while !read.ends_with(b"\r\n\r\na") && matches!(stream.read_buf(&mut read).await, Ok(1..)) {}
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", read.len());
            stream.write_all(&[head.as_bytes(), &read].concat()).await.unwrap();
        }
    });
    let proxy = proxy(layer(), address).await;
    for key in [None, Some("k")] {
        let request = http::Request::post("http://pay.example/heads");
        let request = request.header("content-length", "1").header("content-length", "1");
        let request = key.iter().fold(request, |request, key| request.header("idempotency-key", *key));
        let mut client = Connection::http2(proxy).await.unwrap();
        let answer = client.exchange(request.body("a".into()).unwrap()).await.unwrap();
        assert_eq!(answer.text().matches("content-length: 1\r\n").count(), 1, "{key:?}: {answer:?}");
    }
    for lengths in ["content-length: 5, 5", "content-length: 5\r\ncontent-length: 5"] {
        let answer: &'static str = format!("HTTP/1.1 201 Created\r\n{lengths}\r\n\r\norder").leak();
        let proxy = self::proxy(layer(), says(answer).await.0).await;
        for call in [Call::post("/orders", "a"), Call::post("/orders", "a").header("idempotency-key", "k")] {
            let answer = send_call(proxy, &call).await;
            let lines: Vec<_> = answer.headers.get_all("content-length").iter().collect();
            assert!(answer.text() == "order" && lines == ["5"], "{lengths}: {answer:?}");
        }
    }
}

#[test]
fn only_an_origin_is_a_service() {
    for wrong in ["http://127.0.0.1:3000/api", "ftp://127.0.0.1", "/", "http://user:password@127.0.0.1"] {
        let error = Upstream::new(wrong.parse().unwrap()).unwrap_err();
        assert!(matches!(error, UpstreamError::Origin), "{wrong}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_covered_request_asks_for_no_coding_that_its_retry_may_not_know() {
    let proxy = proxy(layer(), Service::default().start().await).await;
    let post = || Call::post("/heads", "a").header("accept-encoding", "gzip, br");
    let covered = send_call(proxy, &post().header("idempotency-key", "k")).await;
    assert_eq!(line(&covered, "accept-encoding"), Some("identity"));
    assert_eq!(line(&send_call(proxy, &post()).await, "accept-encoding"), Some("gzip, br"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_has_a_length_or_is_in_chunks_and_what_has_none_says_nothing() {
    let address = Service::default().start().await;
    let origin: http::Uri = format!("http://{address}").parse().unwrap();
    for (is_http2, upstream) in [(false, Upstream::new(origin.clone())), (true, Upstream::http2(origin))] {
        let proxy = proxied(layer(), upstream.unwrap()).await;
        for (body, length) in [
            ("", None),
            ("content-length: 0\r\n\r\n", Some("0")),
            ("content-length: 1\r\n\r\na", Some("1")),
            ("transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", None),
        ] {
            for (method, key) in [("GET", ""), ("GET", "idempotency-key: k\r\n"), ("POST", "")] {
                let end = if body.is_empty() { "\r\n" } else { body };
                let mut client = Raw::connect(proxy).await.unwrap();
                let head = format!("{method} /heads HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{key}{end}");
                client.say(head.as_bytes()).await.unwrap();
                let said = String::from_utf8(client.rest().await.unwrap()).unwrap();
                let (_, heads) = said.split_once("\r\n\r\n").unwrap();
                let of = |name: &str| heads.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                let name = format!("{is_http2} {method} {body:?}");
                let is_chunked = body.starts_with("transfer") && !is_http2;
                assert_eq!(of("transfer-encoding"), is_chunked.then_some("chunked"), "{name}: {said}");
                // hyper says that a POST has no body, and needs not say it of a GET.
                let found = of("content-length").filter(|length| *length != "0");
                assert_eq!(found, length.filter(|length| *length != "0"), "{name}: {said}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_answers_a_get_of_its_own_path_only_where_it_is_discoverable() {
    const KNOWN: &str = "/.well-known/idempotency";
    let address = Service::default().start().await;
    for is_discoverable in [true, false] {
        let layer = if is_discoverable { layer().discoverable(["/orders"]) } else { layer() };
        let proxy = proxy(layer, address).await;
        for (method, path, is_own) in [
            (Method::GET, KNOWN, is_discoverable),
            (Method::GET, "/.well-known/idempotency?a=b", is_discoverable),
            (Method::POST, KNOWN, false),
            (Method::DELETE, KNOWN, false),
            (Method::GET, "/.well-known/idempotency/", false),
            (Method::GET, "/.well-known", false),
        ] {
            let answer = send_call(proxy, &Call { method, ..Call::get(path) }).await;
            // The service has no such path.
            assert_eq!(answer.status.as_u16(), if is_own { 200 } else { 404 }, "{is_discoverable} {answer:?}");
        }
    }
}

/// What a script of this origin may read of an answer.
fn allowed(answer: &Answer) -> (Option<&str>, Option<&str>) {
    (answer.header("access-control-allow-origin"), answer.header("access-control-allow-credentials"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_answers_cors_does_so_for_first_answers_replays_refusals_and_preflights() {
    const SHOP: &str = "https://shop.example";
    let service = Service::default();
    let layer = layer().max_request_body(100);
    let headers = layer.cors_headers();
    let cors = CorsLayer::new()
        .allow_origin([SHOP.parse().unwrap(), "https://app.example".parse().unwrap()])
        .allow_credentials(true)
        .allow_headers(headers.allow)
        .expose_headers(headers.expose);
    let upstream = Upstream::new(format!("http://{}", service.start().await).parse().unwrap()).unwrap();
    let proxy = serve(Proxy::new(layer, upstream).cors(cors)).await;
    let order = |key: &str, origin: &str, body: &str| {
        Call::post("/orders", body).header("idempotency-key", key).header("origin", origin)
    };
    let long = "a".repeat(101);
    for (key, body, status, is_replay) in [
        ("k", "201", 201, false),
        ("k", "201", 201, true),
        ("k", "other", 422, false),
        ("long", &*long, 413, false),
        ("unsure", "200 unsure", 200, false),
        ("unsure", "200 unsure", 409, false),
        ("free", "503 release", 503, false),
    ] {
        for origin in [SHOP, "https://app.example"] {
            let answer = send_call(proxy, &order(&format!("{key}-{origin}"), origin, body)).await;
            assert_eq!(allowed(&answer), (Some(origin), Some("true")), "{key} {body}: {answer:?}");
            assert_eq!((answer.status.as_u16(), answer.is_replay()), (status, is_replay), "{key} {body}");
            let exposed = answer.header("access-control-expose-headers").unwrap();
            assert!(exposed.contains("idempotent-replayed") && exposed.contains("idempotency-effect"), "{exposed}");
        }
        let stranger = send_call(proxy, &order(&format!("{key}-stranger"), "https://evil.example", "201")).await;
        assert_eq!(allowed(&stranger).0, None, "{key}");
    }
    let runs = service.keys().len();
    let preflight = Call { method: Method::OPTIONS, ..Call::get("/orders") }.header("origin", SHOP);
    let preflight = preflight.header("access-control-request-method", "POST");
    let preflight = send_call(proxy, &preflight.header("access-control-request-headers", "idempotency-key")).await;
    assert_eq!((preflight.status.as_u16(), allowed(&preflight)), (200, (Some(SHOP), Some("true"))));
    assert_eq!(preflight.header("access-control-allow-headers"), Some("idempotency-key,idempotency-probe"));
    assert_eq!(service.keys().len(), runs, "the service is not asked");
}
