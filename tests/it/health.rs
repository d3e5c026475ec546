//! `/livez` and `/readyz`: each reason for which new keys are refused makes a process not ready.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures_util::future::join_all;
use http::Request;
use serde_json::{Value, json};
use testkit::lab::disk::{Disk, DiskBuilder as _};
use testkit::lab::steps::Steps as _;
use testkit::lab::time::{HOUR, clock};
use testkit::lab::{Lab, done, hold, on_disk, post};
use testkit::{Answer, Gate, on_both};
use tower_idempotency::server::health::{self, NotReady, Readiness};
use tower_idempotency::store::Store;
use tower_idempotency::test_util::TestStore;
use tower_idempotency::{AnyStore, IdempotencyLayer, MemoryStore, SledStore};

async fn ask(app: &Router, method: &str, path: &str) -> Answer {
    let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    Lab::of(app.clone()).send(request).await
}

/// What both probes say of `stores`: the statuses of `/livez` and `/readyz`, and the reasons for each store.
async fn said<St: Store>(stores: impl IntoIterator<Item = St>) -> (u16, u16, Value) {
    let app: Router = health::routes(stores);
    let [live, ready] = [ask(&app, "GET", "/livez").await, ask(&app, "GET", "/readyz").await];
    for answer in [&live, &ready] {
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    assert_eq!(live.body, ready.body);
    let said = ready.json();
    assert_eq!([&said["live"], &said["ready"]], [&json!(live.status == 200), &json!(ready.status == 200)]);
    (live.status.as_u16(), ready.status.as_u16(), said["stores"].clone())
}

/// Waits for a change that comes by itself. [`said`] asks twice, and the change may come in between.
async fn until_ready_is<St: Store>(is_ready: bool, store: &St) {
    testkit::process::until("it is ready or not", async || Readiness::of(store).is_ready() == is_ready).await;
}

fn of(store: &str, reasons: &[&str]) -> Value {
    json!([{ "store": store, "reasons": reasons }])
}

#[tokio::test]
async fn a_process_is_ready_while_it_takes_new_keys_and_names_its_store() {
    assert_eq!(said([MemoryStore::new()]).await, (200, 200, of("memory", &[])));
}

on_both!(a_store_on_disk_is_named_by_its_engine);
async fn a_store_on_disk_is_named_by_its_engine<D: Disk>() {
    let (_directory, store) = on_disk(D::builder());
    assert_eq!(said([store.clone()]).await, (200, 200, of(D::NAME, &[])));
    assert_eq!(said([AnyStore::new(store)]).await, (200, 200, of(D::NAME, &[])));
}

#[tokio::test]
async fn a_probe_may_ask_for_the_head_alone() {
    let app: Router = health::routes([TestStore::new()]);
    for path in ["/livez", "/readyz"] {
        let answer = ask(&app, "HEAD", path).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0));
        assert_eq!(ask(&app, "POST", path).await.status, 405);
    }
}

/// Records an outcome that is kept for an hour.
async fn record<St: Store>(store: &St) {
    let hold = hold(store, "k").await;
    store.complete(done(hold, "recorded", HOUR)).await.unwrap();
}

#[tokio::test]
async fn a_full_store_makes_a_process_not_ready_until_a_record_expires() {
    for limited in [MemoryStore::builder().max_records(1), MemoryStore::builder().max_bytes(1)] {
        let clock = clock();
        let store = limited.clock(clock.clone()).build();
        assert_eq!(said([store.clone()]).await, (200, 200, of("memory", &[])));
        record(&store).await;
        assert_eq!(said([store.clone()]).await, (200, 503, of("memory", &["full"])));
        let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
        assert_eq!(lab.post("new", "a").await.refusal(), (503, "store-full".to_owned()));
        // Only a claim deletes the record, and no request comes to a process that is not ready.
        clock.advance(HOUR);
        assert_eq!(said([store]).await, (200, 200, of("memory", &[])));
        assert_eq!(lab.post("new", "a").await.status, 200);
    }
}

