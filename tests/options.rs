//! Each option of the layer takes effect, the guide's table names each, its defaults hold, and a handler can ask about its
//! run.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post as route;
use axum::{Extension, Json, Router};
use bytes::Bytes;
use common::lab::{Answer, Lab, Shedding, at_once, frames, id, keyed, post};
use http::header::{HeaderName, LOCATION, SET_COOKIE};
use http::response::Parts;
use http::{HeaderMap, Method, Request, StatusCode};
use serde_json::{Value, json};
use tower::load_shed::error::Overloaded;
use tower::{BoxError, Layer as _, ServiceExt as _, service_fn};
use tower_idempotency::clock::Timestamp;
use tower_idempotency::engine::{OnInFlight, OnInterrupted};
use tower_idempotency::record::State;
use tower_idempotency::server::{KeptHeaders, Meaning};
use tower_idempotency::store::Store as _;
use tower_idempotency::test_util::{ManualClock, TestStore, Verb};
use tower_idempotency::{IdempotencyContext, IdempotencyLayer, Keep, MemoryStore, RecordId, Rejection, Release, Scope};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

fn layer() -> IdempotencyLayer<MemoryStore> {
    IdempotencyLayer::new(MemoryStore::new())
}

/// A charge with one header besides its key.
fn with(name: &str, value: &str) -> Request<Body> {
    keyed("POST", "/charges", "k").header(name, value).body(Body::from("a")).unwrap()
}

#[test]
fn the_guide_has_a_row_for_each_option() {
    let page = include_str!("../docs/options.md");
    let (_, table) = page.split_once("| option | default | what it does |\n|---|---|---|\n").unwrap();
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let named: BTreeSet<_> = rows.map(|row| row.split('`').nth(1).unwrap().to_owned()).collect();
    // An option takes the layer, and gives it back.
    let options = include_str!("../src/server/layer.rs").lines().filter(|line| line.contains("(self, "));
    let options: BTreeSet<_> = options
        .filter_map(|line| line.trim().strip_prefix("pub fn "))
        .map(|method| method.split(['(', '<']).next().unwrap().to_owned())
        .collect();
    assert_eq!(named, options);
    assert_eq!(options.len(), 27);
}

#[test]
fn a_layer_shows_its_options_as_they_are_set() {
    let plain = format!("{:?}", layer());
    for shown in ["require_key: false", "retention: 86400s", "covers: None", "on_interrupted: Refuse"] {
        assert!(plain.contains(shown), "{shown}: {plain}");
    }
    let set = layer().require_key(true).retention(DAY * 3).on_interrupted(OnInterrupted::Rerun).covers(|_| true);
    let set = format!("{set:?}");
    for shown in ["require_key: true", "retention: 259200s", "covers: Some(set)", "on_interrupted: Rerun"] {
        assert!(set.contains(shown), "{shown}: {set}");
    }
    assert!(!set.contains("on_interrupted: Refuse"), "nowhere: {set}");
}

// What the guide says is so without any option, where no test of a row of the decision table shows it.

#[tokio::test(start_paused = true)]
async fn without_options_a_run_has_ten_minutes_and_its_answers_body_ten_seconds() {
    let began = tokio::time::Instant::now();
    let lab = Lab::new(layer(), |_| pending::<&str>());
    lab.post("k", "a").await.assert_refusal(500, "outcome-unknown", false, None);
    assert_eq!(began.elapsed().as_secs(), 600, "of the paused clock");
    let endless = |_| async { Body::from_stream(futures_util::stream::pending::<Result<Bytes, BoxError>>()) };
    let lab = Lab::new(layer(), endless);
    assert_eq!(lab.app.clone().oneshot(post("k", "a")).await.unwrap().status(), 200);
    assert_eq!(began.elapsed().as_secs(), 610, "of the paused clock");
}

