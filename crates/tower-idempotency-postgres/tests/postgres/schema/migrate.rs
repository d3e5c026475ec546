//! The table, and the migrations that create it.

use tower_idempotency_postgres::{PostgresBackend, PostgresError};

use crate::lab::{Lab, claim, client, id, own_server, until};

/// The lock by which migrations wait for each other, as in `schema.rs`.
const MIGRATIONS: i64 = 0x1d3a_7c05_92be_64f1;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_processes_may_migrate_at_once() {
    let Some(server) = own_server("that many processes may migrate", &[]) else { return };
    let url = server.url();
    let missing = PostgresBackend::from_url(&url).unwrap().open().await.unwrap_err();
    assert!(
        matches!(missing, PostgresError::Schema { found: None, .. }) && missing.to_string().contains("migrate()"),
        "{missing}"
    );

    let migrations: Vec<_> = (0..8)
        .map(|_| {
            let builder = PostgresBackend::from_url(&url).unwrap();
            tokio::spawn(async move { builder.migrate().await })
        })
        .collect();
    for migration in migrations {
        migration.await.unwrap().unwrap();
    }
    let lab = Lab::new(&url).await;
    assert!(lab.put(claim(id(1))).await.is_some());

    lab.sql("DELETE FROM idempotency.version; INSERT INTO idempotency.version VALUES (0)").await;
    let older = PostgresBackend::from_url(&url).unwrap().open().await.unwrap_err();
    assert!(
        matches!(older, PostgresError::Schema { found: Some(0), .. }) && older.to_string().contains("migrate()"),
        "{older}"
    );
    PostgresBackend::from_url(&url).unwrap().migrate().await.unwrap();
    assert!(lab.get(id(1)).await.is_some(), "what was there stays");
    // The version of a later release: it has all that this one needs.
    lab.sql("INSERT INTO idempotency.version VALUES (99)").await;
    PostgresBackend::from_url(&url).unwrap().open().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_may_migrate_at_once_whatever_the_role_s_isolation_is() {
    let Some(server) = own_server("that a role's isolation does not matter", &[]) else { return };
    let client = client(&server.url()).await;
    for isolation in ["serializable", "repeatable read"] {
        let sql = format!("ALTER ROLE postgres SET default_transaction_isolation = '{isolation}'");
        client.batch_execute(&sql).await.unwrap();
        // Nothing is set for a connection then, so it has the role's settings.
        let builder = PostgresBackend::from_url(&server.url()).unwrap().behind_pooler();
        let builder = builder.schema(isolation.replace(' ', "_")).unwrap();
        // They wait for a lock with their transactions begun, so that each has a snapshot from before the table.
        client.batch_execute(&format!("BEGIN; SELECT pg_advisory_xact_lock({MIGRATIONS})")).await.unwrap();
        let migrations = (0..4).map(|_| {
            let builder = builder.clone();
            tokio::spawn(async move { builder.migrate().await })
        });
        let migrations: Vec<_> = migrations.collect();
        let waiting = "SELECT count(*) = 4 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        until("all wait", async || client.query_one(waiting, &[]).await.unwrap().get(0)).await;
        client.batch_execute("COMMIT").await.unwrap();
        for migration in migrations {
            migration.await.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn a_migration_where_all_is_there_locks_nothing() {
    let Some(server) = own_server("that a second migration locks nothing", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    lab.sql("BEGIN; LOCK TABLE idempotency.record IN ACCESS EXCLUSIVE MODE").await;
    PostgresBackend::from_url(&lab.url).unwrap().migrate().await.unwrap();
}

#[tokio::test]
async fn another_schema_is_another_table_and_the_file_alone_makes_the_default_one() {
    let Some(server) = own_server("that the file alone makes the table", &[]) else { return };
    let sql = include_str!("../../../src/schema.sql");
    let client = client(&server.url()).await;
    client.batch_execute(&format!("CREATE SCHEMA idempotency; BEGIN; {sql}; COMMIT")).await.unwrap();
    PostgresBackend::from_url(&server.url()).unwrap().open().await.unwrap();
    let elsewhere = || PostgresBackend::from_url(&server.url()).unwrap().schema("elsewhere").unwrap();
    assert!(matches!(elsewhere().open().await, Err(PostgresError::Schema { .. })));
    elsewhere().migrate().await.unwrap();
    elsewhere().open().await.unwrap();
}
