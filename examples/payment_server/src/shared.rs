//! `--store postgres://…` or `redis://…`: the store of records in a database that several servers share.

use std::error::Error;
use std::time::Duration;

#[cfg(feature = "postgres")]
use tower_idempotency_postgres::{PostgresBackend, PostgresStore};
#[cfg(feature = "redis")]
use tower_idempotency_redis::{RedisBackend, RedisStore};

use crate::args::Args;

const NAMESPACE: &str = "payments";
const LEASE: Duration = Duration::from_secs(30);
/// The time that the database may take to answer. With a short lease it is less, so that the lease can be renewed in
/// time.
const TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(feature = "postgres")]
pub(crate) async fn open(url: &str, args: &Args) -> Result<PostgresStore, Box<dyn Error + Send + Sync>> {
    let (lease, timeout) = times(args);
    let database = PostgresBackend::from_url(url)?.statement_timeout(timeout * 3 / 4);
    let database = args.settings.postgres.clone().apply(database)?.namespace(namespace(args))?;
    // Several servers may do so at once.
    database.migrate().await?;
    let store = args.settings.shared.clone().apply(PostgresStore::builder().lease(lease).call_timeout(timeout));
    Ok(store.open(database.open().await?).await?)
}

#[cfg(feature = "redis")]
pub(crate) async fn open_redis(url: &str, args: &Args) -> Result<RedisStore, Box<dyn Error + Send + Sync>> {
    let (lease, timeout) = times(args);
    let database = RedisBackend::from_url(url)?.response_timeout(timeout * 3 / 4).wait_for_replicas(timeout / 4);
    let mut database = args.settings.redis.clone().apply(database)?;
    let given = args.namespace.as_deref().or(args.settings.redis.namespace.as_deref());
    let names_one = url.rsplit_once('?').is_some_and(|(_, query)| query.contains("namespace="));
    if let Some(namespace) = given.or_else(|| (!names_one).then_some(NAMESPACE)) {
        database = database.namespace(namespace)?;
    }
    let store = args.settings.shared.clone().apply(RedisStore::builder().lease(lease).call_timeout(timeout));
    Ok(store.open(database.open().await?).await?)
}

/// Returns the lease, and the time that the database may take to answer.
fn times(args: &Args) -> (Duration, Duration) {
    let lease = args.settings.shared.lease.unwrap_or(args.lease.map_or(LEASE, Duration::from_secs));
    (lease, TIMEOUT.min(lease / 6))
}

/// Returns the namespace. Its servers share their keys, and with `--atomic` their charges.
#[cfg(feature = "postgres")]
pub(crate) fn namespace(args: &Args) -> &str {
    args.namespace.as_deref().or(args.settings.postgres.namespace.as_deref()).unwrap_or(NAMESPACE)
}
