//! A payment that is asked for first (x402, and the scheme `Payment`): the 402 that asks frees the key, the paid
//! request runs once, and a second payment after a lost answer is not taken.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use axum::routing;
use http::StatusCode;
use testkit::Answer;
use testkit::lab::{Lab, keyed, layer, rerun};
use tower_idempotency::{IdempotencyLayer, MemoryStore, OnInterrupted};

/// How an API asks for a payment, and where the payment is then.
type Protocol = ((&'static str, &'static str), &'static str, &'static str);

const PROTOCOLS: [Protocol; 4] = [
    (("payment-required", "e30="), "payment-signature", ""),
    (("payment-required", "e30="), "x-payment", ""),
    (("www-authenticate", "Payment id=\"a\", realm=\"x\""), "authorization", "Payment "),
    (("www-authenticate", "Bearer realm=\"x\", payment id=\"a\""), "authorization", "PAYMENT  "),
];

/// A service that wants a payment before it does its work, and the payments that it has taken.
#[derive(Clone, Default)]
struct Shop(Arc<Mutex<Vec<String>>>);

impl Shop {
    fn answer(&self, request: &Request, (asks, header, scheme): Protocol) -> Response {
        let value = request.headers().get(header).and_then(|value| value.to_str().ok());
        let payment = value.and_then(|value| value.strip_prefix(scheme)).map(str::to_owned);
        match payment {
            None => (StatusCode::PAYMENT_REQUIRED, [asks]).into_response(),
            Some(payment) if payment == "declined" => (StatusCode::PAYMENT_REQUIRED, "declined").into_response(),
            Some(payment) => {
                self.0.lock().unwrap().push(payment.clone());
                ([("payment-response", payment)], "paid").into_response()
            }
        }
    }

    fn lab(&self, layer: IdempotencyLayer<MemoryStore>, protocol: Protocol) -> Lab {
        let shop = self.clone();
        let charge = routing::post(async move |request: Request| shop.answer(&request, protocol));
        Lab::of(Router::new().route("/charges", charge).route_layer(layer))
    }
}

async fn pay(lab: &Lab, key: &str, header: &str, value: Option<String>) -> Answer {
    let request = keyed("POST", "/charges", key);
    let request = value.into_iter().fold(request, |request, value| request.header(header, value));
    lab.send(request.body("a".into()).unwrap()).await
}

// Seeded faults: the 402 that asks is recorded; the payment is compared as a credential.
#[tokio::test]
async fn a_request_that_is_paid_for_after_a_402_is_one_operation_and_takes_one_payment() {
    for protocol @ (_, header, scheme) in PROTOCOLS {
        for layer in [layer(), rerun()] {
            let shop = Shop::default();
            let lab = shop.lab(layer, protocol);
            let payment = |payment: &str| Some(format!("{scheme}{payment}"));
            for key in ["paid", "declined"] {
                for _ in 0..2 {
                    let asked = pay(&lab, key, header, None).await;
                    assert_eq!((asked.status.as_u16(), asked.header("idempotency-effect")), (402, Some("none")));
                }
            }
            assert_eq!(pay(&lab, "paid", header, payment("one")).await.text(), "paid", "{protocol:?}");
            // The answer is lost. The client sends the same payment again, then another one, then none.
            for again in [payment("one"), payment("two"), None] {
                let replay = pay(&lab, "paid", header, again).await;
                assert_eq!((replay.text(), replay.is_replay()), ("paid", true), "{protocol:?}");
                assert_eq!(replay.header("payment-response"), Some("one"), "{protocol:?}");
            }
            assert_eq!(*shop.0.lock().unwrap(), ["one"], "{protocol:?}");
            assert_eq!(pay(&lab, "declined", header, payment("declined")).await.text(), "declined");
            let again = pay(&lab, "declined", header, payment("other")).await;
            assert_eq!((again.text(), again.is_replay()), ("declined", true), "a plain 402 is an outcome");
        }
    }
}

/// Whether an answer with this status and these headers frees the key.
async fn frees(status: u16, headers: &'static [(&'static str, &'static str)]) -> bool {
    let lab = Lab::new(layer(), move |_| async move {
        let answer = headers.iter().fold(Response::builder(), |answer, (name, value)| answer.header(*name, *value));
        answer.status(status).body(axum::body::Body::empty()).unwrap()
    });
    for _ in 0..2 {
        lab.post("k", "a").await;
    }
    lab.effects() == 2
}