#[tokio::test]
async fn without_options_an_outcome_is_kept_a_day_and_an_unknown_one_thirty() {
    let clock = ManualClock::new(Timestamp::from_millis(1));
    let layer = IdempotencyLayer::new(TestStore::with_clock(clock.clone()));
    let lab = Lab::new(layer, |n| async move { if n == 1 { panic!("on purpose") } else { format!("effect {n}") } });
    assert_eq!(lab.post("cut", "a").await.problem(), "outcome-unknown");
    lab.post("k", "a").await;
    clock.advance(DAY - SECOND);
    assert!(lab.post("k", "a").await.is_replay());
    clock.advance(SECOND);
    assert_eq!(lab.post("k", "a").await.text(), "effect 3");
    clock.advance(DAY * 29 - SECOND);
    assert_eq!(lab.post("cut", "a").await.problem(), "outcome-unknown");
    clock.advance(SECOND);
    assert_eq!(lab.post("cut", "a").await.text(), "effect 4");
}

#[tokio::test(start_paused = true)]
async fn without_options_there_is_room_for_256_mib_of_bodies() {
    let lab = Lab::counting(layer());
    // Three quarters of it for long ones. They share their bytes, and don't end.
    let mib = Bytes::from(vec![b'x'; 1024 * 1024]);
    let upload = |number: usize| {
        let begun = futures_util::stream::iter([Ok::<_, BoxError>(mib.clone())]);
        let body = Body::from_stream(futures_util::StreamExt::chain(begun, futures_util::stream::pending()));
        Box::pin(lab.app.clone().oneshot(post(&format!("k{number}"), body)))
    };
    let mut uploads: Vec<_> = (0..192).map(upload).collect();
    assert!(uploads.iter_mut().all(|upload| at_once(upload).is_none()));
    assert_eq!(lab.post("short", "a").await.text(), "effect 1", "a short one has room");
    let refused = Answer::of(upload(192).await.unwrap()).await;
    assert_eq!(refused.refusal(), (503, "overloaded".to_owned()));
}

#[tokio::test]
async fn without_options_16_384_runs_go_on_at_once() {
    let (lab, _gate) = Lab::gated(layer());
    let mut requests: Vec<_> =
        (0..16_385).map(|n| Box::pin(lab.app.clone().oneshot(post(&format!("k{n}"), "a")))).collect();
    let last = requests.pop().unwrap();
    for request in &mut requests {
        assert!(at_once(request).is_none());
    }
    while lab.effects() < 16_384 {
        tokio::task::yield_now().await;
    }
    assert_eq!(Answer::of(last.await.unwrap()).await.refusal(), (503, "overloaded".to_owned()));
}

#[tokio::test]
async fn header_name_is_where_the_key_is_read() {
    let lab = Lab::counting(layer().header_name(HeaderName::from_static("x-request-key")));
    let request = || Request::post("/charges").header("x-request-key", "k").body(Body::empty()).unwrap();
    lab.send(request()).await;
    assert!(lab.send(request()).await.is_replay());
    for run in ["effect 2", "effect 3"] {
        assert_eq!(lab.post("k", "a").await.text(), run, "no key at all");
    }
}

#[tokio::test]
async fn replay_header_name_is_what_marks_a_replay() {
    let lab = Lab::counting(layer().replay_header_name(HeaderName::from_static("x-replayed")));
    assert_eq!(lab.post("k", "a").await.header("x-replayed"), None);
    let retry = lab.post("k", "a").await;
    assert_eq!((retry.header("x-replayed"), retry.header("idempotent-replayed")), (Some("true"), None));
}

#[tokio::test]
async fn methods_are_covered_as_named_but_safe_ones_never() {
    let lab = Lab::counting(layer().methods([Method::PUT, Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE]));
    for (method, runs) in [("PUT", 1), ("POST", 2), ("GET", 2), ("HEAD", 2), ("OPTIONS", 2), ("TRACE", 2)] {
        let before = lab.effects();
        for _ in 0..2 {
            lab.send(keyed(method, "/charges", method).body(Body::empty()).unwrap()).await;
        }
        assert_eq!(lab.effects() - before, runs, "{method}");
    }
}

