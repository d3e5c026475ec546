//! Measures the price of the recorded answer for a retry.
//!
//! `cargo bench --bench replay`. It runs in process, with one client. Hot: the outcome was recorded by this process;
//! compared with the bare handler. Cold: the store was opened again; compared with a sled read of the same chunks by
//! hand. Both sides take turns, in one run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a bench reports to its terminal")]

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use axum::Router;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use testkit::bench::estimate::{Pairs, pairs};
use testkit::bench::exchange::{bare, protected, send};
use testkit::bench::report::Report;
use tower_idempotency::store::Store;
use tower_idempotency::{MemoryStore, OnInterrupted, SledStore};

/// The lengths of an answer, each with the number of retries in a hot and in a cold round.
const BODIES: [(&str, usize, u32, u32); 3] =
    [("200 B", 200, 5_000, 2_000), ("16 KiB", 16 << 10, 5_000, 500), ("1 MiB", 1 << 20, 1_000, 24)];
/// The length of a chunk of an outcome on disk, as in the store.
const CHUNK: usize = 4_000;
/// The size of an outcome without the answer's body: its status and headers.
const HEAD: usize = 100;

const MOST_HOT: f64 = 2.0;
const MOST_COLD: f64 = 1.5;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let question = "What does a retry pay for the recorded answer?";
    let mut report = Report::new("replay", "cargo bench --bench replay", question);
    for (name, length, hot, cold) in BODIES {
        runtime.block_on(replay_hot(&mut report, "memory", name, length, hot, MemoryStore::new()));
        let directory = directory();
        let store = SledStore::open(directory.path()).unwrap();
        runtime.block_on(replay_hot(&mut report, "sled", name, length, hot, store));
        runtime.block_on(replay_cold(&mut report, name, length, cold));
    }
    report.finish();
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap()
}

async fn replay_hot(
    report: &mut Report,
    store_name: &str,
    body: &str,
    length: usize,
    requests: u32,
    store: impl Store,
) {
    let (bare, ours) = (bare(length).with_state(()), protected(length, store, OnInterrupted::Refuse));
    let first = send(&ours, Some("hot")).await.into_body().collect().await.unwrap().to_bytes();
    let again = || async { send(&ours, Some("hot")).await.into_body().collect().await.unwrap().to_bytes() };
    let (one, two) = (again().await, again().await);
    assert_eq!(first, one);
    assert_eq!(one.as_ptr(), two.as_ptr(), "bodies are shared and not copied");
    let mut both = Pairs { ours: Vec::new(), theirs: Vec::new() };
    for _ in 0..=pairs() {
        both.theirs.push(each(&bare, None, requests).await);
        both.ours.push(each(&ours, Some("hot"), requests).await);
    }
    let group = format!("hot, {store_name}, {body}");
    report.row(&group, "bare handler", "µs", both.theirs());
    report.row(&group, "replay", "µs", both.ours());
    report.row(&group, "more than the bare handler", "µs", both.difference());
    if store_name == "sled" && length == 200 {
        report.at_most("hot/sled/200 B", both.difference(), MOST_HOT);
    }
}

/// Returns the µs that one exchange takes, over a round.
async fn each(app: &Router, key: Option<&str>, requests: u32) -> f64 {
    let began = Instant::now();
    for _ in 0..requests {
        black_box(send(app, key).await);
    }
    began.elapsed().as_secs_f64() * 1e6 / f64::from(requests)
}

async fn replay_cold(report: &mut Report, body: &str, length: usize, requests: u32) {
    let (ours, theirs) = (directory(), directory());
    let store = SledStore::open(ours.path()).unwrap();
    let app = protected(length, store.clone(), OnInterrupted::Rerun);
    let mut answer = Bytes::new();
    for number in 0..requests {
        answer = send(&app, Some(&key(number))).await.into_body().collect().await.unwrap().to_bytes();
    }
    drop(app);
    store.close().await.unwrap();
    by_hand(theirs.path(), |db| {
        let outcome = [vec![0; HEAD], answer.to_vec()].concat();
        for number in 0..requests {
            let mut chunk_key = digest(number);
            for (chunk, bytes) in (0_u32..).zip(outcome.chunks(CHUNK)) {
                chunk_key[32..].copy_from_slice(&chunk.to_be_bytes());
                db.insert(chunk_key, bytes).unwrap();
            }
        }
    });
    let mut both = Pairs { ours: Vec::new(), theirs: Vec::new() };
    for _ in 0..=pairs() {
        both.theirs.push(by_hand(theirs.path(), |db| read_by_hand(db, length, requests)));
        let store = SledStore::open(ours.path()).unwrap();
        let app = protected(length, store.clone(), OnInterrupted::Rerun);
        let began = Instant::now();
        for number in 0..requests {
            let response = send(&app, Some(&key(number))).await;
            assert!(response.headers().contains_key("idempotent-replayed"));
            black_box(response);
        }
        both.ours.push(began.elapsed().as_secs_f64() * 1e6 / f64::from(requests));
        drop(app);
        store.close().await.unwrap();
    }
    let group = format!("cold, sled, {body}");
    report.row(&group, "the same chunks by hand", "µs", both.theirs());
    report.row(&group, "replay", "µs", both.ours());
    report.row(&group, "ratio", "×", both.ratio());
    report.at_most(&format!("cold/sled/{body}"), both.ratio(), MOST_COLD);
}

/// Returns a key that is spread like a UUID.
fn key(number: u32) -> String {
    blake3::hash(&number.to_be_bytes()).to_hex()[..32].to_owned()
}

/// Returns the key of an outcome's first chunk; the keys of the others count up.
fn digest(number: u32) -> [u8; 36] {
    let mut key = [0; 36];
    key[..32].copy_from_slice(blake3::hash(&number.to_be_bytes()).as_bytes());
    key
}

fn by_hand<T>(directory: &Path, act: impl FnOnce(&sled::Db) -> T) -> T {
    let db = sled::Config::new().path(directory).cache_capacity(64 << 20).open().unwrap();
    let result = act(&db);
    db.flush().unwrap();
    result
}

/// Returns the µs of reading one outcome and putting it together.
fn read_by_hand(db: &sled::Db, length: usize, outcomes: u32) -> f64 {
    let began = Instant::now();
    for number in 0..outcomes {
        let mut outcome = BytesMut::with_capacity(HEAD + length);
        let mut chunk_key = digest(number);
        for chunk in 0..u32::try_from((HEAD + length).div_ceil(CHUNK)).unwrap() {
            chunk_key[32..].copy_from_slice(&chunk.to_be_bytes());
            outcome.extend_from_slice(&db.get(chunk_key).unwrap().unwrap());
        }
        black_box(outcome.freeze());
    }
    began.elapsed().as_secs_f64() * 1e6 / f64::from(outcomes)
}
