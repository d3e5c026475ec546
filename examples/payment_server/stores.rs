//! The store that was asked for, and the ledger beside it.

use std::error::Error;

use tower_idempotency::{AnyStore, MemoryStore, SledStore};

use crate::args::{Args, StoreKind};
use crate::ledger::Ledger;

const CHARGES: &str = "charges";

pub(crate) struct Stores {
    pub(crate) any: AnyStore,
    /// What is to be closed at the end.
    pub(crate) sled: Option<SledStore>,
    pub(crate) ledger: Ledger,
}

pub(crate) fn open(args: &Args) -> Result<Stores, Box<dyn Error + Send + Sync>> {
    match args.store {
        StoreKind::Sled => {
            let store = SledStore::open(&args.data)?;
            let ledger = Ledger::new(store.db()?.open_tree(CHARGES)?, Some(store.clone()));
            Ok(Stores { any: AnyStore::new(store.clone()), sled: Some(store), ledger })
        }
        StoreKind::Memory => {
            let database = sled::Config::new().temporary(true).open()?;
            let ledger = Ledger::new(database.open_tree(CHARGES)?, None);
            Ok(Stores { any: AnyStore::new(MemoryStore::new()), sled: None, ledger })
        }
    }
}
