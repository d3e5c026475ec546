//! Customers, who pay one order after the other, through the client's layer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use retry_policies::policies::ExponentialBackoff;
use tower::retry::budget::TpsBudget;
use tower::{Layer as _, ServiceExt as _};
use tower_idempotency_client::{Delivery, Key, KeyedRetryLayer, Known};

use crate::alien::Alien;
use crate::bank::{Charge, Order};
use crate::counts::{Belief, Payment, key};

/// The client's layer: it does not wait long, because this is a demonstration.
pub(crate) fn layer() -> KeyedRetryLayer {
    let bounds = (Duration::from_millis(50), Duration::from_millis(400));
    let backoff = ExponentialBackoff::builder().retry_bounds(bounds.0, bounds.1).build_with_max_retries(u32::MAX);
    KeyedRetryLayer::new()
        .attempt_timeout(Duration::from_millis(800))
        .deadline(Duration::from_secs(5))
        .backoff(backoff)
        .budget(TpsBudget::new(Duration::from_secs(10), 10_000, 1.0))
}

/// One customer of one side.
#[derive(Debug, Clone)]
pub(crate) struct Customer {
    pub(crate) number: u32,
    pub(crate) alien: Alien,
    pub(crate) layer: KeyedRetryLayer,
}

impl Customer {
    /// Pays order after order while `goes_on`. Returns the payments of which nothing certain is known.
    pub(crate) async fn pay_while(self, goes_on: impl Fn() -> bool) -> (Self, Vec<Payment>) {
        let mut unknown = Vec::new();
        let mut order = 0;
        while goes_on() {
            order += 1;
            let payment = Payment { customer: self.number, order, attempts: Arc::new(AtomicU32::new(0)) };
            self.alien.story.counts(self.alien.side).payments.fetch_add(1, Ordering::Relaxed);
            if matches!(self.pay(&payment).await, Belief::Unknown(_)) {
                unknown.push(payment);
            }
        }
        (self, unknown)
    }

    /// Asks again with the same key, until there is an answer, a few times.
    pub(crate) async fn ask_again(&self, payment: &Payment) {
        for _ in 0..5 {
            if !matches!(self.pay(payment).await, Belief::Unknown(_)) {
                break;
            }
        }
    }

    async fn pay(&self, payment: &Payment) -> Belief {
        let belief = self.ask(payment).await;
        self.alien.story.believe(self.alien.side, payment, belief.clone());
        belief
    }

    async fn ask(&self, payment: &Payment) -> Belief {
        let order = key(self.alien.seed, payment.customer, payment.order);
        let Ok(key) = Key::new(order.clone()) else { return Belief::Refused("no key".to_owned()) };
        let order = Order { order, amount: 100 + payment.order };
        let body = Bytes::from(serde_json::to_vec(&order).unwrap_or_default());
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = http::Uri::from_static("/charges");
        request.headers_mut().insert("host", http::HeaderValue::from_static("pay.example"));
        request.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
        request.extensions_mut().insert(payment.clone());
        request.extensions_mut().insert(key);
        match self.layer.layer(self.alien.clone()).oneshot(request).await {
            Ok(answer) => {
                let (status, delivery) = (answer.status(), Delivery::of(&answer).cloned());
                let is_replay = delivery.as_ref().is_some_and(Delivery::is_replay);
                self.alien.story.counts(self.alien.side).replayed.fetch_add(u64::from(is_replay), Ordering::Relaxed);
                let body = answer.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                match serde_json::from_slice::<Charge>(&body) {
                    Ok(charge) if status.is_success() => Belief::Acknowledged(charge),
                    _ if delivery.is_some_and(|delivery| delivery.is_unknown()) => Belief::Unknown(status.to_string()),
                    _ => Belief::Refused(status.to_string()),
                }
            }
            Err(error) => match error.known() {
                Known::NotSent | Known::Refused => Belief::Refused(error.to_string()),
                _ => Belief::Unknown(error.to_string()),
            },
        }
    }
}
