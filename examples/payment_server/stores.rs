//! The store that was asked for, and the ledger beside it.

use std::error::Error;

use tempfile::TempDir;
use tower_idempotency::{AnyStore, MemoryStore, SledStore};

use crate::args::{Args, StoreKind};
use crate::ledger::Ledger;

pub(crate) struct Stores {
    pub(crate) any: AnyStore,
    pub(crate) ledger: Ledger,
    // Goes with it.
    pub(crate) directory: Option<TempDir>,
}

pub(crate) fn open(args: &Args) -> Result<Stores, Box<dyn Error + Send + Sync>> {
    match args.store {
        StoreKind::Sled => {
            let store = SledStore::open(&args.data)?;
            let ledger = Ledger::open(store.clone(), args.atomic)?;
            Ok(Stores { any: AnyStore::new(store), ledger, directory: None })
        }
        StoreKind::Memory if args.atomic => Err("--atomic needs --store sled".into()),
        StoreKind::Memory => {
            // Nothing outlives the process, the ledger neither.
            let directory = tempfile::tempdir()?;
            let ledger = Ledger::open(SledStore::open(directory.path())?, false)?;
            Ok(Stores { any: AnyStore::new(MemoryStore::new()), ledger, directory: Some(directory) })
        }
    }
}
