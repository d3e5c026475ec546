//! The meaning of an answer, which is decided in one place: its handler's mark, else `classify`, else its status. An
//! outcome is recorded; an answer that means *not started* frees the key.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::body::Body;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use http::response::Parts;
use http::{HeaderMap, Request, StatusCode};
use testkit::Gate;
use testkit::lab::{Lab, Shedding, layer, numbered, post, rerun};
use tower::load_shed::error::Overloaded;
use tower::{BoxError, Layer as _, ServiceBuilder, ServiceExt as _, service_fn};
use tower_idempotency::Meaning;
use tower_idempotency::{IdempotencyLayer, Keep, MemoryStore, Release};

/// Returns the number of the handler's runs for two tries of a request that it answers with `status`.
async fn runs_of_two_tries(layer: IdempotencyLayer<MemoryStore>, status: u16) -> usize {
    let status = StatusCode::from_u16(status).unwrap();
    let lab = Lab::new(layer, move |n| async move { (status, n.to_string()) });
    let first = lab.post("k", "a").await;
    let second = lab.post("k", "a").await;
    assert_eq!((first.status, second.status), (status, status));
    assert_eq!(second.is_replay(), lab.effects() == 1, "{status}");
    assert_eq!(second.text(), lab.effects().to_string());
    lab.effects()
}

// Row: handler answers → what it means is decided in one place: the handler's mark (`Keep`, `Release`, `Unsure`), else
// `classify`. `docs/meanings.md` has what each status means by default.

#[tokio::test]
async fn an_answer_is_recorded_whether_a_success_or_not() {
    for status in [200, 201, 202, 302, 303, 400, 402, 404, 409, 412, 422, 500, 503, 507] {
        assert_eq!(runs_of_two_tries(layer(), status).await, 1, "{status}");
    }
}

#[tokio::test]
async fn under_rerun_transient_statuses_free_the_key_and_others_are_recorded() {
    for status in [401, 403, 408, 429, 500, 502, 503, 504, 507] {
        assert_eq!(runs_of_two_tries(rerun(), status).await, 2, "{status}");
    }
    for status in [200, 201, 302, 400, 402, 404, 409, 412, 422] {
        assert_eq!(runs_of_two_tries(rerun(), status).await, 1, "{status}");
    }
}

fn teapots_are_free(parts: &Parts, trailers: Option<&HeaderMap>) -> Meaning {
    if parts.status == 418 { Meaning::NotStarted } else { Meaning::of_answer(parts, trailers) }
}

#[tokio::test]
async fn what_is_classified_as_not_started_frees_the_key_and_nothing_else_does() {
    for layer in [layer(), rerun()] {
        let layer = layer.classify(teapots_are_free);
        assert_eq!(runs_of_two_tries(layer.clone(), 418).await, 2);
    }
    for status in [200, 404, 500] {
        assert_eq!(runs_of_two_tries(layer().classify(teapots_are_free), status).await, 1, "{status}");
    }
}

#[tokio::test]
async fn what_a_closure_has_no_opinion_on_is_left_to_the_policy_s_default() {
    let teapots = |parts: &Parts, _: Option<&HeaderMap>| (parts.status == 418).then_some(Meaning::NotStarted);
    for (status, by_default, under_rerun) in [(418, 2, 2), (200, 1, 1), (503, 1, 2)] {
        assert_eq!(runs_of_two_tries(layer().classify(teapots), status).await, by_default, "{status}");
        assert_eq!(runs_of_two_tries(rerun().classify(teapots), status).await, under_rerun, "{status}");
    }
}

