//! Opens the store of the proxy, as a service does: one that is not there yet is made.

use tower_idempotency::store::OpenError;
use tower_idempotency::{AnyStore, FjallStore, SledStore};
use tower_idempotency_postgres::PostgresStore;
use tower_idempotency_redis::RedisStore;

use super::settings::Settings;
use crate::address::{Address, Database, Directory, Engine, RedisDatabase};
use crate::arguments::StoreOptions;
use crate::failure::Failure;
use crate::open;

pub(super) async fn open(address: Address, options: &StoreOptions, settings: &Settings) -> Result<AnyStore, Failure> {
    match address {
        Address::Directory(directory) => {
            open::refuse_other_owner(&directory.path)?;
            settings.require_only(match directory.engine {
                Some(Engine::Sled) => &["sled"],
                Some(Engine::Fjall) => &["fjall"],
                // The engine that has made it decides.
                None => &["sled", "fjall"],
            })?;
            // The disk may take a while, but this command waits for nothing else.
            let opened = tokio::task::block_in_place(|| embedded(&directory, settings));
            let (section, store) = opened.map_err(open::not_opened)?;
            settings.require_only(&[section])?;
            Ok(store)
        }
        Address::Postgres(database) => postgres(&database, options, settings).await,
        Address::Redis(database) => redis(&database, options, settings).await,
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
    let backend = open::prepared(database, None, options)?;
    let backend = settings.postgres.clone().apply(backend).map_err(Failure::usage)?;
    // Several may do so at once.
    backend.migrate().await.map_err(Failure::of)?;
    let backend = backend.open().await.map_err(Failure::of)?;
    let store = settings.shared.clone().apply(PostgresStore::builder()).open(backend).await;
    store.map(AnyStore::new).map_err(Failure::of)
}

async fn redis(database: &RedisDatabase, options: &StoreOptions, settings: &Settings) -> Result<AnyStore, Failure> {
    settings.require_only(&["shared", "redis"])?;
    let backend = open::prepared_redis(database, options)?;
    let backend = settings.redis.clone().apply(backend).map_err(Failure::usage)?;
    let backend = open::opened_redis(backend).await?;
    let store = settings.shared.clone().apply(RedisStore::builder()).open(backend).await;
    store.map(AnyStore::new).map_err(Failure::of)
}