#[tokio::test]
async fn covers_says_which_requests_are_covered() {
    let lab = Lab::counting(layer().require_key(true).covers(|parts| parts.uri.path().starts_with("/charges")));
    for (path, runs) in [("/charges", 1), ("/search", 2)] {
        let before = lab.effects();
        for _ in 0..2 {
            lab.send(keyed("POST", path, path).body(Body::empty()).unwrap()).await;
        }
        assert_eq!(lab.effects() - before, runs, "{path}");
    }
    let keyless = |path| lab.send(Request::post(path).body(Body::empty()).unwrap());
    assert_eq!(keyless("/charges").await.problem(), "key-missing");
    assert_eq!(keyless("/search").await.status, 200);
}

#[tokio::test]
async fn require_key_and_strict_keys_refuse_what_they_say() {
    let lab = Lab::counting(layer().require_key(true).strict_keys(true));
    lab.send(Request::post("/").body(Body::empty()).unwrap()).await.assert_refusal(400, "key-missing", false, None);
    lab.post("bare", "a").await.assert_refusal(400, "key-malformed", false, None);
    assert_eq!(lab.effects(), 0);
    assert_eq!(lab.post("\"quoted\"", "a").await.text(), "effect 1");
}

#[tokio::test]
async fn scope_says_whose_a_key_is() {
    let tenant = |parts: &http::request::Parts| Ok(Scope::new(parts.headers.get("x-tenant").unwrap()));
    let lab = Lab::counting(layer().scope(tenant));
    assert_eq!(lab.send(with("x-tenant", "alice")).await.text(), "effect 1");
    assert_eq!(lab.send(with("x-tenant", "bob")).await.text(), "effect 2");
    for (name, run) in [("alice", "effect 1"), ("bob", "effect 2")] {
        let mut retry = with("x-tenant", name);
        retry.headers_mut().insert("authorization", "refreshed".parse().unwrap());
        let answer = lab.send(retry).await;
        assert_eq!((answer.text(), answer.is_replay()), (run, true));
    }
}

#[tokio::test(start_paused = true)]
async fn on_in_flight_says_how_long_a_duplicate_waits() {
    let (lab, gate) = Lab::gated(layer().on_in_flight(OnInFlight::Wait(SECOND * 7)));
    drop(lab.spawn(post("k", "a")));
    gate.arrival().await;
    let began = tokio::time::Instant::now();
    assert_eq!(lab.post("k", "a").await.problem(), "in-flight");
    assert_eq!(began.elapsed().as_secs(), 7, "of the paused clock");
}

fn conflicts_are_free(parts: &Parts, _: Option<&HeaderMap>) -> Meaning {
    if parts.status == StatusCode::CONFLICT { Meaning::NotStarted } else { Meaning::Final }
}

#[tokio::test]
async fn on_in_flight_reject_and_classify_and_on_interrupted_take_effect() {
    let (lab, gate) = Lab::gated(layer().on_in_flight(OnInFlight::Reject));
    drop(lab.spawn(post("k", "a")));
    gate.arrival().await;
    assert_eq!(at_once(&mut Box::pin(lab.post("k", "a"))).expect("no waiting").problem(), "in-flight");

    for (layer, status, runs) in [
        (layer().classify(conflicts_are_free), StatusCode::CONFLICT, 2),
        (layer().classify(conflicts_are_free), StatusCode::GONE, 1),
        (layer().on_interrupted(OnInterrupted::Rerun), StatusCode::BAD_GATEWAY, 2),
        (layer().on_interrupted(OnInterrupted::Refuse), StatusCode::BAD_GATEWAY, 1),
    ] {
        let lab = Lab::new(layer, move |_| async move { status });
        lab.post("k", "a").await;
        lab.post("k", "a").await;
        assert_eq!(lab.effects(), runs, "{status}");
    }
}

#[tokio::test]
async fn retention_ends_and_the_key_is_new() {
    let clock = ManualClock::new(Timestamp::from_millis(1));
    let store = MemoryStore::builder().clock(clock.clone()).build();
    let lab = Lab::counting(IdempotencyLayer::new(store).retention(DAY));
    lab.post("k", "a").await;
    clock.advance(DAY - SECOND);
    assert!(lab.post("k", "a").await.is_replay());
    lab.post("k", "b").await.assert_refusal(422, "key-reused", false, None);
    clock.advance(SECOND);
    assert_eq!(lab.post("k", "b").await.text(), "effect 2");
}

