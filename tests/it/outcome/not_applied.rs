//! Answers that say that nothing was done: the operation can still be done under its key, elsewhere, later, or with
//! other credentials.

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use axum::routing;
use http::{HeaderMap, StatusCode};
use testkit::lab::disk::Disk;
use testkit::lab::{Lab, frames, keyed, layer, on_disk, post, rerun, with};
use testkit::{meanings, on_both};
use tower::ServiceExt as _;
use tower_idempotency::store::Store;
use tower_idempotency::{IdempotencyLayer, Meaning, OnInterrupted};

/// Answers with the status in the path to a request without credentials, and does the work for one that has them.
async fn service(request: Request) -> Response {
    let status: Option<StatusCode> = request.uri().path().trim_start_matches('/').parse().ok();
    match status {
        Some(status) if !request.headers().contains_key("authorization") => status.into_response(),
        _ => "done".into_response(),
    }
}

/// After an answer with each such status, the same key is good for another path, another body, and other credentials.
async fn the_key_is_free_for_a_request_that_differs<St: Store>(layer: impl Fn() -> IdempotencyLayer<St>) {
    let lab = Lab::of(Router::new().fallback(service).layer(layer()));
    for (status, row) in meanings::statuses() {
        if row.get("Refuse") != "not started" {
            continue;
        }
        let first = async || {
            let request = keyed("POST", &format!("/{status}"), &format!("k-{status}"));
            let answer = lab.send(request.body("a".into()).unwrap()).await;
            assert_eq!((answer.status.as_u16(), answer.is_replay()), (status, false));
        };
        first().await;
        first().await;
        let elsewhere = keyed("POST", "/elsewhere", &format!("k-{status}")).header("authorization", "Bearer b");
        let done = lab.send(elsewhere.body("b".into()).unwrap()).await;
        assert_eq!((done.text(), done.is_replay()), ("done", false), "{status}");
    }
}

// Seeded faults: a body that fails counts before the status; a body that is cut does.
#[tokio::test]
async fn the_key_is_free_though_the_body_of_the_refusal_breaks_off() {
    for length in [None, Some("9")] {
        for layer in [layer, rerun] {
            let handler = move |_| async move {
                let status = StatusCode::UNAUTHORIZED;
                match length {
                    None => (status, frames([Ok("sign "), Err("it breaks")])).into_response(),
                    Some(length) => (status, [("content-length", length)], frames([Ok("sign ")])).into_response(),
                }
            };
            let lab = Lab::new(layer(), handler);
            for runs in 1..=2 {
                let answer = lab.app.clone().oneshot(post("k", "a")).await.unwrap();
                let effect = answer.headers().get("idempotency-effect").cloned();
                assert_eq!((answer.status().as_u16(), effect), (401, Some("none".parse().unwrap())), "{length:?}");
                // It breaks off for its client.
                drop(answer);
                assert_eq!(lab.effects(), runs, "{length:?}");
            }
        }
    }
}

// Seeded fault: the default is asked, and not the application.
#[tokio::test]
async fn a_refusal_that_is_none_by_what_the_application_says_is_unknown_if_its_body_breaks_off() {
    let layer = layer().classify(|_: &http::response::Parts, _: Option<&HeaderMap>| Meaning::Final);
    let lab = Lab::new(layer, |_| async { (StatusCode::UNAUTHORIZED, frames([Ok("sign "), Err("it breaks")])) });
    drop(lab.app.clone().oneshot(post("k", "a")).await.unwrap());
    assert_eq!(lab.post("k", "a").await.problem(), "outcome-unknown");
}

#[tokio::test]
async fn the_key_is_free_under_each_policy() {
    the_key_is_free_for_a_request_that_differs(layer).await;
    the_key_is_free_for_a_request_that_differs(rerun).await;
}

on_both!(the_key_is_free_on_disk_too);
async fn the_key_is_free_on_disk_too<D: Disk>() {
    let (_directory, store) = on_disk(D::builder());
    the_key_is_free_for_a_request_that_differs(|| IdempotencyLayer::new(store.clone())).await;
    let (_directory, store) = on_disk(D::builder());
    let rerun = || IdempotencyLayer::new(store.clone()).on_interrupted(OnInterrupted::Rerun);
    the_key_is_free_for_a_request_that_differs(rerun).await;
}

#[tokio::test]
async fn what_was_signed_in_for_is_replayed_and_refused_to_others() {
    let lab = Lab::of(
        Router::new().route("/charges", routing::post(async |request: Request| service(request).await)).layer(layer()),
    );
    assert_eq!(lab.send(with("authorization", "Bearer a")).await.text(), "done");
    assert!(lab.send(with("authorization", "Bearer a")).await.is_replay());
    assert_eq!(lab.send(with("authorization", "Bearer b")).await.problem(), "credentials-changed");
}
