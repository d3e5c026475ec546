//! A failover that loses a transaction of the application.

use http::StatusCode;
use tower_idempotency_postgres::tokio_postgres::Client;

use super::process::{Process, TABLE, charge, handler};
use crate::lab::{Lab, PostgresServer, client, own_server, until};

async fn rows(client: &Client, sql: &str, namespace: &str) -> i64 {
    client.query_one(sql, &[&namespace]).await.unwrap().get(0)
}

const CHARGES: &str = "SELECT count(*) FROM charge WHERE namespace = $1";
const COMPLETED: &str = "SELECT count(*) FROM idempotency.record WHERE namespace = $1 AND kind = 3";

/// The standby that takes over has neither the charge nor its record. The process that charged lives on, and puts back
/// the records without a transaction.
// Seeded fault: it puts back the record of the charge too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failover_the_database_has_both_charge_and_record_or_neither() {
    let Some(mut primary) = own_server("a failover that loses a transaction", &[]) else { return };
    let lab = Lab::new(&primary.url()).await;
    lab.client.batch_execute(TABLE).await.unwrap();
    let standby = PostgresServer::standby_of(primary.address()).unwrap();
    let hosts = format!("{},{}", primary.address(), standby.address());
    let url = format!("postgres://postgres@{hosts}/postgres?target_session_attrs=read-write");
    let both = Lab { url, ..Lab::new(&primary.url()).await };
    let process = Process::new(&both).await;
    assert_eq!(process.send("before", &handler(charge)).await.0, StatusCode::OK);
    let there = client(&standby.url()).await;
    until("the standby has caught up", async || rows(&there, CHARGES, &both.namespace).await == 1).await;
    // From now on, it gets nothing.
    there.batch_execute("ALTER SYSTEM SET primary_conninfo = ''").await.unwrap();
    there.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    until("it gets nothing", async || {
        there.query_one("SELECT count(*) = 0 FROM pg_stat_wal_receiver", &[]).await.unwrap().get(0)
    })
    .await;
    assert_eq!(process.send("lost", &handler(charge)).await, (StatusCode::OK, "charged".to_owned(), false));
    let plain = handler(|_, _| async { Ok("no charge".to_owned()) });
    assert_eq!(process.send("plain", &plain).await.0, StatusCode::OK);
    drop(lab);
    primary.kill();
    standby.promote();
    until("it has put back what it knows", async || rows(&there, COMPLETED, &both.namespace).await >= 2).await;
    let other = Lab { url: standby.url(), namespace: both.namespace, ..Lab::new(&standby.url()).await };
    let later = Process::new(&other).await;
    assert_eq!(later.send("plain", &plain).await, (StatusCode::OK, "no charge".to_owned(), true));
    assert_eq!(later.send("lost", &handler(charge)).await, (StatusCode::OK, "charged".to_owned(), false), "it runs");
    assert_eq!(rows(&there, CHARGES, &other.namespace).await, 2);
}