on_both!(a_full_store_on_disk_makes_a_process_not_ready_until_it_is_swept);
async fn a_full_store_on_disk_makes_a_process_not_ready_until_it_is_swept<D: Disk>() {
    // Both wait for their sweep, which comes each second.
    join_all([D::builder().max_records(1), D::builder().max_bytes(1)].map(async |limited| {
        let clock = clock();
        let (_directory, store) = on_disk(limited.clock(clock.clone()));
        assert_eq!(said([store.clone()]).await, (200, 200, of(D::NAME, &[])));
        record(&store).await;
        assert_eq!(said([store.clone()]).await, (200, 503, of(D::NAME, &["full"])));
        clock.advance(HOUR);
        until_ready_is(true, &store).await;
        assert_eq!(said([store]).await, (200, 200, of(D::NAME, &[])));
    }))
    .await;
}

on_both!(a_disk_that_is_nearly_full_makes_a_process_not_ready);
async fn a_disk_that_is_nearly_full_makes_a_process_not_ready<D: Disk>() {
    let (_directory, store) = on_disk(D::builder().min_free_space(u64::MAX));
    until_ready_is(false, &store).await;
    assert_eq!(said([store]).await, (200, 503, of(D::NAME, &["full"])));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_drains_is_not_ready_and_lives() {
    let (store, gate) = (TestStore::new(), Gate::default());
    let layer = IdempotencyLayer::new(store.clone());
    let running = testkit::lab::gated(layer.clone(), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    let draining = tokio::spawn(async move { layer.drain(HOUR).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(said([store.clone()]).await, (200, 503, of("test", &["draining"])));
    gate.open();
    assert!(draining.await.unwrap().is_complete());
    assert_eq!(running.await.unwrap().status, 200);
    assert_eq!(said([store]).await, (200, 503, of("test", &["draining"])));
}

#[tokio::test]
async fn a_closed_store_makes_a_process_not_ready_and_needs_no_restart() {
    for store in [
        AnyStore::new(on_disk(SledStore::builder()).1),
        #[cfg(feature = "fjall")]
        AnyStore::new(on_disk(tower_idempotency::FjallStore::builder()).1),
    ] {
        store.close().await.unwrap();
        assert_eq!(said([store.clone()]).await, (200, 503, of(store.name(), &["closed"])));
    }
    let store = TestStore::new();
    store.crash();
    let _ = IdempotencyLayer::new(store.clone()).drain(HOUR).await;
    assert_eq!(said([store]).await, (200, 503, of("test", &["closed", "draining"])), "all reasons are named");
}

#[tokio::test]
async fn of_several_stores_each_has_to_be_ready_and_a_clone_is_no_other_store() {
    let (full, store) = (MemoryStore::builder().max_records(0).build(), TestStore::new());
    let stores = [AnyStore::new(store.clone()), AnyStore::new(store.clone()), AnyStore::new(full.clone())];
    let expected = json!([{ "store": "test", "reasons": [] }, { "store": "memory", "reasons": ["full"] }]);
    assert_eq!(said(stores).await, (200, 503, expected));
    assert_eq!(said([store.clone(), store]).await, (200, 200, of("test", &[])));
    let Readiness { store, reasons, .. } = Readiness::of(&full);
    assert_eq!((store, &reasons[..]), ("memory", &[NotReady::Full][..]));
}

#[test]
fn without_axum_the_same_answers_are_given() {
    let full = [MemoryStore::builder().max_records(0).build()];
    let [live, ready] = [health::livez(&full), health::readyz(&full)];
    assert_eq!((live.status().as_u16(), ready.status().as_u16()), (200, 503));
    assert_eq!(ready.headers()["cache-control"], "no-store");
    assert_eq!(live.body(), ready.body());
}