#[tokio::test]
async fn trap_49_what_a_layer_outside_refuses_is_not_recorded() {
    for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::UNAUTHORIZED] {
        let store = MemoryStore::new();
        let refuse = Arc::new(AtomicBool::new(true));
        let first_is_refused = move |request: Request<Body>, next: Next| {
            let refused = refuse.swap(false, Ordering::SeqCst);
            async move { if refused { status.into_response() } else { next.run(request).await } }
        };
        let mut lab = Lab::counting(IdempotencyLayer::new(store.clone()));
        lab.app = lab.app.layer(from_fn(first_is_refused));
        assert_eq!(lab.post("k", "a").await.status, status);
        assert_eq!((lab.effects(), store.len()), (0, 0));
        let retry = lab.post("k", "a").await;
        assert_eq!((retry.text(), retry.is_replay()), ("effect 1", false));
        assert!(lab.post("k", "a").await.is_replay());
    }
}

#[tokio::test]
async fn a_429_frees_the_key_because_who_asks_too_often_has_had_no_effect() {
    for layer in [layer(), rerun()] {
        assert_eq!(runs_of_two_tries(layer, 429).await, 2);
    }
}

#[tokio::test]
async fn trap_49_a_downstream_s_429_after_the_charge_is_recorded_where_the_handler_marks_it() {
    for layer in [layer(), rerun()] {
        let answer = || (StatusCode::TOO_MANY_REQUESTS, Keep, [("retry-after", "3")], "mail: too many");
        let lab = Lab::new(layer, move |_| async move { answer() });
        let [first, retry] = lab.two_tries().await;
        assert_eq!((retry.status.as_u16(), retry.header("retry-after")), (429, Some("3")));
        assert_eq!(retry, first);
    }
}

#[tokio::test]
async fn trap_50_a_503_of_one_bad_minute_is_not_replayed_where_the_handler_says_that_nothing_happened() {
    let answer = |n| async move {
        let busy = || (StatusCode::SERVICE_UNAVAILABLE, Release, [("retry-after", "1")], "busy").into_response();
        if n == 1 { busy() } else { "charged".into_response() }
    };
    let lab = Lab::new(layer(), answer);
    let first = lab.post("k", "a").await;
    assert_eq!((first.status.as_u16(), first.header("retry-after"), first.text()), (503, Some("1"), "busy"));
    assert_eq!(first.header("idempotency-effect"), Some("none"));
    let second = lab.post("k", "a").await;
    assert_eq!((second.text(), second.is_replay()), ("charged", false));
    assert!(lab.post("k", "a").await.is_replay());
    assert_eq!(lab.effects(), 2);
}

// … An error that means *not started* (load shed) can be classified as such; `poll_ready` errors come before any claim.

#[tokio::test]
async fn trap_78_load_that_was_shed_frees_the_key_where_it_is_classified() {
    for (classified, retry) in [(true, 200), (false, 409)] {
        let (gate, effects) = (Gate::default(), Arc::new(AtomicUsize::new(0)));
        let mut layer = IdempotencyLayer::new(MemoryStore::new());
        if classified {
            layer = layer.classify(Shedding);
        }
        let service =
            ServiceBuilder::new().layer(layer).load_shed().concurrency_limit(1).service(numbered(&gate, &effects));
        let first = tokio::spawn(service.clone().oneshot(post("slow", "a")));
        gate.arrival().await;
        let error = service.clone().oneshot(post("k", "a")).await.unwrap_err();
        assert!(error.is::<Overloaded>(), "{error}");
        gate.open();
        assert_eq!(first.await.unwrap().unwrap().status(), 200);
        assert_eq!(service.oneshot(post("k", "a")).await.unwrap().status(), retry);
        assert_eq!(effects.load(Ordering::SeqCst), if classified { 2 } else { 1 });
    }
}

#[tokio::test]
async fn classify_says_which_errors_free_the_key() {
    let fails = || service_fn(|_: Request<Body>| async { Err::<Response, _>(BoxError::from(Overloaded::new())) });
    let final_for_all = |_: &Parts, _: Option<&HeaderMap>| Meaning::Final;
    for (layer, free) in [(layer().classify(Shedding), true), (layer().classify(final_for_all), false)] {
        let service = layer.layer(fails());
        assert!(service.clone().oneshot(post("k", "a")).await.is_err());
        assert_eq!(service.oneshot(post("k", "a")).await.is_err(), free, "runs again, or is refused");
    }
}
