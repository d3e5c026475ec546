//! A store by its URL.

use tower_idempotency::store::ConnectError;
use tower_idempotency_shared::for_backends::connected;

use super::builder::PostgresBackendBuilder;
use super::error::PostgresError;
use super::{PostgresBackend, PostgresStore};
#[cfg(feature = "config")]
use super::{PostgresConfig, SharedConfig};

/// Opens the store of `url`, with a lease of 30 seconds and without TLS. Call it within a tokio runtime, in which the
/// store's tasks run then.
///
/// `url` is that of a database, as `tokio-postgres` reads it. The parameter `namespace`, as in
/// `postgres://user:password@host/database?namespace=payments`, names the rows of this service; by default it is
/// `default`. The database must have the table: call [`migrate`] once, or run `schema.sql`. A database that can't be
/// reached is tried for 10 seconds. Settings of a file go through `connect_with` (feature `config`), and all others
/// through [`PostgresBackend`] and [`SharedStoreBuilder`](tower_idempotency_shared::SharedStoreBuilder).
///
/// # Errors
/// [`ConnectError::Open`] with a [`PostgresError`], which names `migrate` where a table is missing, or with a
/// [`StoreError`](tower_idempotency::store::StoreError).
///
/// # Cancel safety
/// If the future is dropped, a session may have begun, which lapses.
pub async fn connect(url: &str) -> Result<PostgresStore, ConnectError> {
    connected(async { builder(url)?.open().await }, PostgresStore::builder()).await
}

/// Opens the store of `url` as [`connect`] does, with the sections `postgres` and `shared` of a file.
///
/// # Errors
/// As of [`connect`]; also [`PostgresError::Option`] if the builder refuses a value, or if the namespace is given in
/// both.
///
/// # Cancel safety
/// As of [`connect`].
#[cfg(feature = "config")]
pub async fn connect_with(
    url: &str,
    postgres: &PostgresConfig,
    shared: &SharedConfig,
) -> Result<PostgresStore, ConnectError> {
    let opened = async {
        let database = builder(url)?;
        if postgres.namespace.is_some() && database.namespace != PostgresBackendBuilder::NAMESPACE {
            return Err(PostgresError::Option { option: "the namespace", reason: "given twice" });
        }
        postgres.clone().apply(database)?.open().await
    };
    connected(opened, shared.clone().apply(PostgresStore::builder())).await
}

/// Makes the table in the database of `url`, and its functions, where they are missing. Several processes may do so at
/// once.
///
/// # Errors
/// [`PostgresError`]. Nothing was changed then.
///
/// # Cancel safety
/// If the future is dropped, all or nothing was made.
pub async fn migrate(url: &str) -> Result<(), PostgresError> {
    builder(url)?.migrate().await
}

/// The database of a URL, whose parameter `namespace` is this crate's own.
fn builder(url: &str) -> Result<PostgresBackendBuilder, PostgresError> {
    // In the form `key=value`, a question mark may be part of a password.
    let Some((url, query)) = url.split_once('?').filter(|_| url.contains("://")) else {
        return PostgresBackend::from_url(url);
    };
    // The client would refuse a parameter that it does not know, so the namespace is taken out.
    let (namespaces, others): (Vec<_>, Vec<_>) = query
        .split('&')
        .filter(|parameter| !parameter.is_empty())
        .partition(|parameter| parameter.starts_with("namespace="));
    let builder = match others.as_slice() {
        [] => PostgresBackend::from_url(url),
        others => PostgresBackend::from_url(&format!("{url}?{}", others.join("&"))),
    }?;
    match namespaces.as_slice() {
        [] => Ok(builder),
        [namespace] => {
            let encoded = namespace.strip_prefix("namespace=").unwrap_or_default();
            let namespace = percent_encoding::percent_decode_str(encoded).decode_utf8();
            builder.namespace(namespace.map_err(|_| PostgresError::Url)?)
        }
        // Two namespaces or more: it is unclear which one is meant.
        _ => Err(PostgresError::Option { option: "the namespace", reason: "given twice" }),
    }
}
