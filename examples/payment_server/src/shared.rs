//! `--store postgres://…`: the store of records in a database that several servers share.

use std::error::Error;
use std::time::Duration;

use tower_idempotency_postgres::{PostgresBackend, PostgresStore};

use crate::args::Args;

const NAMESPACE: &str = "payments";
const LEASE: Duration = Duration::from_secs(30);
/// The time that the database may take to answer. With a short lease it is less, so that the lease can be renewed in
/// time.
const TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) async fn open(url: &str, args: &Args) -> Result<PostgresStore, Box<dyn Error + Send + Sync>> {
    let shared = args.settings.shared.clone();
    let lease = shared.lease.unwrap_or(args.lease.map_or(LEASE, Duration::from_secs));
    let timeout = TIMEOUT.min(lease / 6);
    let database = PostgresBackend::from_url(url)?.statement_timeout(timeout * 3 / 4);
    let database = args.settings.postgres.clone().apply(database)?.namespace(namespace(args))?;
    // Several servers may do so at once.
    database.migrate().await?;
    let store = shared.apply(PostgresStore::builder().lease(lease).call_timeout(timeout));
    Ok(store.open(database.open().await?).await?)
}

/// Returns the namespace. Its servers share their keys, and with `--atomic` their charges.
pub(crate) fn namespace(args: &Args) -> &str {
    args.namespace.as_deref().or(args.settings.postgres.namespace.as_deref()).unwrap_or(NAMESPACE)
}