#[tokio::test]
async fn interrupted_retention_ends_and_the_key_is_new() {
    let clock = ManualClock::new(Timestamp::from_millis(1));
    let layer = IdempotencyLayer::new(TestStore::with_clock(clock.clone())).interrupted_retention(DAY * 3);
    let lab = Lab::new(layer, |n| async move { if n == 1 { panic!("on purpose") } else { "done" } });
    assert_eq!(lab.post("k", "a").await.problem(), "outcome-unknown");
    clock.advance(DAY * 3 - SECOND);
    lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
    clock.advance(SECOND);
    assert_eq!(lab.post("k", "a").await.text(), "done");
}

#[tokio::test(start_paused = true)]
async fn max_run_and_outcome_body_timeout_bound_a_run() {
    let began = tokio::time::Instant::now();
    let lab = Lab::new(layer().max_run(SECOND * 3), |_| pending::<&str>());
    lab.post("k", "a").await.assert_refusal(500, "outcome-unknown", false, None);
    assert_eq!(began.elapsed().as_secs(), 3, "of the paused clock");

    let endless = |_| async { Body::from_stream(futures_util::stream::pending::<Result<Bytes, BoxError>>()) };
    let lab = Lab::new(layer().outcome_body_timeout(SECOND * 4), endless);
    assert_eq!(lab.app.clone().oneshot(post("k", "a")).await.unwrap().status(), 200);
    assert_eq!(began.elapsed().as_secs(), 7, "of the paused clock");
    assert_eq!(lab.post("k", "a").await.problem(), "not-replayable");
}

#[tokio::test]
async fn max_request_body_and_max_response_body_bound_what_is_held() {
    let lab = Lab::new(layer().max_request_body(3).max_response_body(5), |_| async { frames([Ok("123"), Ok("45")]) });
    lab.post("k", "1234").await.assert_refusal(413, "body-too-large", false, None);
    lab.post("k", "123").await;
    assert_eq!((lab.post("k", "123").await.text(), lab.effects()), ("12345", 1));
    let lab = Lab::new(layer().max_response_body(4), |_| async { frames([Ok("123"), Ok("45")]) });
    assert_eq!(lab.post("k", "a").await.text(), "12345");
    assert_eq!(lab.post("k", "a").await.problem(), "not-replayable");
}

#[tokio::test]
async fn kept_headers_says_what_is_replayed() {
    let kept = KeptHeaders::default().with([SET_COOKIE]).without([LOCATION]);
    let lab =
        Lab::new(layer().kept_headers(kept), |_| async { [("set-cookie", "a=b"), ("location", "/1"), ("x-a", "1")] });
    let first = lab.post("k", "a").await;
    assert_eq!((first.header("set-cookie"), first.header("location")), (Some("a=b"), Some("/1")));
    let retry = lab.post("k", "a").await;
    assert_eq!(
        (retry.header("set-cookie"), retry.header("location"), retry.header("x-a")),
        (Some("a=b"), None, Some("1"))
    );
}

#[tokio::test]
async fn fail_open_runs_without_a_store_and_counts_it() {
    for (open, status, effects) in [(true, 200, 1), (false, 503, 0)] {
        let store = TestStore::new();
        store.fail_next(Verb::Claim);
        let layer = IdempotencyLayer::new(store).fail_open(open);
        let lab = Lab::counting(layer.clone());
        assert_eq!(lab.post("k", "a").await.status, status);
        assert_eq!((lab.effects(), layer.counts().unprotected), (effects, effects as u64));
    }
}

#[tokio::test]
async fn problem_base_and_render_rejection_say_how_refusals_read() {
    let lab = Lab::counting(layer().problem_base("https://pay.example/problems/"));
    let answer = lab.post("a b", "a").await;
    assert_eq!(answer.json()["type"], "https://pay.example/problems/key-malformed");
    assert_eq!(answer.header("link"), Some("<https://pay.example/problems/key-malformed>; rel=\"describedby\""));

    let render = |rejection: &Rejection| {
        let body = Bytes::from(format!("no: {}", rejection.kind.slug()));
        http::Response::builder().status(StatusCode::IM_A_TEAPOT).header("x-own", "1").body(body).unwrap()
    };
    let lab = Lab::counting(layer().render_rejection(render));
    let answer = lab.post("a b", "a").await;
    assert_eq!((answer.status.as_u16(), answer.text(), answer.header("x-own")), (418, "no: key-malformed", Some("1")));
}

