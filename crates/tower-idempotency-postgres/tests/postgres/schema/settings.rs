//! The settings that a role, a database or a URL may have: set for the store's connections, named, or harmless.

use std::error::Error;

use http::{Response, StatusCode};
use tower_idempotency_postgres::tokio_postgres::Client;
use tower_idempotency_shared::{Backend as _, Clocks};

use super::roles::SHADOWS;
use crate::complete_in::process::{Process, Said, handler};
use crate::lab::{Lab, builder, claim, client, complete, id, is_done, own_server, until};
use tower_idempotency::IdempotencyContext;

/// What a store behind a pooler comes to, for whose connections nothing is set.
#[derive(Debug, Clone, Copy)]
enum Pooled {
    Same,
    /// It fails by an error that has this word.
    Named(&'static str),
    /// It depends on how fast this machine is.
    Depends,
}
use Pooled::{Depends, Named, Same};

/// Settings for which the store, and a transaction of the application's that has them too, work as ever.
const HARMLESS: &[(&str, Pooled)] = &[
    ("standard_conforming_strings = off", Same),
    ("backslash_quote = off", Same),
    ("escape_string_warning = on", Same),
    ("search_path = ''", Same),
    ("search_path = shadows", Same),
    ("search_path = shadows, pg_catalog", Named("`search_path` has the schema shadows before pg_catalog")),
    ("quote_all_identifiers = on", Same),
    ("bytea_output = escape", Same),
    ("TimeZone = 'Pacific/Apia'", Same),
    ("DateStyle = 'SQL, DMY'", Same),
    ("IntervalStyle = sql_standard", Same),
    ("default_transaction_isolation = 'repeatable read'", Named("must be read committed")),
    ("default_transaction_isolation = serializable", Named("must be read committed")),
    ("default_transaction_deferrable = on", Same),
    ("client_encoding = LATIN1", Same),
    ("client_min_messages = error", Same),
    ("extra_float_digits = -15", Same),
    ("plpgsql.variable_conflict = use_variable", Same),
    ("plpgsql.variable_conflict = error", Same),
    ("plpgsql.extra_errors = 'all'", Same),
    ("row_security = off", Same),
    ("session_replication_role = replica", Same),
    ("default_table_access_method = other", Same),
    ("synchronous_commit = off", Same),
    ("check_function_bodies = off", Same),
    ("temp_tablespaces = ''", Same),
    ("array_nulls = off", Same),
    ("transform_null_equals = on", Same),
    ("lock_timeout = '1ms'", Same),
    ("enable_indexscan = off", Same),
    ("debug_parallel_query = on", Same),
    ("force_parallel_mode = on", Same),
    ("default_toast_compression = lz4", Same),
];

/// Settings that the store's connections do not have, and a transaction of the application's does.
const OVERRIDDEN: &[(&str, Pooled)] = &[
    ("statement_timeout = '1ms'", Named("57014")),
    ("idle_in_transaction_session_timeout = '1ms'", Depends),
    ("exit_on_error = on", Named("closed")),
];

/// What the store does: makes its table, claims, completes, reads and lists.
async fn uses(url: &str, pooled: bool) -> Result<(), Box<dyn Error>> {
    let builder = builder(url, "settings");
    let builder = if pooled { builder.behind_pooler() } else { builder };
    builder.migrate().await?;
    let backend = builder.open().await?;
    let write = claim(id(1));
    let writes = [vec![write.clone()], vec![complete(id(1), write.token)], vec![claim(id(2)), claim(id(3))]];
    let clocks = Clocks::default();
    for writes in writes {
        let rows = backend.put(clocks, &writes).await?.rows;
        assert!(writes.iter().zip(&rows).all(|(write, row)| is_done(row.as_ref(), write)), "{rows:?}");
        let ids: Vec<_> = writes.iter().map(|write| write.id).collect();
        assert_eq!(backend.get(clocks, &ids).await?.rows, rows);
    }
    assert_eq!(backend.scan(clocks, None, 9).await?.rows.len(), 3);
    assert_eq!(backend.list(clocks, &[], None, 9).await?.rows.len(), 2);
    assert_eq!(backend.sessions(clocks).await?.rows.len(), 0);
    assert_eq!(backend.delete_expired(clocks, 9).await?, 0);
    backend.guarantee().await?;
    Ok(())
}

async fn completes(context: IdempotencyContext, process: Process) -> Said {
    let mut client = process.client.lock().await;
    let transaction = client.transaction().await.unwrap();
    let answer = Response::new("completed".into());
    let _ = process.store.complete_in(&context, &transaction, answer).await.map_err(|error| error.to_string())?;
    transaction.commit().await.unwrap();
    Ok("not what was recorded".to_owned())
}

/// Completes a run in a transaction of the application's, and looks at its record by SQL.
async fn completes_in(url: &str) {
    let lab = Lab::new(url).await;
    let process = Process::new(&lab).await;
    let completed = |is_replay| (StatusCode::OK, "completed".to_owned(), is_replay);
    assert_eq!(process.send("k", &handler(completes)).await, completed(false));
    assert_eq!(process.send("k", &handler(completes)).await, completed(true));
    // No operator: the role may have others in front of the database's.
    let rows = lab.client.query("SELECT namespace, kind, status FROM idempotency.operation", &[]).await.unwrap();
    let own = rows.iter().filter(|row| row.get::<_, &str>(0) == lab.namespace);
    let own: Vec<(String, Option<i64>)> = own.map(|row| (row.get(1), row.get(2))).collect();
    assert_eq!(own, [("completed".to_owned(), Some(200))]);
}

/// Gives the role this setting alone, and takes the store's tables away. Returns whether the server knows it.
async fn set(client: &Client, setting: &str) -> bool {
    let name = setting.split(' ').next().unwrap();
    let known = "SELECT count(*) = 1 OR $1 LIKE '%.%' FROM pg_settings WHERE name = $1";
    let is_known = client.query_one(known, &[&name]).await.unwrap().get(0);
    client.batch_execute("DROP SCHEMA IF EXISTS idempotency CASCADE; ALTER ROLE odd RESET ALL").await.unwrap();
    if is_known {
        // A build may lack a value, such as a way to compress.
        return client.batch_execute(&format!("ALTER ROLE odd SET {setting}")).await.is_ok();
    }
    false
}

// Seeded faults: `'\x00'` in `view.sql`; tables by the role's access method; the role's time for an idle transaction;
// `schema.sql` without a search path; no look at it behind a pooler.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_of_the_role_is_set_named_or_harmless() {
    let Some(server) = own_server("that a role's settings are harmless", &[]) else { return };
    let postgres = client(&server.url()).await;
    postgres.batch_execute(SHADOWS.split_once("ALTER ROLE").unwrap().0).await.unwrap();
    let roles = "CREATE ROLE odd LOGIN; GRANT CREATE ON DATABASE postgres TO odd; GRANT ALL ON SCHEMA shadows TO odd;
        CREATE ACCESS METHOD other TYPE TABLE HANDLER heap_tableam_handler";
    postgres.batch_execute(roles).await.unwrap();
    let url = server.url().replace("postgres@", "odd@");
    let (mut known, mut wrong) = (0, Vec::new());
    for (setting, pooled) in HARMLESS.iter().chain(OVERRIDDEN) {
        if !set(&postgres, setting).await {
            continue;
        }
        known += 1;
        match uses(&url, false).await {
            Ok(()) if HARMLESS.iter().any(|(harmless, _)| harmless == setting) => completes_in(&url).await,
            Ok(()) => {}
            Err(error) => wrong.push(format!("{setting}: {error}")),
        }
        let other = "SELECT count(*) FROM pg_class c JOIN pg_am a ON a.oid = c.relam WHERE a.amname = 'other'";
        if postgres.query_one(other, &[]).await.unwrap().get::<_, i64>(0) > 0 {
            wrong.push(format!("{setting}: its tables are of another access method"));
        }
        set(&postgres, setting).await;
        match (pooled, uses(&url, true).await) {
            (Same, Ok(())) | (Depends, _) => {}
            (Named(word), Err(error)) if error.to_string().contains(word) => {}
            (_, result) => wrong.push(format!(
                "{setting}, {pooled:?} behind a pooler: {:?}",
                result.map_err(|error| error.to_string())
            )),
        }
    }
    assert_eq!(wrong.join("\n"), "");
    assert!(known >= HARMLESS.len(), "{known}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_only_read_learns_by_which_setting() {
    let Some(server) = own_server("that a role that reads only learns why", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    lab.sql("ALTER ROLE postgres SET default_transaction_read_only = on").await;
    for pooled in [false, true] {
        let builder = builder(&lab.url, &lab.namespace).open_within(std::time::Duration::from_millis(300));
        let builder = if pooled { builder.behind_pooler() } else { builder };
        let error = builder.clone().open().await.unwrap_err().to_string();
        assert!(error.contains("`default_transaction_read_only`"), "{error}");
        let error = builder.migrate().await.unwrap_err().to_string();
        assert!(error.contains("`default_transaction_read_only`"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_a_role_s_idle_time_ends_are_made_anew() {
    let Some(server) = own_server("that idle connections may be ended", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    if lab.client.batch_execute("ALTER ROLE postgres SET idle_session_timeout = '100ms'").await.is_err() {
        return; // PostgreSQL 13 has no such setting.
    }
    let backend = lab.another().await;
    let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tower-idempotency'";
    lab.client.query(ended, &[]).await.unwrap();
    for number in 1..4 {
        let put = async || backend.put(Clocks::default(), &[claim(id(number))]).await.is_ok();
        until("a write", put).await;
        let calls = "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'tower-idempotency'";
        until("their end", async || lab.client.query_one(calls, &[]).await.unwrap().get(0)).await;
    }
}
