//! An open store of any kind: opened for a command (`at`), or to settle operations (`to_settle`), whose answers are
//! kept for another time; then read page by page (`each`), and closed after the command (`closed_after`).

use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt as _, TryStreamExt as _};
use tower_idempotency::AnyStore;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::internals::Records as _;
use tower_idempotency::operations::{Cursor, Filter, OperationRecord, OperationState, Operations, Server};
use tower_idempotency::store::Store as _;

use super::{directory, postgres, redis};
use crate::address::Address;
use crate::arguments::StoreOptions;
use crate::failure::Failure;
use crate::screen;

/// The number of operations that are read at a time.
const PAGE: usize = 1_000;
/// How long answers of operators are kept where none is given.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// An open store.
pub(crate) struct Opened {
    pub(crate) operations: Operations<AnyStore>,
    /// Other servers may have it open, and this process has not waited to see whether they live.
    may_mislead: bool,
}

impl Opened {
    /// Opens the store that the command line names, or the environment.
    pub(crate) async fn at(named: Option<String>, options: &StoreOptions) -> Result<Self, Failure> {
        let (store, is_shared) = match Address::of(named)? {
            Address::Directory(named) => {
                directory::refuse_other_owner(&named.path)?;
                (directory::opened(&named).await.map_err(directory::not_opened)?, false)
            }
            Address::Postgres(database) => (AnyStore::new(postgres::store(&database, options).await?), true),
            Address::Redis(database) => (AnyStore::new(redis::store(&database, options).await?), true),
        };
        if let Some(wait) = options.wait.filter(|_| is_shared) {
            tokio::time::sleep(wait).await;
        }
        Ok(Self { operations: Operations::over(store, DAY), may_mislead: is_shared && options.wait.is_none() })
    }

    /// Opens the store to settle operations. Answers that are given are kept for `retention`.
    pub(crate) async fn to_settle(
        named: Option<String>,
        options: &StoreOptions,
        retention: Duration,
    ) -> Result<Self, Failure> {
        let opened = Self::at(named, options).await?;
        Ok(Self { operations: Operations::over(opened.operations.store().clone(), retention), ..opened })
    }

    /// Returns the operations that a filter selects, or the disputed outcomes, and reads them page by page.
    pub(crate) fn each(&self, filter: Option<&Filter>) -> impl Stream<Item = Result<OperationRecord, Failure>> {
        let pages = stream::try_unfold(Some(None), move |place: Option<Option<Cursor>>| async move {
            let Some(after) = place else { return Ok::<_, Failure>(None) };
            let page = match filter {
                Some(filter) => self.operations.list(filter, after.as_ref(), PAGE).await,
                None => self.operations.disputed(after.as_ref(), PAGE).await,
            };
            let page = page.map_err(Failure::of)?;
            Ok(Some((stream::iter(page.operations).map(Ok), page.next.map(Some))))
        });
        pages.try_flatten()
    }

    /// Returns a remark for people if an operation may only look as if it was running.
    pub(crate) fn remark(&self, listed: &[OperationRecord]) -> Option<&'static str> {
        let seems = |operation: &OperationRecord| {
            operation.server == Server::Elsewhere && operation.state == OperationState::Running
        };
        (self.may_mislead && listed.iter().any(seems)).then_some(
            "some operations show as running because their servers were alive a moment ago; with --wait, those of a server \
             that has died show as interrupted",
        )
    }

    /// Writes that remark.
    pub(crate) fn say_remark(&self, listed: &[OperationRecord]) -> Result<(), Failure> {
        self.remark(listed).map_or(Ok(()), screen::remark)
    }

    /// Returns what to do about an operation that may only look as if it was running.
    pub(crate) fn hint(&self) -> &'static str {
        match self.may_mislead {
            true => ", unless its server has died: run the command again with --wait",
            false => "",
        }
    }

    /// Returns the time by the store's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.operations.store().now()
    }

    /// Closes the store after something is done with it.
    pub(crate) async fn closed_after<T>(
        self,
        done: impl AsyncFnOnce(&Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let done = done(&self).await;
        self.operations.store().close().await.map_err(Failure::of)?;
        done
    }
}