#[tokio::test]
async fn render_rejection_is_given_all_it_needs_and_retry_after_is_set_whatever_it_returns() {
    let render = |rejection: &Rejection| {
        let Rejection { kind, detail, retry_after, retry_with_same_key, .. } = rejection;
        let base = rejection.problem_base();
        let said =
            json!([kind.slug(), base, rejection.type_uri(), !detail.is_empty(), retry_after, retry_with_same_key]);
        Response::new(Bytes::from(said.to_string()))
    };
    let store = TestStore::new();
    let base = "https://pay.example/problems/";
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()).problem_base(base).render_rejection(render));
    store.fail_next(Verb::Claim);
    let answer = lab.post("k", "a").await;
    let uri = format!("{base}store-unavailable");
    assert_eq!(answer.json(), json!(["store-unavailable", base, uri, true, 1, true]));
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (200, Some("1")));
    assert_eq!(lab.post("a b", "a").await.header("retry-after"), None);
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

tokio::task_local! { static TENANT: &'static str; }

#[tokio::test]
async fn wrap_run_carries_task_locals_over() {
    let lab = Lab::new(layer().wrap_run(|run| TENANT.scope(TENANT.get(), run)), |_| async { TENANT.get() });
    assert_eq!(TENANT.scope("alice", lab.post("k", "a")).await.text(), "alice");
}

#[tokio::test]
async fn a_run_that_wrap_run_drops_never_began_and_leaves_the_key_free() {
    let once = Arc::new(Mutex::new(true));
    let drop_first = move |run| -> futures_util::future::BoxFuture<'static, ()> {
        if std::mem::take(&mut *once.lock().unwrap()) { Box::pin(async {}) } else { run }
    };
    let lab = Lab::counting(layer().wrap_run(drop_first));
    lab.post("k", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
    assert_eq!(lab.effects(), 0);
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
}

#[tokio::test]
async fn a_run_that_wrap_run_drops_while_it_is_recorded_is_not_answered_from_what_may_not_be_durable() {
    let store = TestStore::new();
    let drop_all = Arc::new(tokio::sync::Notify::new());
    let dropping = Arc::clone(&drop_all);
    let until_dropped = move |run: futures_util::future::BoxFuture<'static, ()>| {
        let dropped = Arc::clone(&dropping);
        async move {
            tokio::select! { () = run => {}, () = dropped.notified() => {} }
        }
    };
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()).wrap_run(until_dropped));
    let stall = store.stall(Verb::Complete);
    let first = lab.spawn(post("k", "a"));
    while lab.effects() == 0 {
        tokio::task::yield_now().await;
    }
    drop_all.notify_one();
    first.await.unwrap().assert_refusal(500, "outcome-unknown", false, None);
    // The record is there now, but this process was never told that it is durable.
    stall.release();
    while !matches!(store.load(id("k")).await.unwrap().unwrap().state, State::Completed { .. }) {
        tokio::task::yield_now().await;
    }
    lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
    assert_eq!(lab.effects(), 1);
    assert!(
        lab.behind(IdempotencyLayer::new(store.reopen()), |_| async { "not run" }).post("k", "a").await.is_replay()
    );
}

// What a handler can ask, and say.

fn told(context: &IdempotencyContext) -> Value {
    json!({
        "key": context.key().as_str(), "id": context.record_id().to_string(), "attempt": context.attempt(),
        "fence": context.fence().0, "rerun": format!("{:?}", context.rerun()),
        "charge": context.derived_key("charge"), "mail": context.derived_key("mail"),
    })
}

/// A handler that tells what it is told; its first attempt at key `cut short` is cut short.
fn telling<St: tower_idempotency::store::Store>(layer: IdempotencyLayer<St>, seen: &Arc<Mutex<Vec<Value>>>) -> Lab {
    let seen = Arc::clone(seen);
    let handler = move |context: IdempotencyContext| async move {
        seen.lock().unwrap().push(told(&context));
        assert!(context.attempt() > 1 || context.key().as_str() != "cut short", "on purpose");
        Json(told(&context))
    };
    Lab::of(Router::new().route("/charges", route(handler)).layer(layer))
}

