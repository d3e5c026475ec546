//! Servers on loopback, and hyper-util's client over connections that break: our layer is behind them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use retry_policies::policies::ExponentialBackoff;
use testkit::proxy::{Cut, Proxy, Way};
use tokio::net::TcpListener;
use tower::{Layer as _, ServiceExt as _};
use tower_http::follow_redirect::FollowRedirect;
use tower_http::follow_redirect::policy::{PolicyExt as _, Standard, clone_body_fn};
use tower_idempotency::{IdempotencyLayer, MemoryStore};
use tower_idempotency_client::{Delivery, Error, KeyedRetry, KeyedRetryLayer, Known, Reason};

/// A server on a port of its own.
pub(crate) async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind((testkit::dice::loopback(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

/// A server that charges, behind our layer, and counts its charges.
pub(crate) async fn charging() -> (SocketAddr, Arc<AtomicUsize>) {
    let charges = Arc::new(AtomicUsize::new(0));
    let counted = charges.clone();
    let charge = move || {
        let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
        async move { (StatusCode::CREATED, format!("charge {number}")) }
    };
    let app = Router::new().route("/charges", post(charge)).route_layer(IdempotencyLayer::new(MemoryStore::new()));
    (serve(app).await, charges)
}

/// Where the next connection breaks.
pub(crate) type Place = Arc<Mutex<Option<(Way, usize)>>>;

/// The way to a server on which one connection after the other breaks where the test says, and all others hold.
pub(crate) async fn cut(server: SocketAddr) -> (Proxy, Place) {
    let cut = Place::default();
    let next = cut.clone();
    let proxy = Proxy::to(server, move |_| Some(Cut::new(next.lock().unwrap().take(), &Arc::default())));
    (proxy.await, cut)
}

/// A layer that waits a little, because the network is fast here.
pub(crate) fn quick() -> KeyedRetryLayer {
    let bounds = (Duration::from_millis(1), Duration::from_millis(20));
    let backoff = ExponentialBackoff::builder().retry_bounds(bounds.0, bounds.1).build_with_max_retries(20);
    KeyedRetryLayer::new().backoff(backoff).budget(tower::retry::budget::TpsBudget::new(bounds.1 * 500, 1000, 1.0))
}

type HyperClient = KeyedRetry<Client<HttpConnector, Full<Bytes>>>;

fn hyper(layer: &KeyedRetryLayer) -> HyperClient {
    // A connection for each attempt.
    layer.layer(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http())
}

fn charge(address: SocketAddr) -> Request<Full<Bytes>> {
    Request::post(format!("http://{address}/charges")).body(Full::new(Bytes::from("amount=5&currency=eur"))).unwrap()
}

#[tokio::test]
async fn a_connection_that_breaks_at_any_byte_charges_once() {
    let (server, charges) = charging().await;
    let (proxy, cut) = cut(server).await;
    let client = hyper(&quick());
    let (mut made, mut retried) = (0, 0);
    for (way, most) in [(Way::Request, 260), (Way::Response, 320)] {
        for at in 0..most {
            *cut.lock().unwrap() = Some((way, at));
            let answer = client.clone().oneshot(charge(proxy.address())).await.unwrap();
            made += 1;
            retried += usize::from(Delivery::of(&answer).unwrap().attempts() > 1);
            assert_eq!(answer.status(), StatusCode::CREATED);
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, format!("charge {made}"), "{way:?} {at}");
        }
    }
    assert_eq!(charges.load(Ordering::SeqCst), made);
    // A request and an answer have about 200 bytes: most cuts hit one, and the last ones none.
    assert!((200..made).contains(&retried), "{retried} of {made}");
}

// Seeded fault: the layer runs a probe.
#[tokio::test]
async fn a_lost_answer_is_found_by_a_probe_and_a_lost_request_stays_unknown() {
    let (server, charges) = charging().await;
    let (proxy, cut) = cut(server).await;
    let client = hyper(&quick().backoff(ExponentialBackoff::builder().build_with_max_retries(0)).with_probes());
    let (mut made, mut found) = (0, 0);
    for at in 0..320 {
        *cut.lock().unwrap() = Some((Way::Response, at));
        let answer = client.clone().oneshot(charge(proxy.address())).await.unwrap();
        made += 1;
        found += usize::from(Delivery::of(&answer).unwrap().is_replay());
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, format!("charge {made}"), "{at}");
    }
    // An answer has about 200 bytes: the last cuts hit none.
    assert!((100..made).contains(&found), "{found} of {made}");
    for at in 0..100 {
        *cut.lock().unwrap() = Some((Way::Request, at));
        let error = client.clone().oneshot(charge(proxy.address())).await.unwrap_err();
        assert_eq!(error.known(), Known::Unknown, "{at}: {error}");
    }
    assert_eq!(charges.load(Ordering::SeqCst), made);
}

#[tokio::test]
async fn without_the_layer_a_key_for_each_attempt_charges_twice() {
    let (server, charges) = charging().await;
    let (proxy, cut) = cut(server).await;
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
    *cut.lock().unwrap() = Some((Way::Response, 0));
    for attempt in 0..2 {
        let mut request = charge(proxy.address());
        request.headers_mut().insert("idempotency-key", format!("order-17-{attempt}").parse().unwrap());
        assert_eq!(client.clone().oneshot(request).await.is_ok(), attempt == 1);
    }
    assert_eq!(charges.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_request_without_a_connection_was_not_sent() {
    let listener = TcpListener::bind((testkit::dice::loopback(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let layer = quick().backoff(ExponentialBackoff::builder().build_with_max_retries(0));
    let error = hyper(&layer).oneshot(charge(address)).await.unwrap_err();
    assert_eq!((error.known(), error.reason(), error.attempts()), (Known::NotSent, Reason::Backoff, 1));
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_followed_outside() {
    let (charging, charges) = charging().await;
    let to = format!("http://{charging}/charges");
    let redirect = move || {
        let to = to.clone();
        async move { (StatusCode::TEMPORARY_REDIRECT, [("location", to)]) }
    };
    let here = serve(Router::new().route("/charges", post(redirect))).await;
    let answer = hyper(&quick()).oneshot(charge(here)).await.unwrap();
    assert_eq!((answer.status(), charges.load(Ordering::SeqCst)), (StatusCode::TEMPORARY_REDIRECT, 0));
    // The call to the other origin is one of its own, with a key of its own.
    let policy =
        Standard::default().or::<_, Full<Bytes>, Error>(clone_body_fn(|body: &Full<Bytes>| Some(body.clone())));
    let following = FollowRedirect::with_policy(hyper(&quick()), policy);
    let answer = following.oneshot(charge(here)).await.unwrap();
    assert_eq!((answer.status(), charges.load(Ordering::SeqCst)), (StatusCode::CREATED, 1));
}
