//! The two stores of a copy.

use std::time::Duration;

use tower_idempotency::internals::{List, Records as _};
use tower_idempotency::store::Store as _;
use tower_idempotency::{AnyStore, Fence};
use tower_idempotency_postgres::PostgresBackend;
use tower_idempotency_redis::RedisBackendBuilder;
use tower_idempotency_shared::{Backend, SharedStore};

use super::namespace::{Namespace, Rows};
use super::postgres::PostgresRows;
use super::redis::RedisRows;
use crate::address::{Address, Database, RedisDatabase};
use crate::arguments::StoreOptions;
use crate::failure::Failure;
use crate::open::{Embedded, embedded, not_opened, opened_redis, prepared, prepared_redis, refuse_other_owner};

/// How long a call of a database may take. No client waits for it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Both stores, which no server uses.
pub(super) struct Sides {
    pub(super) from: Side,
    pub(super) to: Side,
}

/// One of the stores.
pub(super) struct Side {
    pub(super) store: AnyStore,
    /// Of the store that has the records: it is above all fences that were given there.
    pub(super) fence: Fence,
    /// `None` for a directory, which is locked.
    namespace: Option<Namespace>,
}

impl Sides {
    /// Opens both stores. Nothing is opened if they are the same one.
    pub(super) async fn open(from: Address, to: Address, options: &StoreOptions) -> Result<Self, Failure> {
        if are_same(&from, &to, options).await? {
            return Err(Failure::usage("both names are of the same store: name another one to copy to"));
        }
        let from = Side::that_has(&from, options).await?;
        match Side::that_gets(&to, options, from.fence).await {
            Ok(to) => Ok(Self { from, to }),
            Err(failure) => {
                from.close().await?;
                Err(failure)
            }
        }
    }

    /// Closes both.
    pub(super) async fn close(self) -> Result<(), Failure> {
        let closed = self.to.close().await;
        self.from.close().await?;
        closed
    }
}

impl Side {
    /// Opens a store that has records.
    async fn that_has(address: &Address, options: &StoreOptions) -> Result<Self, Failure> {
        match address {
            Address::Directory(directory) => {
                refuse_other_owner(&directory.path)?;
                let Embedded { store, fence } = embedded(directory, false, Fence(0)).await.map_err(not_opened)?;
                Ok(Self { store, fence, namespace: None })
            }
            Address::Postgres(database) => {
                let rows = Rows::Postgres(PostgresRows::existing(database, options).await?);
                let namespace = Namespace::unused(rows, database.namespace.as_deref(), options.wait).await?;
                let store = opened(postgres(database, options).await?).await?;
                Self::of_records(store, namespace, options.wait).await
            }
            Address::Redis(database) => {
                let builder = redis(database, options)?.accept_eviction().accept_unknown_settings();
                let rows = Rows::Redis(RedisRows::existing(database, builder.clone()).await?.into());
                let namespace = Namespace::unused(rows, database.namespace.as_deref(), options.wait).await?;
                let store = opened(opened_redis(builder).await?).await?;
                Self::of_records(store, namespace, options.wait).await
            }
        }
    }

    /// Opens a store that gets records. A directory is made if it is not there, and a namespace may be new.
    async fn that_gets(address: &Address, options: &StoreOptions, above: Fence) -> Result<Self, Failure> {
        match address {
            Address::Directory(directory) => {
                let is_named = directory.engine.is_some() || directory.path.exists();
                if !is_named {
                    return Err(Failure::usage("name the engine of the new store: sled:PATH or fjall:PATH"));
                }
                refuse_other_owner(&directory.path)?;
                let opened = embedded(directory, true, above).await.map_err(not_opened)?;
                Ok(Self { store: opened.store, fence: opened.fence, namespace: None })
            }
            Address::Postgres(database) => {
                let rows = Rows::Postgres(PostgresRows::of(database, options).await?);
                let namespace = Namespace::unused(rows, database.namespace.as_deref(), options.wait).await?;
                let store = opened(postgres(database, options).await?).await?;
                Self::above(store, namespace, above).await
            }
            Address::Redis(database) => {
                // Not where the server may delete them.
                let backend = opened_redis(redis(database, options)?).await?;
                let rows = Rows::Redis(RedisRows::of(redis(database, options)?).await?.into());
                let namespace = Namespace::unused(rows, database.namespace.as_deref(), options.wait).await?;
                Self::above(opened(backend).await?, namespace, above).await
            }
        }
    }

