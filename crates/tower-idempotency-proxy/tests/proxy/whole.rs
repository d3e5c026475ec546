//! The whole proxy: two ports, and an end in good order.

use std::net::SocketAddr;

use testkit::process::until;
use testkit::{Call, Connection};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tower_idempotency_proxy::{Proxy, Upstream, recorder};

use crate::service::{Service, Stream, layer, send, send_call};

async fn bound() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_on_two_ports_and_ends_after_what_is_under_way() {
    let service = Service::default();
    let origin = format!("http://{}", service.start().await).parse().unwrap();
    let ((listen, address), (monitor, of_monitor)) = (bound().await, bound().await);
    let (stop, stopping) = oneshot::channel::<()>();
    let layer = layer().discoverable(["/orders"]);
    let proxy = Proxy::new(layer, Upstream::new(origin).unwrap());
    let proxy = proxy.admin_token("s3cret").monitor_host("Metrics.internal");
    let serving = tokio::spawn(proxy.serve(listen, monitor, recorder().unwrap(), async { drop(stopping.await) }));

    send(address, "k", "book").await;
    assert!(send(address, "k", "book").await.is_replay());
    let http2 = Connection::http2(address).await.unwrap().send(&Call::post("/orders", "book")).await.unwrap();
    assert_eq!(http2.status.as_u16(), 201);
    let discovered = send_call(address, &Call::get("/.well-known/idempotency")).await.json();
    assert_eq!(discovered["routes"][0], "/orders");

    // The second port has what the first one has not.
    let monitored = async |path: &str| send_call(of_monitor, &Call::operator(path)).await;
    assert_eq!(monitored("/readyz").await.json()["ready"], true);
    assert_eq!(monitored("/livez").await.status.as_u16(), 200);
    let metrics = monitored("/metrics").await;
    assert!(metrics.text().contains("idempotency_requests_total{outcome=\"replayed\"} 1\n"), "{}", metrics.text());
    assert_eq!(send_call(address, &Call::get("/metrics")).await.status.as_u16(), 404);
    // No page of another host leads a browser here, not even to what has no secrets.
    for path in ["/metrics", "/readyz", "/livez", "/admin"] {
        let of = async |host: &str| send_call(of_monitor, &Call::get(path).header("host", host)).await.status.as_u16();
        assert_eq!((of("evil.example").await, of("pay.example:9090").await), (421, 421), "{path}");
        let known = if path == "/admin" { 404 } else { 200 };
        assert_eq!((of("metrics.internal:9090").await, of("[::ffff:192.0.2.7]:80").await), (known, known), "{path}");
    }
    // The page is for this machine, by a name of this machine, and with the token.
    let page = |authorization: &str| Call::operator("/admin").header("authorization", authorization);
    assert_eq!(send_call(of_monitor, &page("Bearer s3cret")).await.status.as_u16(), 200);
    // `anyone:s3cret`, as a browser sends it.
    assert_eq!(send_call(of_monitor, &page("Basic YW55b25lOnMzY3JldA==")).await.status.as_u16(), 200);
    for wrong in ["Bearer s3cre", "Bearer s3cret2", "Basic czNjcmV0", "Basic ?", "s3cret"] {
        let refused = send_call(of_monitor, &page(wrong)).await;
        assert_eq!((refused.status.as_u16(), refused.header("www-authenticate").is_some()), (401, true), "{wrong}");
    }
    assert_eq!(send_call(of_monitor, &Call::operator("/admin")).await.status.as_u16(), 401);
    let behind = page("Bearer s3cret").header("x-forwarded-for", "192.0.2.1");
    assert_eq!(send_call(of_monitor, &behind).await.status.as_u16(), 404, "through another proxy");

    // A run that is under way is finished, and recorded; and so is what has no key.
    let mut stream = Stream::begin(address, "first").await;
    let client = tokio::spawn(async move { send(address, "slow", "waits").await });
    service.gate.arrival().await;
    stop.send(()).unwrap();
    until("it is not ready", async || {
        Connection::http1(of_monitor).await.unwrap().send(&Call::operator("/readyz")).await.unwrap().status == 503
    })
    .await;
    service.gate.open();
    assert_eq!(client.await.unwrap().status.as_u16(), 201);
    until("no connection is accepted", async || Connection::http1(address).await.is_err()).await;
    stream.echo("second").await;
    stream.end().await;
    let stopped = serving.await.unwrap();
    assert!(stopped.is_clean(), "{stopped:?}");
}
