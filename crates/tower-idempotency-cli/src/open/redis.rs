//! Opens a Redis or Valkey database.

use std::time::Duration;

use tower_idempotency_redis::{RedisBackend, RedisBackendBuilder, RedisError, RedisStore};

use super::{namespace, tls};
use crate::address::RedisDatabase;
use crate::arguments::StoreOptions;
use crate::failure::{Failure, with_causes};

/// How long the server may take for an answer to a command, for which no client waits. The store gives up after two
/// seconds.
const ANSWERS_WITHIN: Duration = Duration::from_millis(1_500);

/// Connections to a database that are about to be made. They are encrypted where the URL asks for it.
pub(crate) fn prepared(database: &RedisDatabase, options: &StoreOptions) -> Result<RedisBackendBuilder, Failure> {
    let builder = database.builder.clone();
    match database.is_encrypted {
        true => Ok(builder.tls(tls::config(options.ca.as_deref())?)),
        false => Ok(builder),
    }
}

/// The same, for a command.
pub(crate) fn patient(database: &RedisDatabase, options: &StoreOptions) -> Result<RedisBackendBuilder, Failure> {
    prepared(database, options).map(|builder| builder.response_timeout(ANSWERS_WITHIN))
}

/// Opens the rows of a namespace that services use. That the server may delete some is theirs to accept.
pub(crate) async fn existing(database: &RedisDatabase, builder: RedisBackendBuilder) -> Result<RedisBackend, Failure> {
    let backend = opened(builder.accept_eviction().accept_unknown_settings()).await?;
    namespace::check_redis(&backend, database.namespace.as_deref()).await?;
    Ok(backend)
}

/// Opens the rows of a namespace, which may be new.
pub(crate) async fn opened(builder: RedisBackendBuilder) -> Result<RedisBackend, Failure> {
    builder.open().await.map_err(|error| match error {
        RedisError::NotDurable { .. } => Failure::Store(format!(
            "{}. Name the durability of the services, as in ?durability=memory: without one it is aof",
            with_causes(&error)
        )),
        error => Failure::of(error),
    })
}

/// Opens the store as one more server, in a namespace that services use.
pub(super) async fn store(database: &RedisDatabase, options: &StoreOptions) -> Result<RedisStore, Failure> {
    let backend = existing(database, patient(database, options)?).await?;
    RedisStore::open(backend).await.map_err(Failure::of)
}
