//! A store by its URL.

use std::fmt;

#[cfg(feature = "_embedded")]
use super::embedded::StorageEngine;
use super::erased::AnyStore;
use super::error::{Source, in_words};
use super::name::read_store_name;

/// A store could not be opened by its URL. Its records are unchanged.
///
/// No variant has a password in it. `Debug` writes what `Display` does.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL names no store, for this reason. The operator is at fault.
    #[error(
        "the store's URL can't be read: {0}. Expected `sled:PATH`, `fjall:PATH` or `memory:`; for `postgres://user:password@host/database` \
         call `connect` of the crate tower-idempotency-postgres, and for `redis://host` that of tower-idempotency-redis"
    )]
    Url(&'static str),
    /// The store is not in this build of the program. Its author is at fault.
    #[error("this program has no store for the URL; build it with tower-idempotency's feature `{feature}`")]
    Feature {
        /// The feature of this crate that has the store.
        feature: &'static str,
    },
    /// The store could not be opened: [`OpenError`](super::OpenError) of sled or fjall; an error of the database, or
    /// [`StoreError`](super::StoreError), of a shared store.
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
    ///   store, a new one is made. A path that looks like a mistake is refused, such as one in quotes, one with an
    ///   unexpanded variable, or an address; write `./` before one whose first part has a colon. Feature `sled`.
    /// - `fjall:PATH`: `FjallStore`, in the same way. Feature `fjall`.
    /// - `memory:`: a new [`MemoryStore`](crate::MemoryStore). Feature `memory`.
    ///
    /// A shared store is opened by the crate of its database: `tower_idempotency_postgres::connect` or
    /// `tower_idempotency_redis::connect`. Give it to [`new`](Self::new), as any store that you open with other
    /// settings.
    ///
    /// # Errors
    /// [`ConnectError::Url`] for a URL of another form, which the error does not repeat; [`ConnectError::Feature`] for
    /// a store whose feature is off; [`ConnectError::Open`] for what the store itself says.
    ///
    /// # Cancel safety
    /// If the future is dropped, a store in a directory may still be opened, and is closed at once.
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
        match read_store_name(url).map_err(ConnectError::Url)? {
            #[cfg(feature = "sled")]
            ("sled", path) => embedded::<super::sled_engine::SledEngine>(path).await,
            #[cfg(feature = "fjall")]
            ("fjall", path) => embedded::<super::fjall_engine::FjallEngine>(path).await,
            #[cfg(feature = "memory")]
            ("memory", _) => Ok(Self::new(super::memory::MemoryStore::new())),
            ("directory", _) => Err(ConnectError::Url("write the engine before the path")),
            ("postgres" | "redis", _) => Err(ConnectError::Url("the crate of the database opens it")),
            // The arm of this store is not in this build, because its feature is off.
            (feature, _) => Err(ConnectError::Feature { feature }),
        }
    }
}

#[cfg(feature = "_embedded")]
async fn embedded<E: StorageEngine>(directory: &str) -> Result<AnyStore, ConnectError> {
    let directory = std::path::PathBuf::from(directory);
    // The disk may take a while, so a thread that may block opens the store.
    let opening = tokio::task::spawn_blocking(|| super::EmbeddedStore::<E>::open(directory));
    // The first error says that the opening panicked or the runtime shuts down, the second is the store's.
    let opened = opening.await.map_err(Source::from).and_then(|opened| Ok(opened?));
    opened.map(AnyStore::new).map_err(ConnectError::Open)
}
