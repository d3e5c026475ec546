//! Requests of strangers, who try all that they can with another client's key.

use std::collections::BTreeSet;

use axum::body::Body;
use http::header::HeaderName;
use http::{HeaderValue, Request};
use tokio::time::Instant;
use tower_idempotency::engine::{Reconciled, Reconciler};
use tower_idempotency::store::Store;
use tower_idempotency::{FingerprintBody, IdempotencyLayer, OnInFlight};

use super::app::{Lab, keyed, post};
use super::time::HOUR;
use crate::Answer;

/// The request of the client that owns the key: `post("k", "a")`, by Alice.
pub fn alice() -> Request<Body> {
    by("Bearer alice", post("k", "a"))
}

/// A request with these credentials.
pub fn by(authorization: &'static str, mut request: Request<Body>) -> Request<Body> {
    request.headers_mut().insert("authorization", HeaderValue::from_static(authorization));
    request
}

/// A layer whose duplicates wait for an hour.
pub fn patient<St: Store + Clone>(store: &St) -> IdempotencyLayer<St> {
    IdempotencyLayer::new(store.clone()).on_in_flight(OnInFlight::Wait(HOUR))
}

/// Leaves Alice's operation interrupted.
pub async fn interrupted<St: Store + Clone>(store: &St) {
    let lab = Lab::new(patient(store), |number| async move {
        assert_eq!(number, 0, "it panics");
        "never"
    });
    lab.send(alice()).await.assert_refusal(500, "outcome-unknown", false, None);
}

/// Finds an answer for each operation that it is asked about.
pub fn found() -> Reconciler<http::Response<String>> {
    Reconciler::new(|_| async { Reconciled::Outcome(http::Response::new("found".to_owned())) })
}

/// Alice's request, sent by others, and other requests with her key: all the tries that a stranger has.
fn tries() -> Vec<Request<Body>> {
    let with = |method: &str, uri: &str, kind: &str, body: &'static str| {
        keyed(method, uri, "k").header("content-type", kind).body(Body::from(body)).expect("a valid request")
    };
    let requests = || {
        let mut host = post("k", "a");
        host.headers_mut().insert("host", HeaderValue::from_static("other.example"));
        [
            post("k", "a"),
            post("k", "b"),
            post("k", ""),
            keyed("PATCH", "/charges", "k").body("a".into()).expect("a valid request"),
            with("POST", "/refunds", "text/plain", "a"),
            with("POST", "/charges?amount=1", "text/plain", "a"),
            with("POST", "/charges", "application/json", "{}"),
            host,
        ]
    };
    let mut both = post("k", "a");
    both.headers_mut().append("authorization", HeaderValue::from_static("Bearer alice"));
    both.headers_mut().append("authorization", HeaderValue::from_static("Bearer bob"));
    let bob = requests().map(|request| by("Bearer bob", request));
    bob.into_iter().chain(requests()).chain([both]).collect()
}

/// The bytes of an answer that a client sees.
fn bytes(answer: &Answer) -> String {
    format!("{} {:?} {:?} {:?}", answer.status, answer.headers, answer.body, answer.trailers)
}

/// Lets strangers try everything on layers with these options and with others, by the paused clock, and returns what
/// they see.
pub async fn strangers<St: Store>(layer: &IdempotencyLayer<St>) -> BTreeSet<String> {
    let acme = || [HeaderName::from_static("acme-caller")];
    let layers = [
        layer.clone(),
        layer.clone().fingerprint_headers(acme()),
        layer.clone().fingerprint_body(FingerprintBody::CanonicalJson),
        layer.clone().credential_headers(acme()),
        layer.clone().credential_cookies(["sid"]),
    ];
    let mut seen = BTreeSet::new();
    for layer in layers {
        let lab = Lab::counting(layer);
        for request in tries() {
            let began = Instant::now();
            let answer = lab.send(request).await;
            answer.assert_refusal(422, "credentials-changed", false, None);
            assert_eq!(began.elapsed().as_millis(), 0, "of the paused clock: it did not wait");
            seen.insert(bytes(&answer));
        }
        assert_eq!(lab.effects(), 0);
    }
    seen
}
