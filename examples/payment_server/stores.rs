//! The store that was asked for, and the ledger beside it.

use std::error::Error;

use tower_idempotency::{AnyStore, MemoryStore, SledStore};

use crate::args::{Args, StoreKind};
use crate::ledger::Ledger;

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
            let ledger = Ledger::open(&store.db()?, Some(store.clone()), args.atomic)?;
            Ok(Stores { any: AnyStore::new(store.clone()), sled: Some(store), ledger })
        }
        StoreKind::Memory if args.atomic => Err("--atomic needs --store sled".into()),
        StoreKind::Memory => {
            let database = sled::Config::new().temporary(true).open()?;
            let ledger = Ledger::open(&database, None, false)?;
            Ok(Stores { any: AnyStore::new(MemoryStore::new()), sled: None, ledger })
        }
    }
}
