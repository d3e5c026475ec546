//! The SQL of `migrate` as text, for those who apply it by psql or a tool for migrations.

use std::time::Duration;

use testkit::postgres::own_server;
use testkit::process::until;
use tower_idempotency_outbox::deadpool_postgres::tokio_postgres::NoTls;
use tower_idempotency_outbox::deadpool_postgres::{Manager, Object, Pool};
use tower_idempotency_outbox::{Outbox as _, PostgresOutbox, State};

use crate::home::call;
use crate::server::{relay, run_until, server_of};

fn pool(url: &str) -> Pool {
    Pool::builder(Manager::new(url.parse().unwrap(), NoTls)).build().unwrap()
}

/// As tools do: the migration, and a note of it in the same transaction, in a table that the search path finds.
async fn apply(tool: &Object, schema: &str, role: Option<&str>) {
    for (version, sql) in PostgresOutbox::migrations(schema, role).unwrap() {
        tool.batch_execute("BEGIN").await.unwrap();
        tool.batch_execute(&sql).await.unwrap();
        tool.batch_execute(&format!("INSERT INTO note VALUES ({version})")).await.unwrap();
        tool.batch_execute("COMMIT").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_text_makes_what_migrate_makes_and_leaves_nothing_for_it() {
    let Some(server) = own_server("that the text makes what `migrate` makes", &[]) else { return };
    let postgres = pool(&server.url()).get().await.unwrap();
    postgres.batch_execute("CREATE DATABASE by_text").await.unwrap();
    postgres.batch_execute("CREATE DATABASE by_call").await.unwrap();
    let url = |database: &str| format!("postgres://postgres@{}/{database}", server.address());
    let shadows =
        "CREATE SCHEMA shadows; CREATE DOMAIN shadows.timestamptz AS text; CREATE TABLE shadows.note (version integer)";
    pool(&url("by_text")).get().await.unwrap().batch_execute(shadows).await.unwrap();
    let options = "?options=-csearch_path%3Dshadows,pg_catalog%20-cstandard_conforming_strings%3Doff";
    let tool = pool(&format!("{}{options}", url("by_text"))).get().await.unwrap();
    // The first one is a word that is a name only in quotes.
    for schema in ["order", "payments_outbox"] {
        let migrate =
            async |database| PostgresOutbox::new(pool(&url(database)), schema).unwrap().migrate().await.unwrap();
        apply(&tool, schema, None).await;
        migrate("by_call").await;
        let made = server.dump("by_text", schema);
        for part in ["TABLE", "INDEX", "FUNCTION", "CONSTRAINT"] {
            assert!(made.contains(part), "{part}: {made}");
        }
        assert_eq!(made, server.dump("by_call", schema));
        // Again, and by `migrate`: nothing is made, and nothing is replaced by something else.
        apply(&tool, schema, None).await;
        migrate("by_text").await;
        assert_eq!(server.dump("by_text", schema), made);
    }
    assert!(PostgresOutbox::migrations("a.b", None).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_with_the_rights_of_the_text_alone_puts_calls_in_sends_and_deletes_them() {
    let Some(server) = own_server("the rights of the text", &[]) else { return };
    let (postgres, role) = (pool(&server.url()).get().await.unwrap(), "my-shop");
    let rights = format!(
        "CREATE ROLE \"{role}\" LOGIN; ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
        CREATE TABLE note (version integer)"
    );
    postgres.batch_execute(&rights).await.unwrap();
    apply(&postgres, "outbox", Some(role)).await;
    let outbox = PostgresOutbox::new(pool(&server.url().replace("postgres@", &format!("{role}@"))), "outbox").unwrap();
    // The role may make nothing, and finds nothing to make.
    outbox.migrate().await.unwrap();
    outbox.put(&call(1)).await.unwrap();
    let (client, _) = server_of(200, &[], "");
    run_until(relay(&outbox, &client), &outbox, call(1).key(), State::Delivered).await;
    outbox.open_calls().await.unwrap();
    let deleted = async || outbox.list(State::Delivered, None, 9).await.unwrap().is_empty();
    relay(&outbox, &client).keep_for(Duration::ZERO).run(until("it is deleted", deleted)).await;
}
