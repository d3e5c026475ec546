//! A store by its URL.

use super::erased::AnyStore;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// A store could not be opened by its URL. Its records are unchanged.
///
/// No variant has a password in it.
#[derive(Debug, thiserror::Error)]
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

impl AnyStore {
    /// Opens the store that `url` names, with that store's default settings. Call it within a tokio runtime, in which
    /// the store's tasks run then.
    ///
    /// - `sled:PATH`: [`SledStore`](crate::SledStore) in the directory `PATH`, which is not decoded. If there is no
    ///   store, a new one is made. Feature `sled`.
    /// - `memory:`: a new [`MemoryStore`](crate::MemoryStore). Feature `memory`.
    /// - `postgres://…` or `postgresql://…`: `PostgresStore` in the namespace `default`, with a lease of 30 seconds and
    ///   without TLS. Feature `postgres`.
    ///
    /// A PostgreSQL database must have the table: run `PostgresBackendBuilder::migrate()` once, or its `schema.sql`.
    /// One that is away is tried for 10 seconds. For other settings open the store yourself, and give it to
    /// [`new`](Self::new).
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
        let (scheme, rest) = url.split_once(':').ok_or(ConnectError::Url)?;
        let feature = match scheme {
            // As a URL it would have a host, and be another path than it looks like.
            "sled" if !rest.is_empty() && !rest.starts_with("//") => "sled",
            "memory" if rest.is_empty() => "memory",
            "postgres" | "postgresql" if rest.starts_with("//") => "postgres",
            _ => return Err(ConnectError::Url),
        };
        match feature {
            #[cfg(feature = "sled")]
            "sled" => sled(rest.into()).await.map_err(ConnectError::Open),
            #[cfg(feature = "memory")]
            "memory" => Ok(Self::new(super::MemoryStore::new())),
            #[cfg(feature = "postgres")]
            "postgres" => postgres(url).await.map_err(ConnectError::Open),
            _ => Err(ConnectError::Feature { feature }),
        }
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
    use super::postgres::{PostgresBackend, PostgresStore};

    let database = PostgresBackend::from_url(url)?.open().await?;
    Ok(AnyStore::new(PostgresStore::open(database).await?))
}
