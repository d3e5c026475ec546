//! The decision table (DESIGN.md, section 4), second part: how a run ends, and what its retry gets.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use common::lab::{Answer, Gate, Lab, Shedding, frames, post};
use http::response::Parts;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use tower::load_shed::error::Overloaded;
use tower::{BoxError, Layer as _, Service, ServiceBuilder, ServiceExt as _, service_fn};
use tower_idempotency::engine::OnInterrupted;
use tower_idempotency::server::Meaning;
use tower_idempotency::{IdempotencyLayer, Keep, MemoryStore, Release};

fn refuse() -> IdempotencyLayer<MemoryStore> {
    IdempotencyLayer::new(MemoryStore::new())
}

fn rerun() -> IdempotencyLayer<MemoryStore> {
    refuse().on_interrupted(OnInterrupted::Rerun)
}

/// How often the handler runs when a request is sent twice that it answers with `status`.
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

// Row: handler answers → what it means is decided in one place: the handler's mark (`Keep`, `Release`, `Unknown`), else
// `classify`. By default 408, 502 and 504 are unknown, all else is final; under `Rerun` 401, 403, 408, 429 and 5xx are not
// started.

#[tokio::test]
async fn an_answer_is_recorded_whether_a_success_or_not() {
    for status in [200, 201, 202, 302, 400, 401, 403, 404, 409, 412, 422, 429, 500, 503, 507] {
        assert_eq!(runs_of_two_tries(refuse(), status).await, 1, "{status}");
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
    for layer in [refuse(), rerun()] {
        let layer = layer.classify(teapots_are_free);
        assert_eq!(runs_of_two_tries(layer.clone(), 418).await, 2);
    }
    for status in [200, 429, 500] {
        assert_eq!(runs_of_two_tries(refuse().classify(teapots_are_free), status).await, 1, "{status}");
    }
}

#[tokio::test]
async fn an_answer_marked_release_frees_the_key() {
    for layer in [refuse(), rerun()] {
        let lab = Lab::new(layer, |n| async move { (Release, n.to_string()) });
        for run in ["1", "2"] {
            let answer = lab.post("k", "a").await;
            assert_eq!((answer.text(), answer.is_replay()), (run, false));
        }
        assert_eq!(lab.post("k", "another request").await.text(), "3", "the key is free for any request");
    }
}

#[tokio::test]
async fn an_answer_marked_keep_is_recorded() {
    let all_free = |_: &Parts, _: Option<&HeaderMap>| Meaning::NotStarted;
    for layer in [refuse().classify(all_free), rerun()] {
        let lab = Lab::new(layer, |n| async move { (StatusCode::SERVICE_UNAVAILABLE, Keep, n.to_string()) });
        for replayed in [false, true] {
            let answer = lab.post("k", "a").await;
            assert_eq!((answer.status.as_u16(), answer.text(), answer.is_replay()), (503, "1", replayed));
        }
    }
}

// Row: handler panics; inner service returns `Err` → interrupted (under `Rerun`: released); 500 `outcome-unknown`, or the
// `Err`.

#[tokio::test]
async fn a_handler_that_panics_leaves_an_unknown_outcome() {
    let layer = refuse();
    let lab = Lab::new(layer.clone(), |_| async { panic!("on purpose") as &str });
    lab.post("k", "a").await.assert_refusal(500, "outcome-unknown", false, None);
    lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
    assert_eq!(lab.effects(), 1);
    assert_eq!((layer.counts().interrupted, layer.interrupted(9).await.unwrap().len()), (1, 1));
}

#[tokio::test]
async fn under_rerun_a_handler_that_panicked_runs_again() {
    let lab = Lab::new(rerun(), |n| async move { if n == 1 { panic!("on purpose") } else { "done" } });
    lab.post("k", "a").await.assert_refusal(500, "outcome-unknown", true, None);
    assert_eq!(lab.post("k", "a").await.text(), "done");
    assert!(lab.post("k", "a").await.is_replay());
    assert_eq!(lab.effects(), 2);
}

/// A service that counts its calls and answers the first `errors` of them with an error.
fn failing(
    errors: usize,
) -> (
    impl Service<Request<Body>, Response = Response, Error = BoxError, Future: Send> + Clone + Send + 'static,
    Arc<AtomicUsize>,
) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let service = service_fn(move |_: Request<Body>| {
        let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
        async move { if number <= errors { Err(BoxError::from("broken pipe")) } else { Ok("done".into_response()) } }
    });
    (service, calls)
}

