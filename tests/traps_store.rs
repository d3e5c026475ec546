//! Traps 54–63 of published middleware: store and operation. Each test is named after what is promised instead.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::collections::HashSet;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use common::lab::{Gate, Lab, done, hold, id, on_disk, post, tree};
use common::steps::{Steps as _, wish};
use futures_util::FutureExt as _;
use http::{Request, StatusCode};
use tower_http::cors::CorsLayer;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::record::{Reply, State};
use tower_idempotency::store::{OpenError, Page, Store};
use tower_idempotency::test_util::{ManualClock, TestStore, Verb};
use tower_idempotency::{IdempotencyLayer, MemoryStore, OnInterrupted, RejectionKind, SledStore};

const HOUR: Duration = Duration::from_secs(3_600);

fn clock() -> ManualClock {
    ManualClock::new(Timestamp::from_millis(1_800_000_000_000))
}

fn store_full() -> (u16, String) {
    (503, "store-full".to_owned())
}

async fn complete<St: Store>(store: &St, key: &str, retention: Duration) {
    let hold = hold(store, key).await;
    assert_eq!(store.complete(done(hold, "done", retention)).await.unwrap(), Reply::Taken);
}

#[tokio::test]
async fn trap_54_a_sweep_deletes_a_slice_and_no_more() {
    let clock = clock();
    let store = MemoryStore::builder().clock(clock.clone()).build();
    for number in 0..5 {
        complete(&store, &format!("old {number}"), HOUR).await;
    }
    complete(&store, "young", HOUR * 2).await;
    assert_eq!(store.sweep(2).await.unwrap(), 0, "nothing has expired");
    clock.advance(HOUR);
    for swept in [2, 2, 1, 0] {
        assert_eq!(store.sweep(2).await.unwrap(), swept);
    }
    assert_eq!(store.len(), 1);
    assert!(store.load(id("young")).await.unwrap().is_some());
}

#[tokio::test]
async fn trap_54_on_disk_too_a_sweep_deletes_a_slice_with_all_that_belongs_to_it() {
    let clock = clock();
    let (_directory, store) = on_disk(SledStore::builder().clock(clock.clone()));
    for number in 0..5 {
        complete(&store, &format!("old {number}"), HOUR).await;
    }
    complete(&store, "young", HOUR * 2).await;
    let large: &'static str = String::leak("x".repeat(10_000));
    let chunked = hold(&store, "chunked").await;
    store.complete(done(chunked, large, HOUR)).await.unwrap();
    assert_eq!(store.sweep(2).await.unwrap(), 0, "nothing has expired");
    clock.advance(HOUR);
    // The store sweeps by itself as well, so that a slice may be smaller.
    while tree(&store).scan_prefix("r").count() > 1 {
        assert!(store.sweep(2).await.unwrap() <= 2);
    }
    assert_eq!(store.sweep(2).await.unwrap(), 0);
    assert!(store.load(id("young")).await.unwrap().is_some());
    let left = ["r", "e", "n", "i", "c"].map(|kind| tree(&store).scan_prefix(kind).count());
    assert_eq!(left, [1, 1, 0, 0, 0], "records, expiries, running, interrupted, chunks");
}

#[test]
fn trap_57_many_claims_at_once_take_all_places_and_no_more() {
    for _ in 0..500 {
        let store = MemoryStore::builder().max_records(4).build();
        let claims: Vec<_> = (0..8).map(|number| wish(&format!("k{number}"))).collect();
        let taken = std::thread::scope(|scope| {
            let store = &store;
            let claim = |wish| scope.spawn(move || store.claim(wish).now_or_never().unwrap().is_ok());
            let claims: Vec<_> = claims.into_iter().map(claim).collect();
            claims.into_iter().map(|claim| claim.join().unwrap()).filter(|taken| *taken).count()
        });
        assert_eq!((taken, store.len()), (4, 4));
        assert!(store.claim(wish("one more")).now_or_never().unwrap().is_err());
        assert_eq!(store.len(), 4);
    }
}

