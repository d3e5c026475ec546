//! reqwest-retry outside of the layer: it repeats safe requests, and no call of the layer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use http::StatusCode;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_retry::policies::ExponentialBackoff;
use reqwest_retry::{RetryTransientMiddleware, Retryable, RetryableStrategy};
use testkit::proxy::Way;
use tokio::sync::Notify;
use tower_idempotency::{IdempotencyLayer, MemoryStore, OnInFlight};
use tower_idempotency_client::{Delivery, Error, KeyedStrategy, Known, Reason};

use crate::reqwest::without_redirects;
use crate::server::{charging, cut, quick, serve};

fn policy() -> ExponentialBackoff {
    let bound = Duration::from_millis(1);
    ExponentialBackoff::builder().retry_bounds(bound, bound).build_with_max_retries(3)
}

fn retrying(strategy: impl RetryableStrategy + Send + Sync + 'static) -> ClientWithMiddleware {
    ClientBuilder::new(without_redirects())
        .with(RetryTransientMiddleware::new_with_policy_and_strategy(policy(), strategy))
        .with(quick().without_redirects())
        .build()
}

/// A server whose charges always end with 500, after they have been booked.
async fn failing() -> (String, Arc<AtomicUsize>) {
    let charges = Arc::new(AtomicUsize::new(0));
    let counted = charges.clone();
    let charge = move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async { StatusCode::INTERNAL_SERVER_ERROR }
    };
    let app = Router::new().route("/charges", post(charge)).route_layer(IdempotencyLayer::new(MemoryStore::new()));
    (format!("http://{}/charges", serve(app).await), charges)
}

#[tokio::test]
async fn a_recorded_500_is_final() {
    let (url, charges) = failing().await;
    for attempts in 1..=2 {
        let call = retrying(KeyedStrategy::new()).post(&url).header("idempotency-key", "order-17").body("amount=5");
        let answer = call.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let delivery = answer.extensions().get::<Delivery>().unwrap();
        assert_eq!((delivery.attempts(), delivery.is_replay()), (1, attempts == 2));
    }
    assert_eq!(charges.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn with_its_default_strategy_a_failed_charge_is_repeated_with_new_keys() {
    let (url, charges) = failing().await;
    retrying(reqwest_retry::DefaultRetryableStrategy).post(&url).body("amount=5").send().await.unwrap();
    assert_eq!(charges.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_409_in_flight_is_retried_until_the_charge_has_ended() {
    let (began, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begins, waits) = (began.clone(), go_on.clone());
    let charge = move || {
        let (begins, waits) = (begins.clone(), waits.clone());
        async move {
            begins.notify_one();
            waits.notified().await;
            "charge 1"
        }
    };
    let layer = IdempotencyLayer::new(MemoryStore::new()).on_in_flight(OnInFlight::Reject);
    // The charge ends after the first conflict.
    let ends = move |answer: axum::response::Response| {
        if answer.status() == StatusCode::CONFLICT {
            go_on.notify_one();
        }
        async move {
            let (mut head, body) = answer.into_parts();
            head.headers.remove("retry-after");
            axum::response::Response::from_parts(head, body)
        }
    };
    let app =
        Router::new().route("/charges", post(charge)).route_layer(layer).layer(axum::middleware::map_response(ends));
    let url = format!("http://{}/charges", serve(app).await);
    let call = |url: &str| {
        let call = retrying(KeyedStrategy::new()).post(url).header("idempotency-key", "order-17").body("amount=5");
        tokio::spawn(call.send())
    };
    let first = call(&url);
    began.notified().await;
    let second = call(&url).await.unwrap().unwrap();
    assert!(second.extensions().get::<Delivery>().unwrap().attempts() > 1);
    assert_eq!(second.text().await.unwrap(), "charge 1");
    assert_eq!(first.await.unwrap().unwrap().text().await.unwrap(), "charge 1");
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_by_the_layer_and_an_error_is_found_within() {
    let (server, charges) = charging().await;
    let (proxy, cut) = cut(server).await;
    *cut.lock().unwrap() = Some((Way::Response, 0));
    let url = format!("http://{}/charges", proxy.address());
    let answer = retrying(KeyedStrategy::new()).post(&url).body("amount=5").send().await.unwrap();
    assert!(answer.extensions().get::<Delivery>().unwrap().is_replay());
    assert_eq!(charges.load(Ordering::SeqCst), 1);
    // The layer's error is final, too, whatever the other strategy says.
    struct Always;
    impl RetryableStrategy for Always {
        fn handle(&self, _: &reqwest_middleware::Result<reqwest::Response>) -> Option<Retryable> {
            Some(Retryable::Transient)
        }
    }
    let strategy = KeyedStrategy::with_others(Always);
    let once = ClientBuilder::new(without_redirects())
        .with(RetryTransientMiddleware::new_with_policy_and_strategy(policy(), strategy))
        .with(quick().without_redirects().backoff(ExponentialBackoff::builder().build_with_max_retries(0)))
        .build();
    *cut.lock().unwrap() = Some((Way::Response, 0));
    let failed = once.post(&url).body("amount=5").send().await.unwrap_err();
    let error = Error::within(&failed).unwrap();
    assert_eq!((error.known(), error.reason(), error.attempts()), (Known::Unknown, Reason::Backoff, 1));
    assert_eq!(charges.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn requests_with_a_safe_method_are_left_to_the_other_strategy() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let busy = move || {
        let is_first = counted.fetch_add(1, Ordering::SeqCst) == 0;
        async move { if is_first { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK } }
    };
    let url = format!("http://{}/", serve(Router::new().route("/", get(busy))).await);
    let answer = retrying(KeyedStrategy::default()).get(&url).send().await.unwrap();
    assert_eq!((answer.status(), asked.load(Ordering::SeqCst)), (StatusCode::OK, 2));
    // Three retries, and no error of the layer's.
    let failed = retrying(KeyedStrategy::new()).get("http://127.0.0.1:9/").send().await.unwrap_err();
    assert!(failed.to_string().contains("3 retries"), "{failed}");
    assert!(Error::within(&failed).is_none());
}
