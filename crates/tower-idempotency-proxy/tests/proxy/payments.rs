//! A service behind the proxy that wants a payment first (x402, and the scheme `Payment`): one order, one payment, also
//! if the answer is lost and the client pays anew.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use http::StatusCode;
use testkit::{Answer, Call};
use tokio::net::TcpListener;
use tower_idempotency::OnInterrupted;

use crate::service::{layer, proxy, send_call};

/// How the service asks, where the payment is then, what is before it, and how the service says that it has taken it.
const PROTOCOLS: [((&str, &str), &str, &str, &str); 3] = [
    (("payment-required", "e30="), "payment-signature", "", "payment-response"),
    (("payment-required", "e30="), "x-payment", "", "x-payment-response"),
    (("www-authenticate", "Payment id=\"a\""), "authorization", "Payment ", "payment-receipt"),
];

/// Starts the service. Returns its address, and the payments that it has taken.
async fn shop(
    (asks, header, scheme, receipt): ((&'static str, &'static str), &'static str, &'static str, &'static str),
) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let taken = Arc::<Mutex<Vec<_>>>::default();
    let noted = Arc::clone(&taken);
    let order = async move |request: Request| -> Response {
        let value = request.headers().get(header).and_then(|value| value.to_str().ok());
        match value.and_then(|value| value.strip_prefix(scheme)) {
            None => (StatusCode::PAYMENT_REQUIRED, [asks]).into_response(),
            // The effect is there before the payment is settled.
            Some("bounces") => (StatusCode::PAYMENT_REQUIRED, [asks, (receipt, "no")]).into_response(),
            Some(payment) => {
                noted.lock().unwrap().push(payment.to_owned());
                (StatusCode::CREATED, [(receipt, payment.to_owned())], "made").into_response()
            }
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, app) = (listener.local_addr().unwrap(), Router::new().route("/orders", post(order)));
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (address, taken)
}

// Seeded fault: the 402 that asks is recorded.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_paid_for_after_a_402_takes_one_payment_though_its_answer_is_lost() {
    for protocol @ (_, header, scheme, receipt) in PROTOCOLS {
        for policy in [OnInterrupted::Refuse, OnInterrupted::Rerun] {
            let (service, taken) = shop(protocol).await;
            let proxy = proxy(layer().on_interrupted(policy), service).await;
            let pay = async |key: &str, payment: Option<&str>| -> Answer {
                let call = Call::post("/orders", "book").header("idempotency-key", key);
                let value = payment.map(|payment| format!("{scheme}{payment}"));
                let call = match &value {
                    Some(value) => call.header(header, value),
                    None => call,
                };
                send_call(proxy, &call).await
            };
            for _ in 0..2 {
                let asked = pay("k", None).await;
                assert_eq!((asked.status.as_u16(), asked.header("idempotency-effect")), (402, Some("none")));
            }
            let made = pay("k", Some("one")).await;
            assert_eq!((made.status.as_u16(), made.is_replay()), (201, false), "{protocol:?}");
            // The client has not seen it, and pays anew.
            for payment in [Some("two"), Some("one"), None] {
                let replay = pay("k", payment).await;
                assert_eq!((replay.status.as_u16(), replay.is_replay()), (201, true), "{protocol:?} {payment:?}");
                assert_eq!(replay.header(receipt), Some("one"), "{protocol:?} {payment:?}");
            }
            assert_eq!(*taken.lock().unwrap(), ["one"], "{protocol:?}");
            // A 402 that says what became of a payment is the outcome.
            assert_eq!(pay("bounced", Some("bounces")).await.header("idempotency-effect"), None);
            let again = pay("bounced", Some("two")).await;
            assert_eq!((again.status.as_u16(), again.is_replay()), (402, true), "{protocol:?}");
            assert_eq!(*taken.lock().unwrap(), ["one"], "{protocol:?}");
        }
    }
}
