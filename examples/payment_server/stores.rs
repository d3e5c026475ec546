//! The store that the arguments name, and its ledger.

use std::error::Error;
use std::path::Path;

use tempfile::TempDir;
use tower_idempotency::store::OpenError;
use tower_idempotency::{AnyStore, MemoryStore, SledStore};

use crate::args::{Args, Place};
use crate::ledger::Ledger;
use crate::shared;

type Failure = Box<dyn Error + Send + Sync>;

pub(crate) struct Stores {
    pub(crate) records: AnyStore,
    pub(crate) ledger: Ledger,
    /// The store whose database holds the ledger. It may be that of the records.
    pub(crate) database: AnyStore,
    // The directory is removed with the value.
    pub(crate) directory: Option<TempDir>,
}

pub(crate) async fn open(args: &Args) -> Result<Stores, Failure> {
    for (option, is_given) in [("--lease", args.lease.is_some()), ("--namespace", args.namespace.is_some())] {
        if is_given && !args.store.is_shared() {
            return Err(format!("{option} is for a store that servers share: --store postgres://…").into());
        }
    }
    let place = match &args.store {
        Place::SledAt(path) if *path == args.data => &Place::Sled,
        place => place,
    };
    if args.atomic && !matches!(place, Place::Sled | Place::Postgres(_)) {
        return Err("--atomic needs charges and records in one database: --store sled or postgres://…".into());
    }
    match place {
        Place::Sled => {
            let store = sled(args, &args.data)?;
            let (ledger, records) = (Ledger::trees(store.clone(), args.atomic)?, AnyStore::new(store));
            let database = records.clone();
            Ok(Stores { records, ledger, database, directory: None })
        }
        Place::SledAt(path) => apart(AnyStore::new(sled(args, path)?), sled(args, &args.data)?),
        Place::Memory => {
            // No data outlives the process, not even the ledger.
            let directory = tempfile::tempdir()?;
            let memory = args.settings.idempotency.memory.clone().apply(MemoryStore::builder()).build();
            let stores = apart(AnyStore::new(memory), SledStore::open(directory.path())?)?;
            Ok(Stores { directory: Some(directory), ..stores })
        }
        Place::Postgres(url) => postgres(url, args).await,
        Place::Unknown => Err("--store is not understood; give sled, sled:PATH, memory or postgres://…".into()),
    }
}

/// Opens a store in a directory of this server's.
fn sled(args: &Args, path: &Path) -> Result<SledStore, OpenError> {
    let settings = args.settings.idempotency.sled.clone();
    let builder = settings.apply(SledStore::builder());
    let builder = if args.existing { builder.create(false) } else { builder };
    match args.accept_loss_after {
        Some(batch) => builder.accept_loss_after(batch).open(path),
        None => builder.open(path),
    }
}

/// Returns these records, with a ledger in another store.
fn apart(records: AnyStore, database: SledStore) -> Result<Stores, Failure> {
    let ledger = Ledger::trees(database.clone(), false)?;
    Ok(Stores { records, ledger, database: AnyStore::new(database), directory: None })
}

async fn postgres(url: &str, args: &Args) -> Result<Stores, Failure> {
    let store = shared::open(url, args).await?;
    let records = AnyStore::new(store.clone());
    if args.atomic {
        let ledger = Ledger::table(url, store, shared::namespace(args)).await?;
        let database = records.clone();
        return Ok(Stores { records, ledger, database, directory: None });
    }
    // Each server has charges of its own, so that the effects of all servers can be counted.
    apart(records, sled(args, &args.data)?)
}
