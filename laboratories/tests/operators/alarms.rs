//! Alerts fire in a real Prometheus against the payment server, each under its fault, and the dashboard's queries have
//! values.

use std::ffi::OsString;
use std::time::Duration;

use testkit::dice::free_address;
use testkit::payment_server::{Server, Setup};
use testkit::postgres::own_server;
use testkit::process::until;
use testkit::{Call, Connection};

use crate::prometheus::{Prometheus, queries};

/// What an outbox has, and what stores of other kinds have.
const NOT_OF_SLED: [&str; 5] = [
    "idempotency_outbox_",
    "idempotency_store_lease_seconds",
    "idempotency_store_connections",
    "idempotency_store_written_bytes_total",
    "idempotency_store_merged_bytes_total",
];

async fn charge(server: &Server, key: &str, source: &str) -> u16 {
    server.send(&Call::charge(key, source)).await.status.as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_alerts_of_operations_and_handlers_fire_and_the_dashboard_draws() {
    let (directory, address) = (tempfile::tempdir().unwrap(), free_address());
    let setup = Setup::new(&directory).listening(address);
    let mut server = setup.start();
    let Some(prometheus) = Prometheus::of(address, "that alerts fire").await else { return };
    for _ in 0..2 {
        assert_eq!(charge(&server, "quiet", "tok_visa").await, 200);
    }
    assert!(prometheus.firing().await.is_empty());
    charge(&server, "unknown-0", "tok_timeout").await;
    prometheus.fires(&["IdempotencyOperationInterrupted"]).await;
    assert!(!prometheus.firing().await.contains("IdempotencyManyInterrupted"));
    for number in 1..10 {
        charge(&server, &format!("unknown-{number}"), "tok_timeout").await;
    }
    charge(&server, "panic", "tok_panic").await;
    prometheus.fires(&["IdempotencyManyInterrupted", "IdempotencyHandlerBroken"]).await;
    // Each query is understood, and shows the evening.
    for (title, query) in queries() {
        let result = prometheus.query(&query).await.unwrap_or_else(|| panic!("{title}: {query}"));
        let is_of_sled = !NOT_OF_SLED.iter().any(|name| query.contains(name));
        assert_eq!(!result.as_array().unwrap().is_empty(), is_of_sled, "{title}: {query}: {result}");
    }
    // A day later, none is settled.
    server.kill();
    prometheus.fires(&["IdempotencyMetricsMissing"]).await;
    let later = setup.under(["faketime", "-f", "+25h"].map(OsString::from)).start();
    prometheus.fires(&["IdempotencyInterruptedForADay"]).await;
    until("the metrics are there again", async || !prometheus.firing().await.contains("IdempotencyMetricsMissing"))
        .await;
    drop(later);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_alerts_of_a_full_store_fire() {
    let (directory, address) = (tempfile::tempdir().unwrap(), free_address());
    let full = ["env", "PAYMENTS_SLED__MAX_RECORDS=1"].map(OsString::from);
    let server = Setup::new(&directory).listening(address).under(full).start();
    let Some(prometheus) = Prometheus::of(address, "that a full store is noticed").await else { return };
    charge(&server, "first", "tok_visa").await;
    let alerts = ["IdempotencyRequestsRefused", "IdempotencyStoreUnhealthy"];
    until("the alerts fire", async || {
        charge(&server, "another", "tok_visa").await;
        let firing = prometheus.firing().await;
        alerts.iter().all(|alert| firing.contains(*alert))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_alerts_of_a_database_that_is_away_and_of_a_server_that_stalls_fire() {
    let promise = "that a database which is away is noticed";
    let Some(mut database) = own_server(promise, &[]) else { return };
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let store = format!("--store {} --namespace alarms --lease 5", database.url());
    let (address, other) = (free_address(), free_address());
    let server = Setup::new(&directories[0]).listening(address).with(&store).start();
    let Some(prometheus) = Prometheus::of(address, promise).await else { return };
    let second = Setup::new(&directories[1]).listening(other).with(&store).start();

    // The first one stalls in the middle of a charge, and an operator settles it at the second one.
    let call = Call::charge("stalled", "tok_slow");
    let connection = server.charging_slowly(&call).await;
    server.pause().await;
    until("the operation shows as interrupted", async || !second.interrupted().await.is_empty()).await;
    assert_eq!(second.release(&second.interrupted().await[0]).await, "done");
    server.resume();
    prometheus.fires(&["IdempotencyLeaseLost", "IdempotencyDisputed"]).await;
    drop(connection);

    // The database goes away in the middle of another charge.
    let mut connection = Connection::http1(address).await.unwrap();
    let begun = server.log.text().matches("a charge begins source=tok_slow").count() + 1;
    let slow = tokio::spawn(async move { drop(connection.send(&Call::charge("unsaved", "tok_slow")).await) });
    server.charge_begun("tok_slow", begun).await;
    // One that hangs would let scrapes hang, which have a fifth of a second here.
    database.kill();
    prometheus.fires(&["IdempotencyUnrecorded", "IdempotencyBreakerOpen", "IdempotencyStoreUnhealthy"]).await;
    database.start_again();
    slow.await.unwrap();
    let calm = async || !prometheus.firing().await.contains("IdempotencyBreakerOpen");
    until("the database is used again", calm).await;
    tokio::time::timeout(Duration::from_secs(60), second.stop()).await.unwrap();
}