#[tokio::test]
async fn a_handler_is_told_about_its_run() {
    let seen = Arc::default();
    let store = TestStore::new();
    let answer = telling(IdempotencyLayer::new(store.clone()), &seen).post("\"k\"", "a").await.json();
    let id = RecordId::new(None, &tower_idempotency::Key::new("k").unwrap());
    assert_eq!((&answer["key"], &answer["id"]), (&json!("k"), &json!(id.to_string())));
    assert_eq!((&answer["attempt"], &answer["rerun"]), (&json!(1), &json!("No")));
    assert_eq!(answer["charge"], id.derived_key("charge"));
    assert_ne!(answer["charge"], answer["mail"]);

    // Under `Rerun` a claim leaves no trace if the process dies.
    let rerun = IdempotencyLayer::new(store.clone()).on_interrupted(OnInterrupted::Rerun);
    assert_eq!(telling(rerun, &seen).post("r", "a").await.json()["rerun"], "Unknown");
    store.crash();
    let unprotected = telling(IdempotencyLayer::new(store).fail_open(true), &seen).post("o", "a").await.json();
    assert_eq!((&unprotected["fence"], &unprotected["rerun"]), (&json!(0), &json!("Unknown")));
}

#[tokio::test]
async fn a_second_attempt_is_told_so_under_a_larger_fence_with_the_same_derived_keys() {
    let seen = Arc::default();
    let store = TestStore::new();
    let lab = telling(IdempotencyLayer::new(store.clone()), &seen);
    assert_eq!(
        lab.post("cut short", "a").await.refusal(),
        (400, "key-malformed".to_owned()),
        "a bare key has no blank"
    );
    assert_eq!(lab.post("\"cut short\"", "a").await.problem(), "outcome-unknown");
    lab.post("between", "a").await;
    let rerun = IdempotencyLayer::new(store.reopen()).on_interrupted(OnInterrupted::Rerun);
    let second = telling(rerun, &seen).post("\"cut short\"", "a").await.json();
    let first = seen.lock().unwrap()[0].clone();
    assert_eq!((&second["attempt"], &second["rerun"]), (&json!(2), &json!("Yes")));
    assert!(second["fence"].as_u64() > first["fence"].as_u64());
    assert_eq!((&second["charge"], &second["id"]), (&first["charge"], &first["id"]));
}

#[tokio::test]
async fn the_context_is_an_extension_and_an_optional_extractor() {
    let handler = |context: Option<IdempotencyContext>, extension: Option<Extension<IdempotencyContext>>| async move {
        format!("{} {}", context.is_some(), extension.is_some())
    };
    let lab = Lab::of(Router::new().route("/charges", route(handler)).layer(layer()));
    assert_eq!(lab.post("k", "a").await.text(), "true true");
    assert_eq!(lab.send(Request::post("/charges").body(Body::empty()).unwrap()).await.text(), "false false");
}

#[tokio::test]
async fn the_bare_extractor_names_what_is_missing() {
    let router = || Router::new().route("/charges", route(|_: IdempotencyContext| async { "ran" }));
    let no_key = Lab::of(router().layer(layer())).send(Request::post("/charges").body(Body::empty()).unwrap()).await;
    assert_eq!(no_key.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(no_key.text().contains("no Idempotency-Key") && no_key.text().contains("require_key"));
    let no_layer = Lab::of(router()).post("k", "a").await;
    assert_eq!(no_layer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(no_layer.text().contains("no IdempotencyLayer"));
}

#[tokio::test]
async fn marks_stand_in_what_a_handler_returns() {
    let release = (StatusCode::SERVICE_UNAVAILABLE, Release, [("x-a", "1")], "busy").into_response();
    assert_eq!((release.status(), release.extensions().get()), (StatusCode::SERVICE_UNAVAILABLE, Some(&Release)));
    let keep = (StatusCode::BAD_GATEWAY, Keep, "kept").into_response();
    assert_eq!(keep.extensions().get(), Some(&Keep));
}
