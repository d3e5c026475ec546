//! The context of a handler's run (key, fence, attempt and derived keys), and what `wrap_run` carries over.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::routing::post as route;
use axum::{Extension, Json, Router};
use http::{Request, StatusCode};
use serde_json::{Value, json};
use testkit::lab::asked::{Asked, asking};
use testkit::lab::{Lab, id, layer, post};
use tower_idempotency::engine::Reconciled;
use tower_idempotency::internals::{Records as _, State};
use tower_idempotency::test_util::{StoreCall, TestStore};
use tower_idempotency::{IdempotencyContext, IdempotencyLayer, MemoryStore, OnInterrupted, RecordId};

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
    let stall = store.stall(StoreCall::Complete);
    let first = lab.spawn(post("k", "a"));
    while lab.effects() == 0 {
        tokio::task::yield_now().await;
    }
    drop_all.notify_one();
    first.await.unwrap().assert_refusal(500, "outcome-unknown", false, None);
    // The record is there now, but this process got no answer that it is durable.
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

// The calls and marks of a handler.

fn told(context: &IdempotencyContext) -> Value {
    json!({
        "key": context.key().as_str(), "id": context.record_id().to_string(), "attempt": context.attempt(),
        "fence": context.fence().0, "rerun": format!("{:?}", context.rerun()),
        "charge": context.derived_key("charge"), "mail": context.derived_key("mail"),
    })
}

/// A handler that answers with its context; its first attempt at key `interrupted` is interrupted.
fn telling<St: tower_idempotency::store::Store>(layer: IdempotencyLayer<St>, seen: &Arc<Mutex<Vec<Value>>>) -> Lab {
    let seen = Arc::clone(seen);
    let handler = move |context: IdempotencyContext| async move {
        seen.lock().unwrap().push(told(&context));
        assert!(context.attempt() > 1 || context.key().as_str() != "two words", "on purpose");
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
    assert_eq!(answer["charge"].as_str().map(str::len), Some(32));
    assert_ne!(answer["charge"], answer["mail"]);

    // Under `Rerun` a claim leaves no trace if the process dies.
    let rerun = IdempotencyLayer::new(store.clone()).on_interrupted(OnInterrupted::Rerun);
    assert_eq!(telling(rerun, &seen).post("r", "a").await.json()["rerun"], "Maybe");
    store.crash();
    let open = telling(IdempotencyLayer::new(store).fail_open(true), &seen).post("o", "a").await.json();
    assert_eq!((&open["fence"], &open["rerun"]), (&json!(0), &json!("Maybe")));
}

#[tokio::test]
async fn a_second_attempt_is_told_so_under_a_larger_fence_with_the_same_derived_keys() {
    let seen = Arc::default();
    let store = TestStore::new();
    let lab = telling(IdempotencyLayer::new(store.clone()), &seen);
    assert_eq!(
        lab.post("two words", "a").await.refusal(),
        (400, "key-malformed".to_owned()),
        "a bare key has no blank"
    );
    assert_eq!(lab.post("\"two words\"", "a").await.problem(), "outcome-unknown");
    lab.post("between", "a").await;
    let again = asking(store.reopen(), Asked::default().says([Reconciled::RunAgain]));
    let second = telling(again, &seen).post("\"two words\"", "a").await.json();
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
    assert!(no_key.text().contains("no idempotency key") && no_key.text().contains("require_key"));
    let no_layer = Lab::of(router()).post("k", "a").await;
    assert_eq!(no_layer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(no_layer.text().contains("IdempotencyLayer covers") && no_layer.text().contains("header_name"));
}

tokio::task_local! {
    static NUMBER: u32;
}

#[tokio::test]
async fn trap_18_task_locals_go_along_where_wrap_run_carries_them() {
    let tenant = || NUMBER.try_with(|tenant| *tenant).ok();
    let plain = Lab::new(IdempotencyLayer::new(MemoryStore::new()), move |_| async move { format!("{:?}", tenant()) });
    assert_eq!(NUMBER.scope(7, plain.post("k", "a")).await.text(), "None", "a task of its own has none");

    let layer = IdempotencyLayer::new(MemoryStore::new());
    let layer = layer.wrap_run(|run| NUMBER.scope(NUMBER.get(), run));
    let lab = Lab::new(layer, move |_| async move { format!("{:?}", tenant()) });
    assert_eq!(NUMBER.scope(7, lab.post("k", "a")).await.text(), "Some(7)");
    let retry = NUMBER.scope(8, lab.post("k", "a")).await;
    assert_eq!((retry.text(), retry.is_replay(), lab.effects()), ("Some(7)", true, 1));
}
