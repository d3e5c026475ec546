//! Stores over PostgreSQL, as processes of their own have them.

use std::time::Duration;

use tower_idempotency_postgres::{PostgresBackend, PostgresStore};

/// The settings of memory and log for a server of this size. The settings for durability are PostgreSQL's defaults:
/// `fsync`, `synchronous_commit` and `full_page_writes` are on.
pub const SETTINGS: [&str; 3] = ["shared_buffers=512MB", "max_wal_size=4GB", "max_connections=200"];
/// The number of connections of a contender: the store's default.
pub const CONNECTIONS: usize = 4;
/// A lease longer than any run here, so that no session is renewed in it.
pub const LEASE: Duration = Duration::from_secs(3_600);

/// Opens a store like one in a process of its own.
pub async fn postgres(url: &str) -> PostgresStore {
    postgres_of(url, CONNECTIONS).await
}

/// The same, with at most this many calls with writes at once.
pub async fn postgres_of(url: &str, calls: usize) -> PostgresStore {
    let builder = PostgresStore::builder().lease(LEASE).calls(calls);
    builder.open(connected(url, calls.max(CONNECTIONS)).await).await.expect("the database answers")
}

pub async fn postgres_backend(url: &str) -> PostgresBackend {
    connected(url, CONNECTIONS).await
}

async fn connected(url: &str, connections: usize) -> PostgresBackend {
    let builder = PostgresBackend::from_url(url).expect("a URL").connections(connections);
    builder.migrate().await.expect("the database takes tables");
    builder.open().await.expect("the database answers")
}