async fn sweep_spares_the_running<St: Store>(store: St, clock: &ManualClock) {
    let running = hold(&store, "running").await;
    let cut = hold(&store, "cut").await;
    complete(&store, "done", HOUR).await;
    clock.advance(HOUR * 24 * 365 * 10);
    store.interrupt(cut.id, cut.fence).await.unwrap();
    assert!(store.sweep(100).await.unwrap() <= 1);
    assert_eq!(store.sweep(100).await.unwrap(), 0);
    let record = store.load(id("running")).await.unwrap().expect("the running one is there");
    assert!(matches!(record.state, State::Running { .. }), "{record:?}");
    assert_eq!(record.fence, running.fence);
    assert_eq!(store.interrupted(Page::first(10)).await.unwrap().len(), 1, "kept a day from when it was cut short");
    assert_eq!(store.complete(done(running, "late", HOUR)).await.unwrap(), Reply::Taken);
    let record = store.load(id("running")).await.unwrap().expect("the completed one is there");
    assert!(matches!(&record.state, State::Completed { outcome, .. } if outcome == "late"), "{record:?}");
}

#[tokio::test]
async fn trap_55_a_sweep_spares_a_running_claim_however_old() {
    let clock = clock();
    sweep_spares_the_running(MemoryStore::builder().clock(clock.clone()).build(), &clock).await;
    let (_directory, store) = on_disk(SledStore::builder().clock(clock.clone()));
    sweep_spares_the_running(store, &clock).await;
}

#[tokio::test]
async fn trap_56_a_store_that_is_away_refuses_before_the_handler() {
    let store = TestStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    store.fail_next(Verb::Claim);
    let refused = lab.post("k", "a").await;
    assert_eq!(refused.refusal(), (503, "store-unavailable".to_owned()));
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.json()["retry_with_same_key"], true);
    assert_eq!(lab.effects(), 0);
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    store.crash();
    assert_eq!(lab.post("new", "a").await.refusal(), (503, "store-unavailable".to_owned()));
    assert_eq!(lab.effects(), 1);
}

