//! Opens the store of the proxy, as a service does: one that is not there yet is made.

use tower_idempotency::store::OpenError;
use tower_idempotency::{AnyStore, FjallStore, SledStore};
use tower_idempotency_postgres::PostgresStore;
use tower_idempotency_redis::RedisStore;

use super::settings::Settings;
use crate::arguments::StoreOptions;
use crate::failure::Failure;
use crate::open;
use crate::place::{Database, Directory, Engine, Place, RedisDatabase};

pub(super) async fn open(place: Place, options: &StoreOptions, settings: &Settings) -> Result<AnyStore, Failure> {
    match place {
        Place::Directory(directory) => {
            if let Some(other) = open::owner_is_other(&directory.path) {
                return Err(Failure::Usage(other));
            }
            settings.require_only(match directory.engine {
                Some(Engine::Sled) => &["sled"],
                Some(Engine::Fjall) => &["fjall"],
                // The engine that has made it decides.
                None => &["sled", "fjall"],
            })?;
            // The disk may take a while, but this command waits for nothing else.
            let opened = tokio::task::block_in_place(|| embedded(&directory, settings));
            let (section, store) = opened.map_err(|error| Failure::Store(open::reason(&error)))?;
            settings.require_only(&[section])?;
            Ok(store)
        }
        Place::Postgres(database) => postgres(&database, options, settings).await,
        Place::Redis(database) => redis(&database, options, settings).await,
    }
}

/// Opens the store, and says which section of the settings is its own.
fn embedded(directory: &Directory, settings: &Settings) -> Result<(&'static str, AnyStore), OpenError> {
    let named = |name| move |store| (name, store);
    let sled = || settings.sled.clone().apply(SledStore::builder()).open(&directory.path).map(AnyStore::new);
    let fjall = || settings.fjall.clone().apply(FjallStore::builder()).open(&directory.path).map(AnyStore::new);
    open::by_engine(directory.engine, || sled().map(named("sled")), || fjall().map(named("fjall")))
}

async fn postgres(database: &Database, options: &StoreOptions, settings: &Settings) -> Result<AnyStore, Failure> {
    settings.require_only(&["shared", "postgres"])?;
    let failed = |error: &dyn std::error::Error| Failure::of(error);
    let backend = open::prepared(database, None, options)?;
    let backend = settings.postgres.clone().apply(backend).map_err(|error| Failure::Usage(error.to_string()))?;
    // Several may do so at once.
    backend.migrate().await.map_err(|error| failed(&error))?;
    let backend = backend.open().await.map_err(|error| failed(&error))?;
    let store = settings.shared.clone().apply(PostgresStore::builder()).open(backend).await;
    store.map(AnyStore::new).map_err(|error| failed(&error))
}

async fn redis(database: &RedisDatabase, options: &StoreOptions, settings: &Settings) -> Result<AnyStore, Failure> {
    settings.require_only(&["shared", "redis"])?;
    let backend = open::prepared_redis(database, options)?;
    let backend = settings.redis.clone().apply(backend).map_err(|error| Failure::Usage(error.to_string()))?;
    let backend = open::opened_redis(backend).await?;
    let store = settings.shared.clone().apply(RedisStore::builder()).open(backend).await;
    store.map(AnyStore::new).map_err(|error| Failure::of(&error))
}
