//! The tables of a ledger in the database of an embedded store: trees of sled, or keyspaces of fjall.

use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use sled::Tree;
use tower_idempotency::store::{Abort, CommitError, TransactionError, TransactionTree};
#[cfg(feature = "fjall")]
use tower_idempotency::{
    FjallStore,
    fjall::{self, Keyspace, KeyspaceCreateOptions},
    store::TransactionKeyspace,
};
use tower_idempotency::{IdempotencyContext, SledStore, sled};

use super::error::LedgerError;

/// The names of the tables.
const NAMES: [&str; 2] = ["charges", "intents"];

#[derive(Debug, Clone, Copy)]
pub(super) enum Table {
    Charges = 0,
    Intents = 1,
}

/// The store in whose database the tables are.
#[derive(Clone)]
pub(crate) enum Database {
    Sled(SledStore),
    #[cfg(feature = "fjall")]
    Fjall(FjallStore),
}

#[derive(Clone)]
pub(super) enum Tables {
    Sled(SledStore, [Tree; 2]),
    #[cfg(feature = "fjall")]
    Fjall(FjallStore, [Keyspace; 2]),
}

/// The tables within a transaction.
pub(super) trait Changing {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, TransactionError>;

    fn insert(&self, table: Table, key: &[u8], value: Vec<u8>) -> Result<(), TransactionError>;
}

type Found = Result<(Vec<u8>, Vec<u8>), LedgerError>;

impl Tables {
    pub(super) fn open(database: Database) -> Result<Self, LedgerError> {
        Ok(match database {
            Database::Sled(store) => {
                let trees = store.db().map_err(LedgerError::away)?;
                let [charges, intents] = NAMES.map(|name| trees.open_tree(name));
                Self::Sled(store, [charges?, intents?])
            }
            #[cfg(feature = "fjall")]
            Database::Fjall(store) => {
                let [charges, intents] = NAMES.map(|name| store.keyspace(name, KeyspaceCreateOptions::default));
                let keyspaces = [charges.map_err(LedgerError::away)?, intents.map_err(LedgerError::away)?];
                Self::Fjall(store, keyspaces)
            }
        })
    }

    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, LedgerError> {
        Ok(match self {
            Self::Sled(_, trees) => trees[table as usize].get(key)?.map(|value| value.to_vec()),
            #[cfg(feature = "fjall")]
            Self::Fjall(_, keyspaces) => keyspaces[table as usize].get(key)?.map(|value| value.to_vec()),
        })
    }

    /// Returns what is under the keys that begin with `prefix`, in their order.
    pub(super) fn prefix(&self, table: Table, prefix: &[u8]) -> Box<dyn DoubleEndedIterator<Item = Found>> {
        match self {
            Self::Sled(_, trees) => Box::new(trees[table as usize].scan_prefix(prefix).map(|entry| {
                let (key, value) = entry?;
                Ok((key.to_vec(), value.to_vec()))
            })),
            #[cfg(feature = "fjall")]
            Self::Fjall(_, keyspaces) => Box::new(keyspaces[table as usize].prefix(prefix).map(|entry| {
                let (key, value) = entry.into_inner()?;
                Ok((key.to_vec(), value.to_vec()))
            })),
        }
    }

    /// Makes a change, durably. If a request is given, the record of its answer is in the same transaction.
    pub(super) async fn change<E, F>(
        &self,
        request: Option<&IdempotencyContext>,
        mut change: F,
    ) -> Result<Response, CommitError<E>>
    where
        F: FnMut(&dyn Changing) -> Result<http::Response<Bytes>, Abort<E>> + Send + 'static,
        E: Send + 'static,
    {
        match self {
            Self::Sled(store, [charges, intents]) => {
                let trees = [charges, intents];
                let change = move |views: [TransactionTree<'_>; 2]| change(&views);
                match request {
                    Some(request) => Ok(store.complete_in(request, trees, change).await?.into_response()),
                    None => Ok(store.transaction(trees, change).await?.map(Into::into)),
                }
            }
            #[cfg(feature = "fjall")]
            Self::Fjall(store, [charges, intents]) => {
                let keyspaces = [charges, intents];
                let change = move |views: [TransactionKeyspace<'_>; 2]| change(&views);
                match request {
                    Some(request) => Ok(store.complete_in(request, keyspaces, change).await?.into_response()),
                    None => Ok(store.transaction(keyspaces, change).await?.map(Into::into)),
                }
            }
        }
    }
}

impl Changing for [TransactionTree<'_>; 2] {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, TransactionError> {
        Ok(self[table as usize].get(key)?.map(|value| value.to_vec()))
    }

    fn insert(&self, table: Table, key: &[u8], value: Vec<u8>) -> Result<(), TransactionError> {
        self[table as usize].insert(key, value).map(drop)
    }
}

#[cfg(feature = "fjall")]
impl Changing for [TransactionKeyspace<'_>; 2] {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, TransactionError> {
        Ok(self[table as usize].get(key)?.map(|value| value.to_vec()))
    }

    fn insert(&self, table: Table, key: &[u8], value: Vec<u8>) -> Result<(), TransactionError> {
        self[table as usize].insert(key, value)
    }
}

impl From<sled::Error> for LedgerError {
    fn from(error: sled::Error) -> Self {
        Self::failed(error)
    }
}

#[cfg(feature = "fjall")]
impl From<fjall::Error> for LedgerError {
    fn from(error: fjall::Error) -> Self {
        Self::failed(error)
    }
}
