//! A store by its URL.

use std::fmt;

use super::erased::AnyStore;
use super::error::in_words;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// A store could not be opened by its URL. Its records are unchanged.
///
/// No variant has a password in it. `Debug` writes what `Display` does.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL names no store. The operator is at fault.
    #[error(
        "the store's URL can't be read; expected `sled:PATH`, `memory:` or `postgres://user:password@host/database`"
    )]
    Url,
    /// The store is not in this build of the program. Its author is at fault.
    #[error("this program has no store for the URL; build it with tower-idempotency's feature `{feature}`")]
    Feature {
        /// The feature of this crate that has the store.
        feature: &'static str,
    },
    /// The store could not be opened: [`OpenError`](super::OpenError) of sled; `PostgresError`, or
    /// [`StoreError`](super::StoreError), of PostgreSQL.
    #[error(transparent)]
    Open(Source),
}

impl fmt::Debug for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        in_words("ConnectError", self, f)
    }
}

impl AnyStore {
    /// Opens the store that `url` names, with that store's default settings. Call it within a tokio runtime, in which
    /// the store's tasks run then.
    ///
    /// - `sled:PATH`: [`SledStore`](crate::SledStore) in the directory `PATH`, which is not decoded. If there is no
    ///   store, a new one is made. Feature `sled`.
    /// - `memory:`: a new [`MemoryStore`](crate::MemoryStore). Feature `memory`.
    /// - `postgres://…` or `postgresql://…`: `PostgresStore` with a lease of 30 seconds and without TLS. The parameter
    ///   `namespace`, as in `postgres://user:password@host/database?namespace=payments`, names the rows of this
    ///   service, by default `default`. Feature `postgres`.
    ///
    /// A PostgreSQL database must have the table: call [`migrate`](Self::migrate) once, or run `schema.sql`. One that
    /// is away is tried for 10 seconds. For other settings open the store yourself, and give it to [`new`](Self::new).
    ///
    /// # Errors
    /// [`ConnectError::Url`] for a URL of another form, which the error does not repeat; [`ConnectError::Feature`] for
    /// a store whose feature is off; [`ConnectError::Open`] for what the store itself says. It names `migrate()` where
    /// a table is missing.
    ///
    /// # Cancel safety
    /// If the future is dropped, a store in a directory may still be opened, and is closed at once; in a database a
    /// session may have begun, which lapses.
    ///
    /// ```
    /// # #[cfg(feature = "memory")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower_idempotency::store::ConnectError> {
    /// use tower_idempotency::AnyStore;
    ///
    /// let url = std::env::var("IDEMPOTENCY_STORE").unwrap_or_else(|_| "memory:".to_owned());
    /// let store = AnyStore::connect(&url).await?;
    /// # let _ = store;
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "memory"))]
    /// # fn main() {}
    /// ```
    pub async fn connect(url: &str) -> Result<Self, ConnectError> {
        match feature_of(url)? {
            #[cfg(feature = "sled")]
            ("sled", path) => sled(path.into()).await.map_err(ConnectError::Open),
            #[cfg(feature = "memory")]
            ("memory", _) => Ok(Self::new(super::MemoryStore::new())),
            #[cfg(feature = "postgres")]
            ("postgres", _) => postgres(url).await.map_err(ConnectError::Open),
            (feature, _) => Err(ConnectError::Feature { feature }),
        }
    }

    /// Makes what the store that `url` names needs, where it is missing: the table of a PostgreSQL database, as
    /// `PostgresBackendBuilder::migrate()` does. The other stores need nothing. Several processes may do so at once.
    ///
    /// # Errors
    /// As [`connect`](Self::connect). Nothing was changed then.
    ///
    /// # Cancel safety
    /// If the future is dropped, all or nothing was made.
    pub async fn migrate(url: &str) -> Result<(), ConnectError> {
        match feature_of(url)? {
            #[cfg(feature = "sled")]
            ("sled", _) => Ok(()),
            #[cfg(feature = "memory")]
            ("memory", _) => Ok(()),
            #[cfg(feature = "postgres")]
            ("postgres", _) => {
                let database = database(url).map_err(|error| ConnectError::Open(error.into()))?;
                database.migrate().await.map_err(|error| ConnectError::Open(error.into()))
            }
            (feature, _) => Err(ConnectError::Feature { feature }),
        }
    }
}

/// The feature that has the store of `url`, and what comes after the scheme.
fn feature_of(url: &str) -> Result<(&'static str, &str), ConnectError> {
    let (scheme, rest) = url.split_once(':').ok_or(ConnectError::Url)?;
    match scheme {
        // As a URL it would have a host, and be another path than it looks like.
        "sled" if !rest.is_empty() && !rest.starts_with("//") => Ok(("sled", rest)),
        "memory" if rest.is_empty() => Ok(("memory", rest)),
        "postgres" | "postgresql" if rest.starts_with("//") => Ok(("postgres", rest)),
        _ => Err(ConnectError::Url),
    }
}

#[cfg(feature = "sled")]
async fn sled(directory: std::path::PathBuf) -> Result<AnyStore, Source> {
    // The disk may take a while.
    let opening = tokio::task::spawn_blocking(|| super::SledStore::open(directory));
    Ok(AnyStore::new(opening.await??))
}

#[cfg(feature = "postgres")]
async fn postgres(url: &str) -> Result<AnyStore, Source> {
    let database = database(url)?.open().await?;
    Ok(AnyStore::new(super::postgres::PostgresStore::open(database).await?))
}

/// The database of a URL, whose parameter `namespace` is this crate's own.
#[cfg(feature = "postgres")]
fn database(url: &str) -> Result<super::postgres::PostgresBackendBuilder, super::postgres::PostgresError> {
    use super::postgres::{PostgresBackend, PostgresError};

    let (url, query) = url.split_once('?').unwrap_or((url, ""));
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
            let encoded = namespace.trim_start_matches("namespace=");
            let namespace = percent_encoding::percent_decode_str(encoded).decode_utf8();
            builder.namespace(namespace.map_err(|_| PostgresError::Url)?)
        }
        _ => Err(PostgresError::Option { option: "the namespace", reason: "given twice" }),
    }
}
