//! Databases of other encodings than UTF-8.

use tower_idempotency_conformance::backend::{BackendSubject, all};
use tower_idempotency_postgres::PostgresError;

use crate::lab::{Lab, PostgresServer, builder, claim, client, id, own_server};

/// A database with an encoding of its own, and its URL.
pub(super) async fn database(server: &PostgresServer, encoding: &str) -> String {
    let name = encoding.to_lowercase();
    let sql = format!("CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    client(&server.url()).await.batch_execute(&sql).await.unwrap();
    format!("postgres://postgres@{}/{name}", server.address())
}

/// Migrates and keeps the contract, in a namespace that the encoding has letters for.
async fn keeps_the_contract(encoding: &str, namespace: &str) {
    let Some(server) = own_server(&format!("the contract over {encoding}"), &[]) else { return };
    let url = database(&server, encoding).await;
    builder(&url, namespace).migrate().await.unwrap();
    let lab = Lab::new(&url).await;
    let found: String = lab.client.query_one("SHOW server_encoding", &[]).await.unwrap().get(0);
    assert_eq!(found, encoding);
    all(async || {
        let open = async |namespace: &str| builder(&url, namespace).open().await.unwrap();
        let another = open(&format!("{namespace}-another")).await;
        BackendSubject::new(open(namespace).await).another_process(open(namespace).await).another_namespace(another)
    })
    .await;
}

#[tokio::test]
async fn a_latin1_database_keeps_the_contract() {
    keeps_the_contract("LATIN1", "\u{e9}t\u{e9}").await;
}

#[tokio::test]
async fn an_sql_ascii_database_keeps_the_contract() {
    keeps_the_contract("SQL_ASCII", "\u{65e5}\u{672c}").await;
}

#[tokio::test]
async fn an_euc_jp_database_keeps_the_contract() {
    keeps_the_contract("EUC_JP", "\u{65e5}\u{672c}").await;
}

/// Another try would not help.
#[tokio::test]
async fn a_namespace_for_which_the_database_has_no_letters_is_refused_at_once() {
    let Some(server) = own_server("a namespace that can't be written", &[]) else { return };
    let url = database(&server, "LATIN1").await;
    let lab = Lab::new(&url).await;
    let hours = std::time::Duration::from_secs(36_000);
    let opening = builder(&url, "\u{65e5}\u{672c}").open_within(hours).open();
    let refused = tokio::time::timeout(std::time::Duration::from_secs(60), opening).await.unwrap().unwrap_err();
    assert!(matches!(refused, PostgresError::Refused { .. }), "{refused:?}");
    assert!(refused.to_string().contains("22P05"), "{refused}");
    assert!(lab.put(claim(id(1))).await.is_some());
}

/// A migration by hand may send the schema to a database of any encoding.
#[test]
fn the_schema_is_ascii() {
    assert!(include_str!("../../../src/schema.sql").is_ascii());
    assert!(include_str!("../../../src/view.sql").is_ascii());
}
