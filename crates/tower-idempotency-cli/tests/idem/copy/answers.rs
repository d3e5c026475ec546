//! What retries get, and what operators see, is the same after a copy.

use std::time::Duration;

use testkit::postgres::own_server;
use testkit::process::until;
use tower_idempotency::internals::{Records as _, RunResult, State};
use tower_idempotency::store::Store as _;
use tower_idempotency::{AnyStore, RecordId};

use super::{HOUR, Place, claim, complete, listed};
use crate::postgres::served;
use crate::program::{idem, json};
use crate::redis;
use crate::service::{Service, id};

/// The operations of messages.
const MESSAGES: [[u8; 32]; 4] = [[1; 32], [2; 32], [3; 32], [4; 32]];

/// An outcome in chunks.
fn long() -> Vec<u8> {
    (0..(1_u32 << 20) + 17).map(|number| number.to_le_bytes()[0] ^ number.to_le_bytes()[1]).collect()
}

/// Makes operations of every kind: a run whose process dies, a long outcome, one that could not be stored, and one
/// that expires.
async fn work(store: &AnyStore) {
    let service = Service::over(store.clone());
    service.send("/done", "k1", "paid").await;
    service.send("/done", "k2", &"paid ".repeat(1_000)).await;
    service.send("/unsure", "k3", "").await;
    let [dies, lasts, consumed, expires] = MESSAGES.map(RecordId::from_bytes);
    let hold = claim(store, lasts).await;
    complete(store, hold, RunResult::Outcome(long().into()), HOUR).await;
    let hold = claim(store, consumed).await;
    complete(store, hold, RunResult::Consumed { status: 418 }, HOUR).await;
    let hold = claim(store, expires).await;
    complete(store, hold, RunResult::Outcome("gone".into()), Duration::from_millis(1)).await;
    until("the end of its retention", async || store.load(expires).await.unwrap().is_none()).await;
    claim(store, dies).await;
}

/// What retries get: the same request, and another body under each key.
async fn retries(store: &AnyStore) -> Vec<(u16, String, bool)> {
    let service = Service::over(store.clone());
    let (long, mut answers) = ("paid ".repeat(1_000), Vec::new());
    for (path, key, body) in [
        ("/done", "k1", "paid"),
        ("/done", "k1", "another"),
        ("/done", "k2", &long),
        ("/unsure", "k3", ""),
        ("/unsure", "k3", "another"),
    ] {
        answers.push(service.send(path, key, body).await);
    }
    assert_eq!(answers.iter().map(|answer| answer.0).collect::<Vec<_>>(), [201, 422, 201, 409, 422], "{answers:?}");
    assert!(answers[0].2 && answers[2].2, "they are replayed");
    answers
}

/// Runs the command, and compares what both stores say.
fn copied(from: &str, to: &str) {
    let before = listed(from);
    assert_eq!(before.len(), 6, "the expired one is not listed: {before:#?}");
    let said = json(0, &["copy", from, to]);
    assert_eq!((&said["read"], &said["copied"], &said["complete"]), (&6.into(), &6.into(), &true.into()), "{said:#}");
    assert!(said["from"] == said["to"] && said["to"]["interrupted"] == 2 && said["others"] == 0, "{said:#}");
    // With their times, fences, attempts, labels and scopes.
    assert_eq!(listed(to), before);
    let again = json(0, &["copy", from, to]);
    assert_eq!((&again["copied"], &again["already_there"]), (&0.into(), &6.into()), "{again:#}");
    let text = idem(&["copy", from, to]);
    assert!(text.last_line().starts_with("The copy is complete"), "{text:?}");
}

