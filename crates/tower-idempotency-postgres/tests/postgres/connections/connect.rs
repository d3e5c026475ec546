//! A store that is chosen by its URL.

use std::error::Error as _;

use tower_idempotency::engine::EffectError;
use tower_idempotency::store::{ConnectError, Store as _};
use tower_idempotency::{Fingerprint, Once};
use tower_idempotency_postgres::{PostgresError, PostgresStore, connect, migrate};

use crate::lab::{id, own_server};

const SECRET: &str = "s3cr3t";

/// Runs one operation. Returns whether it was replayed.
async fn is_replayed(store: &PostgresStore) -> bool {
    let effect = |_| async { Ok::<_, EffectError<std::io::Error>>(()) };
    let consumer = Once::new(store.clone());
    consumer.run(id(1), Fingerprint::of(b"message"), effect).await.unwrap().replayed
}

#[tokio::test]
async fn stores_of_one_url_share_their_keys_once_the_table_is_there() {
    let Some(server) = own_server("that a URL opens a store", &[]) else { return };
    let url = server.url();
    let error = connect(&url).await.unwrap_err();
    assert!(error.to_string().contains("migrate()"), "{error}");
    assert!(error.source().is_none(), "the store's own words are not told twice");
    let ConnectError::Open(said) = error else { panic!("{error:?}") };
    assert!(matches!(said.downcast_ref(), Some(PostgresError::Schema { found: None, .. })), "{said:?}");

    migrate(&url).await.unwrap();
    let one = connect(&url).await.unwrap();
    let other = connect(&url.replace("postgres://", "postgresql://")).await.unwrap();
    assert!(!is_replayed(&one).await);
    assert!(is_replayed(&other).await);
    one.close().await.unwrap();
    other.close().await.unwrap();
}

/// The URL works for the migration, too.
#[tokio::test]
async fn a_url_names_the_namespace() {
    let Some(server) = own_server("that a URL names the namespace", &[]) else { return };
    let url = |query: &str| format!("{}{query}", server.url());
    migrate(&url("?namespace=orders")).await.unwrap();
    migrate(&url("")).await.unwrap();
    let orders = connect(&url("?connect_timeout=20&namespace=orders")).await.unwrap();
    assert!(!is_replayed(&orders).await);
    for (query, expected) in [
        ("?namespace=orders", true),
        ("?namespace=%6Frders&application_name=a", true),
        ("?namespace=caf%C3%A9", false),
        ("?namespace=caf\u{e9}", true),
        ("", false),
        ("?namespace=default", true),
    ] {
        let store = connect(&url(query)).await.unwrap();
        assert_eq!(is_replayed(&store).await, expected, "{query}");
    }
    // A name may look like the parameter, and a password may have a question mark.
    assert!(!is_replayed(&connect(&url("?namespace=namespace=orders")).await.unwrap()).await);
    let address = server.address();
    let (host, port) = (address.ip(), address.port());
    let pairs = format!("host={host} port={port} user=postgres dbname=postgres password=a?namespace=");
    assert!(is_replayed(&connect(&pairs).await.unwrap()).await, "the default namespace");
    for query in ["?namespace=", "?namespace=a&namespace=b", "?namespace=%FF", "?name=a"] {
        let error = connect(&url(query)).await.unwrap_err();
        let migrated = migrate(&url(query)).await.unwrap_err();
        assert_eq!(error.to_string(), migrated.to_string());
        assert_eq!(format!("{error:?}"), format!("ConnectError({error})"), "as `main` prints it");
    }
}

#[cfg(feature = "config")]
#[tokio::test]
async fn a_store_is_opened_with_the_sections_of_a_file() {
    use tower_idempotency_postgres::{PostgresConfig, SharedConfig, connect_with};

    let Some(server) = own_server("that a URL goes with a file's settings", &[]) else { return };
    let url = server.url();
    migrate(&url).await.unwrap();
    let postgres: PostgresConfig = serde_json::from_str(r#"{ "namespace": "orders" }"#).unwrap();
    let (shared, none) = (SharedConfig::default(), PostgresConfig::default());
    let store = connect_with(&url, &postgres, &shared).await.unwrap();
    assert!(!is_replayed(&store).await);
    assert!(is_replayed(&connect(&format!("{url}?namespace=orders")).await.unwrap()).await);
    let other = connect_with(&format!("{url}?namespace=other"), &none, &shared).await.unwrap();
    assert!(!is_replayed(&other).await);
    let twice = connect_with(&format!("{url}?namespace=other"), &postgres, &shared).await.unwrap_err();
    assert!(twice.to_string().contains("given twice"), "{twice}");
    // The section `shared` has an effect: a lease that is too short for its timeouts is refused.
    let shared: SharedConfig = serde_json::from_str(r#"{ "lease": "1ms" }"#).unwrap();
    connect_with(&url, &none, &shared).await.unwrap_err();
}

#[tokio::test]
async fn no_password_stands_in_what_a_url_is_refused_with() {
    let Some(server) = own_server("that passwords stay hidden in a URL", &[]) else { return };
    let address = server.address();
    for (url, is_read) in [
        (format!("postgres://nobody:{SECRET}@{address}/postgres"), true),
        (format!("postgres://postgres:{SECRET}@{address}/nothing"), true),
        (format!("postgres://nobody:a@{SECRET}@{address}/postgres"), false),
        (format!("postgres://nobody:{SECRET}@127.0.0.1:port/postgres"), false),
    ] {
        let error = connect(&url).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains(SECRET), "{error:?}");
        let ConnectError::Open(said) = error else { panic!("{error:?}") };
        let said = said.downcast_ref();
        assert_eq!(matches!(said, Some(PostgresError::Refused { .. })), is_read, "{said:?}");
        assert_eq!(matches!(said, Some(PostgresError::Url)), !is_read, "{said:?}");
    }
}
