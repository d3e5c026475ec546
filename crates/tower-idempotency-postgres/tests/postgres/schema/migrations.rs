//! The SQL of `migrate` as text, for those who apply it by psql or a tool for migrations.

use testkit::postgres::PostgresServer;
use tower_idempotency_postgres::tokio_postgres::Client;
use tower_idempotency_postgres::{PostgresBackend, PostgresBackendBuilder, PostgresStore};
use tower_idempotency_shared::{Backend as _, Clocks};

use crate::lab::{self, claim, client, complete, id, is_done, own_server};

const GUIDE: &str = include_str!("../../../../../docs/running/shared.md");
/// What others may have made, for a role that finds it before what the database has.
const SHADOWS: &str = "CREATE SCHEMA shadows; CREATE DOMAIN shadows.timestamptz AS text;
    CREATE TABLE shadows.note (version integer PRIMARY KEY)";
/// Of the application's role, or of the tool's.
const OPTIONS: &str = "?options=-csearch_path%3Dshadows,pg_catalog%20-cstandard_conforming_strings%3Doff";

async fn database(server: &PostgresServer, name: &str) -> String {
    client(&server.url()).await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    format!("postgres://postgres@{}/{name}", server.address())
}

fn builder(url: &str, schema: &str) -> PostgresBackendBuilder {
    lab::builder(url, "n").schema(schema).unwrap()
}

/// As tools do: the migration, and a note of it in the same transaction, in a table that the search path finds.
async fn apply(client: &Client, migrations: &[(i32, String)]) {
    for (version, sql) in migrations {
        client.batch_execute("BEGIN").await.unwrap();
        client.batch_execute(sql).await.unwrap();
        let note = format!("INSERT INTO note VALUES ({version}) ON CONFLICT DO NOTHING");
        client.batch_execute(&note).await.unwrap();
        client.batch_execute("COMMIT").await.unwrap();
    }
}

/// The versions that a database says it has, with the time of each.
async fn versions(url: &str, schema: &str) -> Vec<(i32, String)> {
    let versions = format!("SELECT version, since::text FROM {schema}.version ORDER BY version");
    let rows = client(url).await.query(&versions, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn numbers(versions: &[(i32, String)]) -> Vec<i32> {
    versions.iter().map(|(version, _)| *version).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_text_makes_what_migrate_makes_and_leaves_nothing_for_it() {
    let Some(server) = own_server("that the text makes what `migrate` makes", &[]) else { return };
    let (by_text, by_call) = (database(&server, "by_text").await, database(&server, "by_call").await);
    client(&by_text).await.batch_execute(SHADOWS).await.unwrap();
    let tool = client(&format!("{by_text}{OPTIONS}")).await;
    for schema in ["idempotency", "payments_2"] {
        let migrations = builder(&by_text, schema).migrations(None);
        // A store needs the first one alone.
        apply(&tool, &migrations[..1]).await;
        builder(&by_text, schema).open().await.unwrap();
        apply(&tool, &migrations[1..]).await;
        builder(&by_call, schema).migrate().await.unwrap();
        let (made, at) = (server.dump("by_text", schema), versions(&by_text, schema).await);
        for part in ["TABLE", "INDEX", "FUNCTION", "VIEW", "COMMENT ON COLUMN"] {
            assert!(made.contains(part), "{part}: {made}");
        }
        assert_eq!(made, server.dump("by_call", schema));
        assert_eq!(numbers(&at), numbers(&versions(&by_call, schema).await));
        assert_eq!(numbers(&at), numbers(&migrations));
        // Again, one after the other and by `migrate`: nothing is made, and nothing is replaced by something else.
        apply(&tool, &migrations).await;
        builder(&by_text, schema).migrate().await.unwrap();
        assert_eq!((server.dump("by_text", schema), versions(&by_text, schema).await), (made, at));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_with_the_rights_of_the_text_alone_opens_the_store_and_completes() {
    let Some(server) = own_server("the rights of the text", &[]) else { return };
    let (url, role) = (server.url(), "my-payments");
    let postgres = client(&url).await;
    let rights =
        format!("CREATE ROLE \"{role}\" LOGIN; ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC");
    postgres.batch_execute(&rights).await.unwrap();
    for (_, sql) in builder(&url, "idempotency").migrations(Some(role)) {
        postgres.batch_execute(&sql).await.unwrap();
    }
    let url = url.replace("postgres@", &format!("{role}@"));
    // The role may make nothing, and finds nothing to make.
    builder(&url, "idempotency").migrate().await.unwrap();
    let backend = builder(&url, "idempotency").open().await.unwrap();
    let claim = claim(id(1));
    for write in [claim.clone(), complete(id(1), claim.token)] {
        let rows = backend.put(Clocks::default(), std::slice::from_ref(&write)).await.unwrap().rows;
        assert!(is_done(rows[0].as_ref(), &write));
    }
    PostgresStore::open(backend).await.unwrap();
}

#[test]
fn the_rights_are_those_of_the_guide() {
    let mut migrations = PostgresBackend::from_url("postgres://h").unwrap().migrations(Some("payments"));
    // The last one gives what those before it have made, too.
    let last = migrations.pop().unwrap().1.replace("\"payments\"", "payments");
    assert!(migrations.iter().all(|(_, sql)| !sql.contains("GRANT")));
    let grants = |text: &str| -> Vec<String> {
        text.lines()
            .filter(|line| line.starts_with("GRANT ") && line.ends_with(" TO payments;"))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(grants(GUIDE).len(), 4);
    assert_eq!(grants(&last), grants(GUIDE));
}
