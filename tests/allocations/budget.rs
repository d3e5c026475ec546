//! The page "What it takes" has the bytes of memory that a run, a waiter and a record take.

use std::convert::Infallible;
use std::future::pending;

use allocation_counter::measure;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use tokio::runtime::{Builder, Runtime};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_idempotency::store::Store as _;
use tower_idempotency::{IdempotencyLayer, MemoryStore};

const PAGE: &str = include_str!("../../docs/running/budget.md");

async fn charge(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    // What is sent to this path never ends.
    if request.uri().path() == "/parked" {
        pending::<()>().await;
    }
    Ok(Response::new(Body::from(Bytes::from_static(&[b'x'; 100]))))
}

fn request(path: &str, key: usize) -> Request<Body> {
    let mut request = Request::post(path).body(Body::from("a")).unwrap();
    request.headers_mut().insert("idempotency-key", HeaderValue::from_str(&format!("key-{key}")).unwrap());
    request
}

/// Sends a request, in a task of its own, and lets all tasks go as far as they can.
fn send(runtime: &Runtime, layer: &IdempotencyLayer<MemoryStore>, path: &str, key: usize) {
    runtime.spawn(layer.layer(service_fn(charge)).oneshot(request(path, key)));
    runtime.block_on(async {
        for _ in 0..16 {
            tokio::task::yield_now().await;
        }
    });
}

/// How often something is done. A table doubles its room at 7/8 of a power of two: this and its double are far from all
/// of those, for any power of two of tables among which chance divides the keys.
const MANY: usize = 2_534;

/// The bytes that `each` leaves allocated, on average. It is called twice as often as it is measured: so each table has
/// doubled its room once meanwhile.
fn bytes_of(mut each: impl FnMut(usize)) -> i64 {
    (0..MANY).for_each(&mut each);
    let left = measure(|| (MANY..2 * MANY).for_each(&mut each)).bytes_current;
    left / i64::try_from(MANY).unwrap()
}

/// The bytes that the page states for this.
fn stated(what: &str) -> i64 {
    let row = PAGE.lines().find(|line| line.starts_with(&format!("| {what} |"))).expect("a row");
    let bytes = row.split('|').nth(2).unwrap().trim().strip_suffix(" B").unwrap();
    bytes.replace(',', "").parse().unwrap()
}

#[test]
fn the_page_states_what_a_run_a_waiter_and_a_record_take() {
    // A waiter gives up after two seconds. On the paused clock none does meanwhile.
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let layer = IdempotencyLayer::new(MemoryStore::new());
    let run = bytes_of(|key| send(&runtime, &layer, "/parked", key));
    // Each run that is parked now gets one waiter.
    let waiter = bytes_of(|key| send(&runtime, &layer, "/parked", key));
    let store = MemoryStore::new();
    let layer = IdempotencyLayer::new(store.clone());
    let record = bytes_of(|key| send(&runtime, &layer, "/", key));
    for (what, measured) in [("a run", run), ("a waiter", waiter), ("a record in memory", record)] {
        println!("{what}: {measured} B");
        let stated = stated(what);
        assert!((stated * 9 / 10..=stated).contains(&measured), "{what}: {measured} B measured, {stated} B stated");
    }
    // The store's limit in bytes counts what a record takes, and its table when that has just doubled its room.
    let counted = i64::try_from(store.gauges().bytes.unwrap() / store.gauges().records.unwrap()).unwrap();
    assert!((record..record * 6 / 5).contains(&counted), "{counted} B counted, {record} B measured");
}
