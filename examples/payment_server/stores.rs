//! The store that was asked for, and the ledger beside it.

use std::error::Error;
use std::path::Path;

use axum::Router;
use tempfile::TempDir;
use tower_idempotency::{AnyStore, MemoryStore, SledStore};

use crate::args::{Args, Place};
use crate::ledger::Ledger;

type Failure = Box<dyn Error + Send + Sync>;

pub(crate) struct Stores {
    pub(crate) any: AnyStore,
    pub(crate) ledger: Ledger,
    /// What operators are shown of this store alone.
    pub(crate) admin: Router,
    // Goes with it.
    pub(crate) directory: Option<TempDir>,
}

pub(crate) async fn open(args: &Args) -> Result<Stores, Failure> {
    for (option, is_given) in [("--lease", args.lease.is_some()), ("--namespace", args.namespace.is_some())] {
        if is_given && !args.store.is_shared() {
            return Err(format!("{option} is for a store that servers share: --store postgres://…").into());
        }
    }
    if args.atomic && !matches!(args.store, Place::Sled) {
        return Err("--atomic needs charges and records in one database: --store sled".into());
    }
    match &args.store {
        Place::Sled => {
            let store = SledStore::open(&args.data)?;
            let ledger = Ledger::open(store.clone(), args.atomic)?;
            Ok(Stores { any: AnyStore::new(store), ledger, admin: Router::new(), directory: None })
        }
        Place::SledAt(path) => {
            let ledger = ledger_apart(&args.data)?;
            Ok(Stores { any: AnyStore::new(SledStore::open(path)?), ledger, admin: Router::new(), directory: None })
        }
        Place::Memory => {
            // Nothing outlives the process, the ledger neither.
            let directory = tempfile::tempdir()?;
            let ledger = ledger_apart(directory.path())?;
            let any = AnyStore::new(MemoryStore::new());
            Ok(Stores { any, ledger, admin: Router::new(), directory: Some(directory) })
        }
        Place::Postgres(url) => postgres(url, args).await,
        Place::Unknown => Err("--store is not understood; give sled, sled:PATH, memory or postgres://…".into()),
    }
}

/// A ledger whose records are elsewhere.
fn ledger_apart(path: &Path) -> Result<Ledger, Failure> {
    Ledger::open(SledStore::open(path)?, false)
}

#[cfg(feature = "postgres")]
async fn postgres(url: &str, args: &Args) -> Result<Stores, Failure> {
    // The charges are this server's own: what all servers have charged can be counted.
    let ledger = ledger_apart(&args.data)?;
    let store = crate::shared::open(url, args).await?;
    Ok(Stores { any: AnyStore::new(store.clone()), ledger, admin: crate::shared::admin(store), directory: None })
}

#[cfg(not(feature = "postgres"))]
#[expect(clippy::unused_async, reason = "the other one connects")]
async fn postgres(_: &str, _: &Args) -> Result<Stores, Failure> {
    Err("for --store postgres://… build it with the feature: cargo run --example payment_server --features postgres"
        .into())
}
