//! The two stores of a copy.

use std::time::Duration;

use tower_idempotency::internals::{List, Records as _};
use tower_idempotency::store::{OpenError, Store as _};
use tower_idempotency::{AnyStore, Fence};
use tower_idempotency_postgres::PostgresStore;

use super::namespace::Namespace;
use crate::arguments::StoreOptions;
use crate::failure::Failure;
use crate::open::{Embedded, check_namespace, embedded, owner_is_other, prepared, reason};
use crate::place::{Database, Directory, Place};

/// How long a call of a database may take. No client waits for it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Both stores, which no server uses.
pub(super) struct Ends {
    pub(super) from: End,
    pub(super) to: End,
}

/// One of the stores.
pub(super) struct End {
    pub(super) store: AnyStore,
    /// Of the store that has the records: it is above all fences that were given there.
    pub(super) fence: Fence,
    /// `None` for a directory, which is locked.
    namespace: Option<Namespace>,
}

impl Ends {
    /// Opens both stores. Nothing is opened if they are the same one.
    pub(super) async fn open(from: Place, to: Place, options: &StoreOptions) -> Result<Self, Failure> {
        let same = || Failure::Usage("both names are of the same store: name another one to copy to".to_owned());
        match (from, to) {
            (Place::Directory(from), Place::Directory(to)) => {
                if let (Ok(from), Ok(to)) = (from.path.canonicalize(), to.path.canonicalize())
                    && from == to
                {
                    return Err(same());
                }
                let from = directory(&from).await?;
                let to = End::new_directory(&to, from.fence).await;
                Self::both(from, to).await
            }
            (Place::Directory(from), Place::Postgres(to)) => {
                let from = directory(&from).await?;
                let to = End::new_database(&to, options, from.fence).await;
                Self::both(from, to).await
            }
            (Place::Postgres(from), Place::Directory(to)) => {
                let from = database(&from, options).await?;
                let to = End::new_directory(&to, from.fence).await;
                Self::both(from, to).await
            }
            (Place::Postgres(from), Place::Postgres(to)) => {
                let place = async |database: &Database| Namespace::of(database, options).await?.place().await;
                if place(&from).await? == place(&to).await? {
                    return Err(same());
                }
                let from = database(&from, options).await?;
                let to = End::new_database(&to, options, from.fence).await;
                Self::both(from, to).await
            }
        }
    }

    /// Closes the first store if the second one could not be opened.
    async fn both(from: End, to: Result<End, Failure>) -> Result<Self, Failure> {
        match to {
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

impl End {
    /// Opens a directory that gets records, and makes it if it is not there.
    async fn new_directory(directory: &Directory, above: Fence) -> Result<Self, Failure> {
        let is_named = directory.engine.is_some() || directory.path.exists();
        if !is_named {
            return Err(Failure::Usage("name the engine of the new store: sled:PATH or fjall:PATH".to_owned()));
        }
        refuse_other_owner(directory)?;
        let opened = embedded(directory, true, above).await.map_err(not_opened)?;
        Ok(Self { store: opened.store, fence: opened.fence, namespace: None })
    }

    /// Opens a namespace that gets records, which may be new.
    async fn new_database(database: &Database, options: &StoreOptions, above: Fence) -> Result<Self, Failure> {
        let mut namespace = Namespace::of(database, options).await?;
        namespace.wait_until_unused(options.wait).await?;
        let store = open(database, options).await?;
        namespace.own = Some(store.session());
        let raised = store.raise_fences(above).await.map_err(|error| Failure::of(&error));
        let end = Self { store: AnyStore::new(store), fence: above, namespace: Some(namespace) };
        end.or_closed(raised).await
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
        self.store.close().await.map_err(|error| Failure::of(&error))
    }
}

/// Opens a directory that has records.
async fn directory(directory: &Directory) -> Result<End, Failure> {
    refuse_other_owner(directory)?;
    let Embedded { store, fence } = embedded(directory, false, Fence(0)).await.map_err(not_opened)?;
    Ok(End { store, fence, namespace: None })
}

/// Opens a namespace that has records.
async fn database(database: &Database, options: &StoreOptions) -> Result<End, Failure> {
    let mut namespace = Namespace::of(database, options).await?;
    check_namespace(&namespace.connected.client, &namespace.connected.schema, database.namespace.as_deref()).await?;
    namespace.wait_until_unused(options.wait).await?;
    let store = open(database, options).await?;
    namespace.own = Some(store.session());
    let none_runs = require_no_run(&store, options.wait).await;
    // It is read last, so that it is above all fences.
    let (fence, none_runs) = match namespace.fence().await {
        Ok(fence) => (fence, none_runs),
        Err(failure) => (Fence(0), none_runs.and(Err(failure))),
    };
    End { store: AnyStore::new(store), fence, namespace: Some(namespace) }.or_closed(none_runs).await
}

/// Fails if runs are under way in the store, and are so still after `wait`.
async fn require_no_run(store: &PostgresStore, wait: Option<Duration>) -> Result<(), Failure> {
    let under_way = async || {
        let page = store.list(List::Running, None, usize::MAX).await.map_err(|error| Failure::of(&error))?;
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

async fn open(database: &Database, options: &StoreOptions) -> Result<PostgresStore, Failure> {
    let patient = prepared(database, None, options)?.statement_timeout(TIMEOUT).wait_for_connection(TIMEOUT);
    let backend = patient.open().await.map_err(|error| Failure::of(&error))?;
    // Without outcomes in memory, what is read is what the database has.
    let builder = PostgresStore::builder().call_timeout(TIMEOUT).lease(TIMEOUT * 6).outcome_cache_bytes(0);
    builder.open(backend).await.map_err(|error| Failure::of(&error))
}

fn refuse_other_owner(directory: &Directory) -> Result<(), Failure> {
    owner_is_other(&directory.path).map_or(Ok(()), |other| Err(Failure::Usage(other)))
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn not_opened(error: OpenError) -> Failure {
    Failure::Store(reason(&error))
}

#[cfg(test)]
pub(super) mod tests;
