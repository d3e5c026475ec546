//! Opens the store of the proxy, as a service does: one that is not there yet is made.

use tower_idempotency::store::OpenError;
use tower_idempotency::{AnyStore, FjallStore, SledStore};
use tower_idempotency_postgres::PostgresStore;

use super::settings::Settings;
use crate::arguments::StoreOptions;
use crate::failure::Failure;
use crate::open;
use crate::place::{Database, Directory, Place};

pub(super) async fn open(place: Place, options: &StoreOptions, settings: &Settings) -> Result<AnyStore, Failure> {
    match place {
        Place::Directory(directory) => {
            if let Some(other) = open::owner_is_other(&directory.path) {
                return Err(Failure::Usage(other));
            }
            // The disk may take a while, but this command waits for nothing else.
            let opened = tokio::task::block_in_place(|| embedded(&directory, settings));
            opened.map_err(|error| Failure::Store(open::reason(&error)))
        }
        Place::Postgres(database) => shared(&database, options, settings).await,
    }
}

fn embedded(directory: &Directory, settings: &Settings) -> Result<AnyStore, OpenError> {
    let sled = || settings.sled.clone().apply(SledStore::builder()).open(&directory.path).map(AnyStore::new);
    let fjall = || settings.fjall.clone().apply(FjallStore::builder()).open(&directory.path).map(AnyStore::new);
    open::by_engine(directory.engine, sled, fjall)
}

async fn shared(database: &Database, options: &StoreOptions, settings: &Settings) -> Result<AnyStore, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::of(error);
    let backend = open::prepared(database, None, options)?;
    let backend = settings.postgres.clone().apply(backend).map_err(|error| Failure::Usage(error.to_string()))?;
    // Several may do so at once.
    backend.migrate().await.map_err(|error| failed(&error))?;
    let backend = backend.open().await.map_err(|error| failed(&error))?;
    let store = settings.shared.clone().apply(PostgresStore::builder()).open(backend).await;
    store.map(AnyStore::new).map_err(|error| failed(&error))
}
