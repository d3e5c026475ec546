//! An open store of any kind.

use std::time::Duration;

use tower_idempotency::AnyStore;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::internals::Records as _;
use tower_idempotency::operations::{OperationRecord, OperationState, Operations, Server};
use tower_idempotency::store::Store as _;

use super::{directory, postgres, redis};
use crate::arguments::StoreOptions;
use crate::failure::Failure;
use crate::place::Place;

/// An open store.
pub(crate) struct Opened {
    pub(crate) operations: Operations<AnyStore>,
    /// Other servers may have it open, so this process has to see first whether they live.
    is_shared: bool,
    /// It has waited for that.
    has_waited: bool,
}

impl Opened {
    /// Opens the store that the command line names, or the environment.
    pub(crate) async fn at(named: Option<String>, options: &StoreOptions) -> Result<Self, Failure> {
        // The time is for answers of operators, and only settling gives one.
        Self::to_settle(named, options, Duration::from_secs(24 * 60 * 60)).await
    }

    /// Opens the store to settle an operation. An answer that is given is kept for `retention`.
    pub(crate) async fn to_settle(
        named: Option<String>,
        options: &StoreOptions,
        retention: Duration,
    ) -> Result<Self, Failure> {
        match Place::of(named)? {
            Place::Directory(named) => {
                directory::refuse_other_owner(&named.path)?;
                let store = directory::opened(&named).await.map_err(directory::not_opened)?;
                let operations = Operations::over(store, retention);
                Ok(Self { operations, is_shared: false, has_waited: true })
            }
            Place::Postgres(database) => {
                let store = postgres::store(&database, options).await?;
                Ok(Self::shared(AnyStore::new(store), options.wait, retention).await)
            }
            Place::Redis(database) => {
                let store = redis::store(&database, options).await?;
                Ok(Self::shared(AnyStore::new(store), options.wait, retention).await)
            }
        }
    }

    async fn shared(store: AnyStore, wait: Option<Duration>, retention: Duration) -> Self {
        if let Some(wait) = wait {
            tokio::time::sleep(wait).await;
        }
        Self { operations: Operations::over(store, retention), is_shared: true, has_waited: wait.is_some() }
    }

    /// Returns a remark for people if an operation may only look as if it was running.
    pub(crate) fn remark(&self, listed: &[OperationRecord]) -> Option<&'static str> {
        let seems = |operation: &OperationRecord| {
            operation.server == Server::Elsewhere && operation.state == OperationState::Running
        };
        (self.is_shared && !self.has_waited && listed.iter().any(seems)).then_some(
            "some operations show as running because their servers were alive a moment ago; with --wait, those of a server \
             that has died show as interrupted",
        )
    }

    /// Returns what to do about an operation that may only look as if it was running.
    pub(crate) fn hint(&self) -> &'static str {
        match self.is_shared && !self.has_waited {
            true => ", unless its server has died: run the command again with --wait",
            false => "",
        }
    }

    /// Returns the time by the store's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.operations.store().now()
    }

    /// Closes the store.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        self.operations.store().close().await.map_err(Failure::of)
    }
}