    /// Returns the end of an open store, unless it has runs that are under way.
    async fn of_records<B: Backend>(
        store: SharedStore<B>,
        mut namespace: Namespace,
        wait: Option<Duration>,
    ) -> Result<Self, Failure> {
        namespace.own = Some(store.session());
        let none_runs = require_no_run(&store, wait).await;
        // It is read last, so that it is above all fences.
        let (fence, none_runs) = match namespace.fence().await {
            Ok(fence) => (fence, none_runs),
            Err(failure) => (Fence(0), none_runs.and(Err(failure))),
        };
        Self { store: AnyStore::new(store), fence, namespace: Some(namespace) }.or_closed(none_runs).await
    }

    /// Returns the end of an open store, which gives fences above `above` from now on.
    async fn above<B: Backend>(store: SharedStore<B>, mut namespace: Namespace, above: Fence) -> Result<Self, Failure> {
        namespace.own = Some(store.session());
        let raised = store.raise_fences(above).await.map_err(Failure::of);
        Self { store: AnyStore::new(store), fence: above, namespace: Some(namespace) }.or_closed(raised).await
    }

    /// Closes it if something failed: its lease would keep others away.
    async fn or_closed(self, result: Result<(), Failure>) -> Result<Self, Failure> {
        match result {
            Ok(()) => Ok(self),
            Err(failure) => {
                self.close().await?;
                Err(failure)
            }
        }
    }

    /// Fails if a server uses the store now.
    pub(super) async fn require_unused(&self, said: &str) -> Result<(), Failure> {
        match &self.namespace {
            Some(namespace) => namespace.require_unused(said).await,
            None => Ok(()),
        }
    }

    async fn close(self) -> Result<(), Failure> {
        self.store.close().await.map_err(Failure::of)
    }
}

/// Returns whether both names are of one store.
async fn are_same(from: &Address, to: &Address, options: &StoreOptions) -> Result<bool, Failure> {
    match (from, to) {
        (Address::Directory(from), Address::Directory(to)) => {
            let paths = (from.path.canonicalize(), to.path.canonicalize());
            Ok(matches!(paths, (Ok(from), Ok(to)) if from == to))
        }
        (Address::Postgres(from), Address::Postgres(to)) => {
            let place = async |database: &Database| PostgresRows::of(database, options).await?.place().await;
            Ok(place(from).await? == place(to).await?)
        }
        (Address::Redis(from), Address::Redis(to)) => {
            let place = async |database: &RedisDatabase| RedisRows::of(redis(database, options)?).await?.place().await;
            Ok(place(from).await? == place(to).await?)
        }
        _ => Ok(false),
    }
}

/// Fails if runs are under way in the store, and are so still after `wait`.
async fn require_no_run<B: Backend>(store: &SharedStore<B>, wait: Option<Duration>) -> Result<(), Failure> {
    let under_way = async || {
        let page = store.list(List::Running, None, usize::MAX).await.map_err(Failure::of)?;
        Ok::<_, Failure>(page.records)
    };
    let mut running = under_way().await?;
    if let (Some(wait), false) = (wait, running.is_empty()) {
        // By then this process has seen that their servers have died.
        tokio::time::sleep(wait).await;
        running = under_way().await?;
    }
    if running.is_empty() {
        return Ok(());
    }
    Err(Failure::Store(format!(
        "{} runs show as under way in the store that has the records. If their servers have died, give --wait: it \
         waits until they show as interrupted",
        running.len()
    )))
}

async fn postgres(database: &Database, options: &StoreOptions) -> Result<PostgresBackend, Failure> {
    let patient = prepared(database, None, options)?.statement_timeout(TIMEOUT).wait_for_connection(TIMEOUT);
    patient.open().await.map_err(Failure::of)
}

fn redis(database: &RedisDatabase, options: &StoreOptions) -> Result<RedisBackendBuilder, Failure> {
    // Together they are less than what a call may take.
    let (answer, replicas) = (TIMEOUT / 2, TIMEOUT / 4);
    let builder = prepared_redis(database, options)?.response_timeout(answer).wait_for_replicas(replicas);
    Ok(builder.wait_for_connection(TIMEOUT))
}

/// Opens a store over a database. Without outcomes in memory, what is read is what the database has.
async fn opened<B: Backend>(backend: B) -> Result<SharedStore<B>, Failure> {
    let builder = SharedStore::<B>::builder().call_timeout(TIMEOUT).lease(TIMEOUT * 6).outcome_cache_bytes(0);
    builder.open(backend).await.map_err(Failure::of)
}

#[cfg(test)]
pub(super) mod tests;