#[tokio::test]
async fn an_error_of_the_inner_service_is_passed_on_and_its_retry_refused() {
    let (service, calls) = failing(1);
    let service = refuse().layer(service);
    let error = service.clone().oneshot(post("k", "a")).await.unwrap_err();
    assert_eq!(error.to_string(), "broken pipe", "the inner error type is left alone");
    let retry = service.oneshot(post("k", "a")).await.unwrap();
    Answer::of(retry).await.assert_refusal(409, "outcome-unknown", false, None);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn under_rerun_an_error_of_the_inner_service_frees_the_key() {
    let (service, calls) = failing(1);
    let service = rerun().layer(service);
    assert!(service.clone().oneshot(post("k", "a")).await.is_err());
    assert_eq!(Answer::of(service.oneshot(post("k", "a")).await.unwrap()).await.text(), "done");
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

// … An error that means *not started* (load shed) can be classified as such; `poll_ready` errors come before any claim.

#[tokio::test]
async fn load_that_was_shed_frees_the_key() {
    let (gate, handler) = {
        let gate = Gate::default();
        (gate.clone(), gate)
    };
    let store = MemoryStore::new();
    let service = ServiceBuilder::new()
        .layer(IdempotencyLayer::new(store.clone()).classify(Shedding))
        .load_shed()
        .concurrency_limit(1)
        .service_fn(move |_: Request<Body>| {
            let gate = handler.clone();
            async move {
                gate.pass().await;
                Ok::<_, BoxError>("done".into_response())
            }
        });
    let first = tokio::spawn(service.clone().oneshot(post("first", "a")));
    gate.arrival().await;
    let error = service.clone().oneshot(post("k", "a")).await.unwrap_err();
    assert!(error.is::<Overloaded>());
    assert_eq!(store.len(), 1, "the shed request's key is free");
    gate.open();
    assert_eq!(Answer::of(first.await.unwrap().unwrap()).await.text(), "done");
    assert_eq!(Answer::of(service.oneshot(post("k", "a")).await.unwrap()).await.text(), "done");
}

#[derive(Clone)]
struct NeverReady;

impl Service<Request<Body>> for NeverReady {
    type Response = Response;
    type Error = BoxError;
    type Future = std::future::Ready<Result<Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Err("not ready".into()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        panic!("called, though it was not ready")
    }
}

#[tokio::test]
async fn a_service_that_is_not_ready_says_so_before_any_claim() {
    let store = MemoryStore::new();
    let service = IdempotencyLayer::new(store.clone()).layer(NeverReady);
    assert_eq!(service.oneshot(post("k", "a")).await.unwrap_err().to_string(), "not ready");
    assert!(store.is_empty());
}

// Row: handler exceeds `max_run` (10 min) → its future is dropped, then as a panic.

#[tokio::test(start_paused = true)]
async fn a_handler_that_hangs_is_dropped_and_its_outcome_unknown() {
    let alive = Arc::new(());
    let held = Arc::clone(&alive);
    let lab = Lab::new(refuse(), move |_| {
        let held = Arc::clone(&held);
        async move {
            let answer = pending::<&str>().await;
            drop(held);
            answer
        }
    });
    let before = Arc::strong_count(&alive);
    lab.post("k", "a").await.assert_refusal(500, "outcome-unknown", false, None);
    assert_eq!(Arc::strong_count(&alive), before, "the handler's future is gone");
    lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
    assert_eq!(lab.effects(), 1);
}

#[tokio::test(start_paused = true)]
async fn under_rerun_a_handler_that_hung_runs_again() {
    let lab = Lab::new(rerun(), |n| async move { if n == 1 { pending().await } else { "done" } });
    lab.post("k", "a").await.assert_refusal(500, "outcome-unknown", true, None);
    assert_eq!(lab.post("k", "a").await.text(), "done");
}

// Row: response body fails half-way → as a panic; the client sees the failure.

async fn read_until_it_fails(lab: &Lab) -> (StatusCode, String, String) {
    let response = lab.app.clone().oneshot(post("k", "a")).await.unwrap();
    let (status, mut body, mut read) = (response.status(), response.into_body(), String::new());
    loop {
        match body.frame().await.expect("the body ends with an error") {
            Ok(frame) => read.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap()),
            Err(error) => return (status, read, error.to_string()),
        }
    }
}

#[tokio::test]
async fn a_body_that_fails_half_way_leaves_an_unknown_outcome() {
    let lab = Lab::new(refuse(), |_| async { frames([Ok("ha"), Ok("l"), Err("disk gone")]) });
    let (status, read, error) = read_until_it_fails(&lab).await;
    assert_eq!((status.as_u16(), read.as_str()), (200, "hal"));
    assert!(error.contains("disk gone"), "{error}");
    lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn under_rerun_a_body_that_failed_half_way_runs_again() {
    let answer = |n| async move { frames(if n == 1 { vec![Ok("ha"), Err("gone")] } else { vec![Ok("ha"), Ok("lf")] }) };
    let lab = Lab::new(rerun(), answer);
    assert_eq!(read_until_it_fails(&lab).await.1, "ha");
    assert_eq!(lab.post("k", "a").await.text(), "half");
    assert_eq!(lab.effects(), 2);
}

// Row: response over `max_response_body` (1 MiB), not complete within `outcome_body_timeout` (10 s),
// `text/event-stream`, 101 → recorded as *consumed*, then passed on whole.

async fn assert_consumed(lab: &Lab, status: u16) {
    let retry = lab.post("k", "a").await;
    retry.assert_refusal(409, "not-replayable", false, None);
    assert_eq!(retry.json()["original_status"], status);
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn an_answer_over_the_limit_is_passed_on_whole_and_never_run_again() {
    let half: &'static str = "x".repeat(512 * 1024).leak();
    for layer in [refuse(), rerun()] {
        let lab = Lab::new(layer, move |_| async move { (StatusCode::CREATED, frames([Ok(half), Ok(half), Ok("y")])) });
        let first = lab.post("k", "a").await;
        assert_eq!(first.body.len(), 1024 * 1024 + 1);
        assert!(first.text().ends_with("xy"));
        assert_consumed(&lab, 201).await;
    }
    let whole = vec![b'x'; 1024 * 1024];
    let lab = Lab::new(refuse(), move |_| {
        let whole = whole.clone();
        async move { whole }
    });
    lab.post("k", "a").await;
    assert_eq!(lab.post("k", "a").await.body.len(), 1024 * 1024, "1 MiB itself is replayed");
}

/// A body whose last frame comes only when the gate is open.
fn slow_body(gate: &Gate) -> Body {
    let gate = gate.clone();
    let last = futures_util::stream::once(async move {
        gate.pass().await;
        Ok::<_, std::io::Error>("second")
    });
    let first = futures_util::stream::iter([Ok("first ")]);
    Body::from_stream(futures_util::StreamExt::chain(first, last))
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_complete_in_time_is_passed_on_whole_and_never_run_again() {
    let gate = Gate::default();
    let handler = gate.clone();
    let lab = Lab::new(refuse(), move |_| {
        let body = slow_body(&handler);
        async move { body }
    });
    let began = tokio::time::Instant::now();
    let response = lab.app.clone().oneshot(post("k", "a")).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 10, "of the paused clock: the default");
    assert_consumed(&lab, 200).await;
    gate.open();
    assert_eq!(Answer::of(response).await.text(), "first second");
}

#[tokio::test(start_paused = true)]
async fn an_event_stream_is_passed_on_at_once_and_never_run_again() {
    let began = tokio::time::Instant::now();
    for kind in ["text/event-stream", "Text/Event-Stream; charset=utf-8"] {
        let gate = Gate::default();
        let handler = gate.clone();
        let lab = Lab::new(refuse(), move |_| {
            let body = slow_body(&handler);
            async move { ([("content-type", kind)], body) }
        });
        let response = lab.app.clone().oneshot(post("k", "a")).await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 0, "of the paused clock");
        assert_consumed(&lab, 200).await;
        gate.open();
        assert_eq!(Answer::of(response).await.text(), "first second");
    }
}

#[tokio::test]
async fn an_upgrade_is_passed_on_and_never_run_again() {
    let lab = Lab::new(refuse(), |_| async { StatusCode::SWITCHING_PROTOCOLS });
    assert_eq!(lab.post("k", "a").await.status, StatusCode::SWITCHING_PROTOCOLS);
    assert_consumed(&lab, 101).await;
}

// Row: client goes away → the run goes on and is recorded.

#[tokio::test]
async fn trap_11_a_client_that_goes_away_changes_nothing() {
    let layer = refuse();
    let (lab, gate) = Lab::gated(layer.clone());
    let request = lab.spawn(post("k", "a"));
    gate.arrival().await;
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    gate.open();
    let retry = lab.post("k", "a").await;
    assert_eq!((retry.text(), retry.is_replay(), lab.effects()), ("effect 1", true, 1));
}

#[tokio::test]
async fn a_client_that_goes_away_before_the_handler_is_called_changes_nothing() {
    let lab = Lab::counting(refuse());
    let mut request = Box::pin(lab.send(post("k", "a")));
    assert!(common::lab::at_once(&mut request).is_none(), "the run was spawned and has not begun");
    drop(request);
    let retry = lab.post("k", "a").await;
    assert_eq!((retry.text(), retry.is_replay(), lab.effects()), ("effect 1", true, 1));
}

// Row: shutdown → `drain()` waits for runs up to a deadline and says how many were left. Row: shutting down, new key →
// 503 `shutting-down`; replays are still given.

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_runs_and_says_how_many_were_left() {
    let layer = refuse();
    let (lab, gate) = Lab::gated(layer.clone());
    let running = lab.spawn(post("k", "a"));
    gate.arrival().await;
    assert_eq!(layer.drain(Duration::from_secs(5)).await.runs, 1);
    lab.post("new", "a").await.assert_refusal(503, "shutting-down", true, Some("1"));
    gate.open();
    assert_eq!(layer.drain(Duration::from_secs(5)).await.runs, 0);
    assert_eq!(running.await.unwrap().text(), "effect 1");
    assert!(lab.post("k", "a").await.is_replay());
    lab.post("k", "b").await.assert_refusal(422, "key-reused", false, None);
    lab.post("new", "a").await.assert_refusal(503, "shutting-down", true, Some("1"));
    assert_eq!(lab.effects(), 1);
}
