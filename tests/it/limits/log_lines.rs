//! Log lines that a client can cause as often as it likes: each is logged at most once a minute, with a count of the
//! others, and in full at DEBUG.

use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use http::Response;
use http_body_util::Full;
use testkit::lab::Lab;
use testkit::lab::asked::leave_interrupted;
use testkit::lab::time::{HOUR, SECOND};
use testkit::log::Log;
use tower_idempotency::engine::{Reconciled, Reconciler};
use tower_idempotency::store::InterruptedRun;
use tower_idempotency::test_util::{StoreCall, TestStore};
use tower_idempotency::{IdempotencyLayer, MemoryStore};
use tracing::Level;

type Reply = Reconciled<Response<Full<bytes::Bytes>>>;

/// Sends fifty requests, with keys of their own or all with the same, and one more after a minute. Each time, each of
/// these lines is logged once, and no other.
async fn a_line_a_minute(lab: &Lab, key: fn(usize) -> String, expected: &[&str]) {
    let log = Log::begin(Level::INFO);
    for (requests, count) in [(0..50, "count=1"), (50..51, "count=50")] {
        join_all(requests.map(|number| {
            let (lab, key) = (lab.clone(), key(number));
            async move { lab.post(&key, "a").await }
        }))
        .await;
        let lines = log.lines();
        for line in expected {
            let logged: Vec<_> = lines.iter().filter(|logged| logged.contains(line)).collect();
            assert!(logged.len() == 1 && logged[0].contains(count), "{line}: {lines:#?}");
        }
        assert_eq!(lines.len(), expected.len(), "{lines:#?}");
        tokio::time::advance(SECOND * 60).await;
    }
}

fn own(number: usize) -> String {
    format!("k{number}")
}

fn same(_: usize) -> String {
    "k".to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_two_lines_a_minute_and_not_two_a_request() {
    let store = TestStore::new();
    store.crash();
    let lab = Lab::counting(IdempotencyLayer::new(store));
    a_line_a_minute(&lab, own, &["the store failed", "refused: store-unavailable"]).await;
    assert_eq!(lab.effects(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_runs_unprotected_is_a_line_a_minute() {
    let store = TestStore::new();
    store.crash();
    let lab = Lab::counting(IdempotencyLayer::new(store).fail_open(true));
    a_line_a_minute(&lab, own, &["the store failed", "the handler runs unprotected"]).await;
    assert_eq!(lab.effects(), 51);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_a_line_a_minute() {
    let store = TestStore::new();
    let _stall = store.stall(StoreCall::Claim);
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    a_line_a_minute(&lab, own, &["the store has not answered", "refused: store-unavailable"]).await;
}

#[tokio::test(start_paused = true)]
async fn answers_that_can_not_be_recorded_are_a_line_a_minute() {
    let store = TestStore::new();
    (0..10_000).for_each(|_| store.fail_next(StoreCall::Complete));
    let lab = Lab::counting(IdempotencyLayer::new(store));
    a_line_a_minute(&lab, own, &["answered without a record"]).await;
    assert_eq!(lab.effects(), 51);
}

#[tokio::test(start_paused = true)]
async fn a_full_store_is_a_line_a_minute() {
    let lab = Lab::counting(IdempotencyLayer::new(MemoryStore::builder().max_records(0).build()));
    a_line_a_minute(&lab, own, &["the store failed", "refused: store-full"]).await;
}

#[tokio::test(start_paused = true)]
async fn handlers_that_panic_or_take_too_long_are_a_line_a_minute() {
    let lab = Lab::new(IdempotencyLayer::new(MemoryStore::new()), |_| async { panic!("on purpose") as &str });
    a_line_a_minute(&lab, own, &["the handler panicked", "refused: outcome-unknown"]).await;
    let layer = IdempotencyLayer::new(MemoryStore::new()).max_run(SECOND);
    let lab = Lab::new(layer, |_| async { tokio::time::sleep(HOUR).await });
    a_line_a_minute(&lab, own, &["the handler exceeded max_run", "refused: outcome-unknown"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_reconciler_that_fails_is_a_line_a_minute() {
    let panics = Reconciler::new(|_: InterruptedRun| async { panic!("on purpose") as Reply });
    let hangs = Reconciler::new(|_: InterruptedRun| std::future::pending::<Reply>()).timeout(SECOND);
    for (reconciler, line) in [(panics, "the reconciler panicked"), (hangs, "the reconciler exceeded its timeout")] {
        let store = MemoryStore::new();
        for number in 0..51 {
            leave_interrupted(&store, &own(number)).await;
        }
        let lab = Lab::counting(IdempotencyLayer::new(store).reconcile_with(reconciler));
        a_line_a_minute(&lab, own, &[line, "refused: outcome-unknown"]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn rejections_of_a_kind_are_a_line_a_minute_and_each_is_shown_at_debug() {
    let lab = Lab::counting(IdempotencyLayer::new(MemoryStore::new()));
    lab.post("k", "first").await;
    a_line_a_minute(&lab, same, &["refused: key-reused"]).await;
    let log = Log::begin(Level::DEBUG);
    for _ in 0..10 {
        lab.post("k", "other").await;
        lab.post("not a key", "a").await;
    }
    let lines = log.lines();
    for refused in ["refused: key-reused", "refused: key-malformed"] {
        assert_eq!(lines.iter().filter(|line| line.contains(refused)).count(), 10, "{lines:#?}");
    }
    // With `rejection_level(Level::TRACE)`, there are none at DEBUG.
    let lab = Lab::counting(IdempotencyLayer::new(MemoryStore::new()).rejection_level(Level::TRACE));
    for _ in 0..10 {
        lab.post("not a key", "a").await;
    }
    assert_eq!(log.lines(), [""; 0]);
}

/// The source files under a directory.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

// Requests cause all log lines of the engine and the layer, but those about options.
#[test]
fn engine_and_layer_log_only_what_is_limited() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = ["engine", "server", "slots"].map(|room| sources(&source.join(room))).concat();
    assert!(files.len() > 50, "the sources are not found: {files:?}");
    for file in files.iter().filter(|file| !file.ends_with("warnings.rs")) {
        let text = std::fs::read_to_string(file).unwrap();
        for level in ["error", "warn", "info"] {
            let logs = text.lines().filter(|line| line.contains(&format!("tracing::{level}!(")));
            let unlimited: Vec<_> = logs.filter(|line| !line.contains("parent: $span")).collect();
            assert!(unlimited.is_empty(), "{}: use `once_a_minute!`: {unlimited:?}", file.display());
        }
    }
}
