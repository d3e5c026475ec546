//! A full table, which takes no new keys and all other writes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::StatusCode;
use testkit::Gate;
use tower_idempotency::IdempotencyLayer;
use tower_idempotency::store::{Health, Store as _};
use tower_idempotency_postgres::{PostgresBackendBuilder, PostgresStore};
use tower_idempotency_shared::{Backend as _, Clocks, Write};

use crate::app::App;
use crate::lab::{Lab, builder, claim, complete, id, own_server, until};

/// An application whose store has these limits.
async fn app(lab: &Lab, limits: impl Fn(PostgresBackendBuilder) -> PostgresBackendBuilder) -> (App, PostgresStore) {
    let backend = limits(builder(&lab.url, &lab.namespace)).open().await.unwrap();
    let store = PostgresStore::open(backend).await.unwrap();
    let layer = IdempotencyLayer::new(store.clone());
    (App { layer, runs: Arc::default(), gate: Gate::default() }, store)
}

/// Lets the database count, and the store read the counts. The store does so every 30 seconds by itself.
async fn until_full(lab: &Lab, store: &PostgresStore, limit: Option<&'static str>) {
    let health = limit.map_or(Health::Good, |limit| Health::Full { limit });
    until("the limit", async || {
        lab.client.batch_execute("VACUUM ANALYZE idempotency.record").await.unwrap();
        store.backend().guarantee().await.unwrap();
        store.backend().full() == limit && store.health() == health
    })
    .await;
}

async fn is_full(app: &App, key: &'static str) -> bool {
    let runs = app.runs.load(Ordering::SeqCst);
    let (status, body, _) = app.send(key).await;
    let is_full = status == StatusCode::SERVICE_UNAVAILABLE && body.contains("store-full");
    assert!(is_full == (app.runs.load(Ordering::SeqCst) == runs), "{status}: {body}");
    is_full
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_with_as_many_rows_as_it_may_have_refuses_new_keys_and_nothing_else() {
    let Some(server) = own_server("a limit of rows", &[]) else { return };
    let (lab, other) = (Lab::new(&server.url()).await, Lab::new(&server.url()).await);
    let (one, store) = app(&lab, |builder| builder.max_records(10)).await;
    one.gate.admit(1);
    assert_eq!(one.send("done").await, (StatusCode::OK, "run 0".to_owned(), false));
    // A run that began before, and ends when there is no room any more.
    let running = tokio::spawn({
        let one = one.clone();
        async move { one.send("runs").await }
    });
    until("the run", async || one.runs.load(Ordering::SeqCst) == 2).await;
    assert_eq!(store.backend().full(), None);
    // Those of another namespace count as well.
    let rows: Vec<_> = (0..10).map(|number| claim(id(number))).collect();
    other.backend.put(Clocks::default(), &rows).await.unwrap();
    until_full(&lab, &store, Some("max_records")).await;
    assert!(is_full(&one, "new").await);
    assert_eq!(one.send("done").await, (StatusCode::OK, "run 0".to_owned(), true));
    // This holds in another process too, which has none of it in memory.
    let (another, _) = app(&lab, |builder| builder.max_records(10)).await;
    assert_eq!(another.send("done").await, (StatusCode::OK, "run 0".to_owned(), true));
    assert!(is_full(&another, "new").await);
    one.gate.admit(1);
    assert_eq!(running.await.unwrap(), (StatusCode::OK, "run 1".to_owned(), false));
    until("its outcome", async || another.send("runs").await == (StatusCode::OK, "run 1".to_owned(), true)).await;
    // There is room again.
    other.sql("DELETE FROM idempotency.record WHERE namespace = '$'").await;
    until_full(&lab, &store, None).await;
    one.gate.admit(1);
    assert!(!is_full(&one, "new").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_answers_count_until_they_are_deleted_though_the_files_stay_as_large() {
    const MIB: usize = 1 << 20;
    let Some(server) = own_server("a limit of bytes", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    let (one, store) = app(&lab, |builder| builder.max_bytes(4 * MIB as u64)).await;
    for number in 0..12 {
        let write = claim(id(number));
        let mut answer = vec![0; MIB / 2];
        getrandom::fill(&mut answer).unwrap();
        lab.put(write.clone()).await.unwrap();
        lab.put(Write { state: Bytes::from(answer), ..complete(id(number), write.token) }).await.unwrap();
    }
    until_full(&lab, &store, Some("max_bytes")).await;
    assert!(is_full(&one, "new").await);
    // The last one keeps the files from being cut off.
    let last = id(11).to_string();
    lab.sql(&format!("DELETE FROM idempotency.record WHERE namespace = '$' AND kind = 3 AND id <> '\\x{last}'")).await;
    until_full(&lab, &store, None).await;
    let size = "SELECT pg_total_relation_size('idempotency.record')";
    assert!(lab.client.query_one(size, &[]).await.unwrap().get::<_, i64>(0) > 4 * MIB as i64);
    one.gate.admit(1);
    assert!(!is_full(&one, "new").await);
}
