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
    let serving = tokio::spawn(proxy.serve(listen, monitor, recorder().unwrap(), async { drop(stopping.await) }));

    send(address, "k", "book").await;
    assert!(send(address, "k", "book").await.is_replay());
    let http2 = Connection::http2(address).await.unwrap().send(&Call::post("/orders", "book")).await.unwrap();
    assert_eq!(http2.status.as_u16(), 201);
    let discovered = send_call(address, &Call::get("/.well-known/idempotency")).await.json();
    assert_eq!(discovered["routes"][0], "/orders");

    // The second port has what the first one has not.
    let monitored = async |path: &str| send_call(of_monitor, &Call::get(path)).await;
    assert_eq!(monitored("/readyz").await.json()["ready"], true);
    assert_eq!(monitored("/livez").await.status.as_u16(), 200);
    let metrics = monitored("/metrics").await;
    assert!(metrics.text().contains("idempotency_requests_total{outcome=\"replayed\"} 1\n"), "{}", metrics.text());
    assert_eq!(send_call(address, &Call::get("/metrics")).await.status.as_u16(), 404);
    // The page is for this machine, by a name of this machine.
    assert_eq!(send_call(of_monitor, &Call::operator("/admin")).await.status.as_u16(), 200);
    assert_eq!(monitored("/admin").await.status.as_u16(), 404, "by the name pay.example");
    let behind = Call::operator("/admin").header("x-forwarded-for", "192.0.2.1");
    assert_eq!(send_call(of_monitor, &behind).await.status.as_u16(), 404, "through another proxy");

    // A run that is under way is finished, and recorded; and so is what has no key.
    let mut stream = Stream::begin(address, "first").await;
    let client = tokio::spawn(async move { send(address, "slow", "waits").await });
    service.gate.arrival().await;
    stop.send(()).unwrap();
    until("it is not ready", async || {
        Connection::http1(of_monitor).await.unwrap().send(&Call::get("/readyz")).await.unwrap().status == 503
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
