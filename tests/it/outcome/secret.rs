//! An answer that shows a secret once is given whole to its client, and is never stored (promise 2).

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, post as route};
use bytes::Bytes;
use http::StatusCode;
use http_body_util::Full;
use testkit::lab::asked::Asked;
use testkit::lab::disk::{Disk, written};
use testkit::lab::{Lab, at_once, layer, on_disk, post};
use testkit::log::Log;
use testkit::{Gate, on_both};
use tower::ServiceExt as _;
use tower_idempotency::engine::Reconciled;
use tower_idempotency::server::Replay;
use tower_idempotency::{IdempotencyLayer, Keep, MemoryStore, Secret, Unsure};
use tracing::Level;

/// What must not lie in a store.
const CANARY: &str = "canary-5e7c-sk-live";

/// A new API key: in a header, and in the body.
fn new_key(is_marked: bool) -> Response {
    let answer = (StatusCode::CREATED, [("location", CANARY)], CANARY);
    if is_marked { (Secret, answer).into_response() } else { answer.into_response() }
}

#[tokio::test]
async fn the_first_client_gets_a_secret_and_a_retry_learns_that_it_ran() {
    let log = Log::begin(Level::TRACE);
    let layer = layer();
    let lab = Lab::new(layer.clone(), |_| async { new_key(true) });
    let first = lab.post("k", "a").await;
    assert_eq!((first.status.as_u16(), first.text(), first.header("location")), (201, CANARY, Some(CANARY)));
    assert_eq!(first.header("idempotency-effect"), None, "it is the outcome");
    let retry = lab.post("k", "a").await;
    retry.assert_refusal(409, "not-replayable", false, None);
    assert_eq!(retry.header("idempotency-effect"), Some("done;status=201;retry=?0"));
    let problem = retry.json();
    assert_eq!(problem["original_status"], 201);
    assert!(problem["detail"].as_str().unwrap().contains("lost a secret, have it revoked"), "{problem}");
    assert!(!retry.text().contains("canary") && !log.everything().contains("canary"));
    lab.post("k", "b").await.assert_refusal(422, "key-reused", false, None);
    assert_eq!((lab.effects(), layer.stats().runs), (1, 1));
}

#[tokio::test]
async fn a_request_that_waits_for_the_run_gets_no_secret() {
    let gate = Gate::default();
    let lab = Lab::new(layer(), {
        let gate = gate.clone();
        move |_| {
            let gate = gate.clone();
            async move {
                gate.pass().await;
                new_key(true)
            }
        }
    });
    let own = lab.spawn(post("k", "a"));
    gate.arrival().await;
    let mut waits = Box::pin(lab.post("k", "a"));
    assert!(at_once(&mut waits).is_none(), "it waits");
    gate.open();
    assert_eq!(own.await.unwrap().text(), CANARY);
    waits.await.assert_refusal(409, "not-replayable", false, None);
}

#[tokio::test]
async fn with_another_mark_a_secret_is_not_stored_either() {
    for (other, slug) in [("keep", "not-replayable"), ("unsure", "outcome-unknown")] {
        let store = MemoryStore::new();
        let lab = Lab::new(IdempotencyLayer::new(store.clone()), move |_| async move {
            if other == "keep" {
                (Keep, new_key(true)).into_response()
            } else {
                (Unsure, new_key(true)).into_response()
            }
        });
        assert_eq!(lab.post("k", "a").await.text(), CANARY);
        assert_eq!(lab.post("k", "a").await.problem(), slug);
    }
}

/// Whether a file below this directory has the secret.
fn is_in_a_file(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).any(|path| match path.is_dir() {
        true => is_in_a_file(&path),
        // One that the store has just removed has nothing.
        false => written(&path).unwrap_or_default().windows(CANARY.len()).any(|bytes| bytes == CANARY.as_bytes()),
    })
}

on_both!(no_file_of_a_store_has_a_secret);