/// What the new store answers is what the old one did, and its fences go on.
async fn answers_on(store: &AnyStore, before: &[(u16, String, bool)], highest: u64) {
    assert_eq!(retries(store).await, before);
    let whole = store.load(RecordId::from_bytes(MESSAGES[1])).await.unwrap().unwrap();
    assert!(matches!(whole.state, State::Completed { outcome } if outcome == long()));
    assert!(store.load(RecordId::from_bytes(MESSAGES[3])).await.unwrap().is_none());
    // One that had a fence there, and one that is new.
    for id in [RecordId::from_bytes(MESSAGES[3]), id("new")] {
        let fence = claim(store, id).await.fence;
        assert!(highest < fence.0, "{fence} was given after {highest}");
    }
}

fn highest(store: &str) -> u64 {
    listed(store).iter().map(|one| one["fence"].as_str().unwrap().parse::<u64>().unwrap()).max().unwrap()
}

async fn between(from: &'static str, to: &'static str) {
    let (from, to) = (Place::of(from), Place::of(to));
    // The fences of the old store are far beyond those of a new one.
    for _ in 0..3 {
        from.with(async |_| ()).await;
    }
    let before = from
        .with(async |store| {
            work(store).await;
            retries(store).await
        })
        .await;
    copied(&from.name(), &to.name());
    // Of those that are not live any more, too.
    let last = from.with(async |store| claim(store, id("last")).await.fence.0).await;
    let highest = highest(&from.name());
    assert!(highest <= last);
    to.with(async |store| answers_on(store, &before, highest).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sled_to_fjall_changes_no_answer() {
    between("sled", "fjall").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fjall_to_sled_changes_no_answer() {
    between("fjall", "sled").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_postgresql_and_back_and_there_again_changes_no_answer() {
    let Some(server) = own_server("that records move to PostgreSQL and back", &[]) else { return };
    let (url, store) = served(&server).await;
    store.close().await.unwrap();
    there_and_back_and_there_again(&url, "fjall", opened).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_redis_and_back_and_there_again_changes_no_answer() {
    let Some(server) = redis::durable_server("that records move to Redis and back") else { return };
    let opened = async |url: &str| AnyStore::new(redis::opened(url).await);
    there_and_back_and_there_again(&redis::url(&server), "sled", opened).await;
}

/// From a directory to the namespace of this URL, to one of another engine, and to another namespace.
async fn there_and_back_and_there_again(url: &str, back: &'static str, opened: impl AsyncFn(&str) -> AnyStore) {
    let other = url.replace("namespace=payments", "namespace=later");
    let (first, second) = (Place::of("sled"), Place::of(back));
    let before = first
        .with(async |store| {
            work(store).await;
            retries(store).await
        })
        .await;
    copied(&first.name(), url);
    copied(url, &second.name());
    // The fences of a directory that comes from a database are ahead of the database's clock from its next opening on.
    let last = second.with(async |store| claim(store, id("last")).await).await;
    let after = second.with(async |store| complete_again(store, last.id).await).await;
    assert!(last.fence.0 < after);
    let said = json(0, &["copy", &second.name(), &other]);
    assert_eq!((&said["copied"], &said["complete"]), (&7.into(), &true.into()), "{said:#}");
    let store = opened(&other).await;
    answers_on(&store, &before, after).await;
    store.close().await.unwrap();
}

/// Returns a fence that the store gives now.
async fn complete_again(store: &AnyStore, id: RecordId) -> u64 {
    let now = store.load(id).await.unwrap().unwrap();
    assert!(now.may_run_again(), "{now:?}");
    let fence = claim(store, RecordId::from_bytes([9; 32])).await;
    complete(store, fence, RunResult::Consumed { status: 200 }, Duration::from_millis(1)).await;
    until("the end of its retention", async || store.load(fence.id).await.unwrap().is_none()).await;
    fence.fence.0
}

async fn opened(url: &str) -> AnyStore {
    use tower_idempotency_postgres::{PostgresBackend, PostgresStore};
    let (address, namespace) = url.split_once("?namespace=").unwrap();
    let backend = PostgresBackend::from_url(address).unwrap().namespace(namespace).unwrap();
    AnyStore::new(PostgresStore::open(backend.open().await.unwrap()).await.unwrap())
}