// Seeded faults, one for each part of the rule: a challenge that is not the first is not seen; a quoted comma begins
// another; a parameter is taken for a scheme; what became of a payment does not count.
#[tokio::test]
async fn a_402_frees_the_key_if_it_asks_for_a_payment_and_is_an_outcome_if_it_says_what_became_of_one() {
    for (headers, expected) in [
        (&[("payment-required", "e30=")][..], true),
        (&[("payment-required", "")], true),
        (&[("www-authenticate", "Payment realm=\"x\"")], true),
        (&[("www-authenticate", "payment\trealm=\"x\"")], true),
        (&[("www-authenticate", "Payment")], true),
        (&[("www-authenticate", "Bearer"), ("www-authenticate", "Payment a=b")], true),
        (&[("www-authenticate", "Bearer realm=\"x, y\", Payment a=b")], true),
        (&[("www-authenticate", "Bearer realm=\"x\",Payment a=b")], true),
        (&[("www-authenticate", r#"Bearer realm="x \" y", Payment a=b"#)], true),
        (&[], false),
        (&[("www-authenticate", "Bearer realm=\"x\"")], false),
        (&[("www-authenticate", "Bearer realm=\"x, Payment a\"")], false),
        (&[("www-authenticate", "Bearer a=b, payment=\"x\"")], false),
        (&[("www-authenticate", "Bearer a=b, payment = \"x\"")], false),
        (&[("www-authenticate", "Payments a=b")], false),
        (&[("www-authenticate", "")], false),
        (&[("payment", "e30=")], false),
        (&[("payment-required", "e30="), ("payment-response", "e30=")], false),
        (&[("payment-required", "e30="), ("x-payment-response", "e30=")], false),
        (&[("www-authenticate", "Payment a=b"), ("payment-receipt", "e30=")], false),
    ] {
        assert_eq!(frees(402, headers).await, expected, "{headers:?}");
    }
    for status in [200, 400, 404, 422, 500] {
        assert!(!frees(status, &[("payment-required", "e30="), ("www-authenticate", "Payment a=b")]).await, "{status}");
    }
}

// Seeded faults: any `Authorization` is left out; a payment is compared; a scope is made of it.
#[tokio::test]
async fn a_payment_says_nothing_of_who_asks_and_other_credentials_do() {
    let shop = Shop::default();
    let lab = shop.lab(layer(), PROTOCOLS[2]);
    let send = |key: &str, lines: &[&str]| {
        let request = keyed("POST", "/charges", key).header("x-api-key", "alice");
        let request = lines.iter().fold(request, |request, line| request.header("authorization", *line));
        lab.send(request.body("a".into()).unwrap())
    };
    assert_eq!(send("k", &["Payment one"]).await.text(), "paid");
    for same in [&["Payment two"][..], &["payment two"], &[], &["Payment"], &["Payment two", "payment three"]] {
        assert!(send("k", same).await.is_replay(), "{same:?}");
    }
    for other in [&["Bearer t"][..], &["Payments two"], &["Payment two", "Bearer t"], &["Payment=two"]] {
        assert_eq!(send("k", other).await.problem(), "credentials-changed", "{other:?}");
    }
    let stranger = keyed("POST", "/charges", "k").header("x-api-key", "bob").header("authorization", "Payment one");
    assert_eq!(lab.send(stranger.body("a".into()).unwrap()).await.problem(), "credentials-changed");
    let scope = |line: &str| {
        let request = keyed("POST", "/charges", "k").header("authorization", line).header("signature", "s");
        layer().scope_of_credentials(&request.body(()).unwrap().into_parts().0)
    };
    assert_eq!((scope("Payment one"), scope("Bearer t").is_some()), (None, true));
}

#[tokio::test]
async fn a_paid_run_that_was_interrupted_is_unknown_and_takes_no_second_payment() {
    let layer = layer().on_interrupted(OnInterrupted::Refuse);
    let lab = Lab::new(layer, |_| async { (StatusCode::BAD_GATEWAY, [("payment-required", "e30=")]) });
    assert_eq!(lab.post("k", "a").await.status, 502);
    assert_eq!(lab.post("k", "a").await.problem(), "outcome-unknown");
    assert_eq!(lab.effects(), 1);
}