/// Fills the store with one run, whose outcome takes it beyond any limit of bytes; `fail_open` doesn't open it.
async fn full_refuses_claims_only<St: Store>(layer: IdempotencyLayer<St>) {
    let gate = Gate::default();
    let passed = gate.clone();
    let lab = Lab::new(layer.fail_open(true), move |_| {
        let gate = passed.clone();
        async move {
            gate.pass().await;
            "x".repeat(10_000)
        }
    });
    let first = lab.spawn(post("k", "a"));
    gate.arrival().await;
    gate.open();
    let first = first.await.unwrap();
    let refused = lab.post("new", "a").await;
    assert_eq!(refused.refusal(), store_full());
    assert_eq!(refused.json()["retry_with_same_key"], true);
    let retry = lab.post("k", "a").await;
    assert_eq!((retry.is_replay(), &retry.body), (true, &first.body), "the completion was not refused");
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn trap_57_a_full_store_refuses_new_keys_before_the_handler_and_never_a_completion() {
    for policy in [OnInterrupted::Refuse, OnInterrupted::Rerun] {
        let layer = |store| IdempotencyLayer::new(store).on_interrupted(policy.clone());
        full_refuses_claims_only(layer(MemoryStore::builder().max_records(1).build())).await;
        full_refuses_claims_only(layer(MemoryStore::builder().max_bytes(1_000).build())).await;
        let (_directory, store) = on_disk(SledStore::builder().max_records(1));
        full_refuses_claims_only(IdempotencyLayer::new(store).on_interrupted(policy.clone())).await;
    }
}

async fn full_forgets_nothing<St: Store>(layer: IdempotencyLayer<St>) {
    let gate = Gate::default();
    let passed = gate.clone();
    let lab = Lab::new(layer, move |number| {
        let gate = passed.clone();
        async move {
            if number == 5 {
                gate.pass().await;
            }
            format!("effect {number}")
        }
    });
    for key in ["1", "2", "3", "4"] {
        assert_eq!(lab.post(key, "a").await.text(), format!("effect {key}"));
    }
    let running = lab.spawn(post("5", "a"));
    gate.arrival().await;
    for number in 0..50 {
        assert_eq!(lab.post(&format!("new-{number}"), "a").await.refusal(), store_full());
    }
    for key in ["1", "2", "3", "4"] {
        let retry = lab.post(key, "a").await;
        assert_eq!((retry.text(), retry.is_replay()), (&*format!("effect {key}"), true));
    }
    gate.open();
    assert_eq!(running.await.unwrap().text(), "effect 5");
    assert!(lab.post("5", "a").await.is_replay());
    assert_eq!(lab.effects(), 5);
}

#[tokio::test]
async fn trap_58_a_full_store_evicts_neither_running_nor_unexpired_records() {
    full_forgets_nothing(IdempotencyLayer::new(MemoryStore::builder().max_records(5).build())).await;
    let (_directory, store) = on_disk(SledStore::builder().max_records(5));
    full_forgets_nothing(IdempotencyLayer::new(store)).await;
}

const SMALL: usize = 10;
const LARGE: usize = 10_000;

/// Records an outcome under `k` and one under `other`, damages what is stored, and posts again.
async fn damaged_is_refused(length: usize, damage: impl Fn(&sled::Tree)) {
    for fail_open in [false, true] {
        // No cache, so that the disk answers.
        let (_directory, store) = on_disk(SledStore::builder().outcome_cache_bytes(0));
        let layer = IdempotencyLayer::new(store.clone()).fail_open(fail_open);
        let lab = Lab::new(layer.clone(), move |_| async move { "x".repeat(length) });
        lab.post("k", "a").await;
        lab.post("other", "a").await;
        assert!(lab.post("k", "a").await.is_replay());
        damage(&tree(&store));
        for refusals in 1..=2 {
            let refused = lab.post("k", "a").await;
            assert_eq!(refused.refusal(), (503, "store-unavailable".to_owned()));
            assert!(!refused.headers.contains_key("retry-after"), "waiting does not help");
            assert_eq!(layer.counts().corrupt, refusals);
        }
        assert!(lab.post("other", "a").await.is_replay(), "the damage is one key's");
        assert_eq!((lab.effects(), layer.counts().unprotected), (2, 0));
    }
}

fn record_key(key: &str) -> Vec<u8> {
    [b"r", &id(key).as_bytes()[..]].concat()
}

#[tokio::test]
async fn trap_59_bytes_that_are_no_record_are_refused_and_counted() {
    damaged_is_refused(SMALL, |tree| drop(tree.insert(record_key("k"), "garbage").unwrap())).await;
    damaged_is_refused(SMALL, |tree| drop(tree.insert(record_key("k"), "").unwrap())).await;
}

#[tokio::test]
async fn trap_59_a_record_with_one_wrong_bit_is_refused() {
    damaged_is_refused(SMALL, |tree| {
        let mut bytes = tree.get(record_key("k")).unwrap().unwrap().to_vec();
        bytes[20] ^= 1;
        tree.insert(record_key("k"), bytes).unwrap();
    })
    .await;
}

#[tokio::test]
async fn trap_59_another_keys_record_is_refused() {
    damaged_is_refused(SMALL, |tree| {
        let other = tree.get(record_key("other")).unwrap().unwrap();
        tree.insert(record_key("k"), other).unwrap();
    })
    .await;
}

fn chunks(tree: &sled::Tree) -> Vec<sled::IVec> {
    let chunks = tree.scan_prefix([b"c", &id("k").as_bytes()[..]].concat()).keys();
    let chunks: Vec<_> = chunks.map(Result::unwrap).collect();
    assert_eq!(chunks.len(), 3, "10,000 bytes in pieces of at most 4,000");
    chunks
}

#[tokio::test]
async fn trap_59_an_outcome_with_a_part_missing_or_altered_is_refused() {
    damaged_is_refused(LARGE, |tree| drop(tree.remove(&chunks(tree)[1]).unwrap())).await;
    damaged_is_refused(LARGE, |tree| {
        let last = &chunks(tree)[2];
        let same_length = vec![b'y'; tree.get(last).unwrap().unwrap().len()];
        tree.insert(last, same_length).unwrap();
    })
    .await;
}

#[tokio::test]
async fn trap_60_a_second_opening_is_an_error_that_names_the_remedy() {
    let (directory, store) = on_disk(SledStore::builder());
    let error = SledStore::open(directory.path()).unwrap_err();
    assert!(matches!(&error, OpenError::InUse { path } if path == directory.path()), "{error:?}");
    let message = error.to_string();
    assert!(message.contains(&directory.path().display().to_string()), "{message}");
    assert!(
        message.contains("Clone the store that is open") && message.contains("stop the other process"),
        "{message}"
    );

    let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    assert_eq!(lab.post("k", "a").await.text(), "effect 1", "the first goes on working");
    store.close().await.unwrap();
    let lab = Lab::counting(IdempotencyLayer::new(SledStore::open(directory.path()).unwrap()));
    assert!(lab.post("k", "a").await.is_replay());
    assert_eq!(lab.effects(), 0);
}

#[test]
fn trap_61_problem_types_are_distinct_stable_and_described() {
    let slugs = RejectionKind::ALL.map(RejectionKind::slug);
    let promised = [
        "key-missing",
        "key-malformed",
        "body-too-large",
        "body-incomplete",
        "store-unavailable",
        "store-full",
        "overloaded",
        "shutting-down",
        "key-reused",
        "credentials-changed",
        "not-verifiable",
        "in-flight",
        "not-replayable",
        "outcome-unknown",
    ];
    assert_eq!(slugs, promised);
    assert_eq!(HashSet::from(slugs).len(), slugs.len());
    let described = include_str!("../src/problem.rs");
    let sections: Vec<_> = described.lines().filter_map(|line| line.strip_prefix("//! ## ")).collect();
    assert_eq!(sections, promised);
}

#[tokio::test]
async fn trap_61_a_refusal_names_its_type_in_body_and_link() {
    let layer = IdempotencyLayer::new(MemoryStore::new()).require_key(true).problem_base("https://pay.example/p/");
    let lab = Lab::counting(layer);
    let refused = lab.send(Request::post("/charges").body(Body::empty()).unwrap()).await;
    assert_eq!(refused.headers["content-type"], "application/problem+json");
    assert_eq!(refused.headers["link"], "<https://pay.example/p/key-missing>; rel=\"describedby\"");
    let problem = refused.json();
    assert_eq!((&problem["type"], &problem["status"]), (&"https://pay.example/p/key-missing".into(), &400.into()));
    assert_eq!((refused.status, lab.effects()), (StatusCode::BAD_REQUEST, 0));
}

#[tokio::test]
async fn trap_62_a_mismatch_is_422_which_no_sdk_retries() {
    let lab = Lab::counting(IdempotencyLayer::new(MemoryStore::new()));
    lab.post("k", "a").await;
    let mismatch = lab.post("k", "b").await;
    assert_eq!(mismatch.refusal(), (422, "key-reused".to_owned()));
    assert_eq!(mismatch.json()["retry_with_same_key"], false);
    assert!(!mismatch.headers.contains_key("retry-after"));
    let mut bob = post("k", "a");
    bob.headers_mut().insert("authorization", "Bearer bob".parse().unwrap());
    let changed = lab.send(bob).await;
    assert_eq!(changed.refusal(), (422, "credentials-changed".to_owned()));
    assert!(changed.text().contains("Do not mint a new key"), "{changed:?}");
    assert_eq!(lab.effects(), 1);
}

fn from_origin(origin: &str, key: &str) -> Request<Body> {
    let mut request = post(key, "a");
    request.headers_mut().insert("origin", origin.parse().unwrap());
    request
}

#[tokio::test]
async fn trap_63_with_cors_outside_a_browser_sends_the_key_and_reads_the_marker() {
    let origins = ["https://a.example", "https://b.example"];
    let cors = CorsLayer::new()
        .allow_origin(origins.map(|origin| origin.parse().unwrap()))
        .allow_methods([http::Method::POST])
        .allow_headers(["idempotency-key".parse().unwrap()])
        .expose_headers(["idempotent-replayed", "retry-after"].map(|name| name.parse().unwrap()));
    let mut lab = Lab::counting(IdempotencyLayer::new(MemoryStore::new()).require_key(true));
    lab.app = lab.app.layer(cors);

    let preflight = Request::options("/charges")
        .header("origin", origins[0])
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "idempotency-key");
    let preflight = lab.send(preflight.body(Body::empty()).unwrap()).await;
    assert_eq!(preflight.headers["access-control-allow-headers"], "idempotency-key");
    assert_eq!((preflight.status, lab.effects()), (StatusCode::OK, 0), "a preflight has no key and needs none");

    let first = lab.send(from_origin(origins[0], "k")).await;
    let retry = lab.send(from_origin(origins[1], "k")).await;
    let refused = lab.send(from_origin(origins[0], "")).await;
    assert_eq!((first.is_replay(), retry.is_replay(), refused.status.as_u16()), (false, true, 400));
    for (answer, origin) in [(&first, origins[0]), (&retry, origins[1]), (&refused, origins[0])] {
        let allowed: Vec<_> = answer.headers.get_all("access-control-allow-origin").iter().collect();
        assert_eq!(allowed, [origin], "its own, once, and not the recorded one's");
        assert_eq!(answer.headers["access-control-expose-headers"], "idempotent-replayed,retry-after");
    }
    assert_eq!((retry.body, lab.effects()), (Bytes::from("effect 1"), 1));
}