async fn no_file_of_a_store_has_a_secret<D: Disk>() {
    for is_marked in [true, false] {
        let (directory, store) = on_disk(D::builder());
        let layer = IdempotencyLayer::new(store.clone());
        let gate = Gate::default();
        let lab = Lab::new(layer, {
            let gate = gate.clone();
            move |_| {
                let gate = gate.clone();
                async move {
                    gate.pass().await;
                    new_key(is_marked)
                }
            }
        });
        let own = lab.spawn(post("k", "a"));
        gate.arrival().await;
        assert!(!is_in_a_file(directory.path()), "the run has claimed, and not ended");
        gate.open();
        assert_eq!(own.await.unwrap().text(), CANARY);
        // Without the mark it is found, so that it would be.
        assert_eq!(is_in_a_file(directory.path()), !is_marked);
        drop(lab);
        store.close().await.unwrap();
        assert_eq!(is_in_a_file(directory.path()), !is_marked, "after the store was closed");
    }
}

// Seeded fault: the mark was removed with the others, and the outer exchange stored the secret.
#[tokio::test]
async fn a_secret_that_a_handler_passes_on_is_not_stored_either() {
    let app = Arc::new(Mutex::new(None::<Router>));
    let of_handler = Arc::clone(&app);
    let outer = move |request: Request| {
        let app = of_handler.lock().unwrap().clone().unwrap();
        async move {
            let (mut parts, _) = request.into_parts();
            parts.uri = "/keys".parse().unwrap();
            parts.headers.insert("idempotency-key", "inner".parse().unwrap());
            app.oneshot(Request::from_parts(parts, Body::from("a"))).await.unwrap()
        }
    };
    let inner = || async { new_key(true) };
    let router = Router::new().route("/charges", route(outer)).route("/keys", route(inner)).layer(layer());
    *app.lock().unwrap() = Some(router.clone());
    let lab = Lab::of(router);
    assert_eq!(lab.post("k", "a").await.text(), CANARY);
    for _ in 0..2 {
        let retry = lab.post("k", "a").await;
        assert!(retry.problem() == "not-replayable" && !retry.text().contains("canary"), "{retry:?}");
    }
}

// A seeded fault: the mark of a replacement is left out with its other extensions.
#[tokio::test]
async fn a_secret_that_replaces_a_replay_is_stored_by_no_layer_outside() {
    let signed_anew = |_, stored: http::Response<Bytes>| async {
        let mut fresh = stored.map(|_| Bytes::from_static(CANARY.as_bytes()));
        fresh.extensions_mut().insert(Secret);
        Replay::Replace(fresh)
    };
    let inner = Router::new().fallback(any(async || "expired")).layer(layer().on_replay(signed_anew));
    assert_eq!(Lab::of(inner.clone()).post("k", "a").await.text(), "expired");
    let outer = Lab::of(inner.layer(layer()));
    assert_eq!(outer.post("k", "a").await.text(), CANARY);
    let retry = outer.post("k", "a").await;
    assert!(retry.problem() == "not-replayable" && !retry.text().contains("canary"), "{retry:?}");
}

// Seeded fault: the mark of what a reconciler has found does not count, and its answer is stored.
#[tokio::test]
async fn a_secret_that_a_reconciler_has_found_is_not_stored_and_leaves_the_operation_unknown() {
    let key = || {
        let mut answer = http::Response::new(Full::new(Bytes::from_static(CANARY.as_bytes())));
        answer.extensions_mut().insert(Secret);
        Reconciled::Outcome(answer)
    };
    let layer = layer().reconcile_with(Asked::default().says([key(), key()]));
    let lab = Lab::new(layer, |_| async { StatusCode::BAD_GATEWAY });
    lab.post("k", "a").await;
    for _ in 0..2 {
        let retry = lab.post("k", "a").await;
        assert!(retry.problem() == "outcome-unknown" && !retry.text().contains("canary"), "{retry:?}");
    }
    assert_eq!(lab.effects(), 1);
}
