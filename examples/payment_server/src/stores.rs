//! The store that the arguments name, and its ledger.

use std::error::Error;
use std::path::Path;

use tempfile::TempDir;
#[cfg(feature = "fjall")]
use tower_idempotency::FjallStore;
use tower_idempotency::store::OpenError;
use tower_idempotency::{AnyStore, MemoryStore, SledStore};

use crate::args::{Args, Engine, Place};
use crate::ledger::{Database, Ledger};
#[cfg(any(feature = "postgres", feature = "redis"))]
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
            return Err(format!("{option} is for a store that servers share: --store postgres://… or redis://…").into());
        }
    }
    let place = match &args.store {
        Place::Embedded(engine, Some(path)) if *path == args.data => &Place::Embedded(*engine, None),
        place => place,
    };
    if args.atomic && !matches!(place, Place::Embedded(_, None) | Place::Postgres(_)) {
        return Err("--atomic needs charges and records in one database: --store sled, fjall or postgres://…".into());
    }
    args.settings.require_only(match place {
        Place::Embedded(Engine::Sled, _) => &["sled"],
        Place::Embedded(Engine::Fjall, None) => &["fjall"],
        // The charges are in a sled store.
        Place::Embedded(Engine::Fjall, Some(_)) => &["fjall", "sled"],
        Place::Postgres(_) => &["shared", "postgres", "sled"],
        Place::Redis(_) => &["shared", "redis", "sled"],
        Place::Memory | Place::Unknown(_) => &["memory"],
    })?;
    match place {
        Place::Embedded(engine, None) => {
            let (records, database) = embedded(args, *engine, &args.data)?;
            let ledger = Ledger::own(database, args.atomic)?;
            Ok(Stores { database: records.clone(), records, ledger, directory: None })
        }
        Place::Embedded(engine, Some(path)) => apart(embedded(args, *engine, path)?.0, sled(args, &args.data)?),
        Place::Memory => {
            // No data outlives the process, not even the ledger.
            let directory = tempfile::tempdir()?;
            let memory = args.settings.memory.clone().apply(MemoryStore::builder()).build();
            let stores = apart(AnyStore::new(memory), SledStore::open(directory.path())?)?;
            Ok(Stores { directory: Some(directory), ..stores })
        }
        Place::Postgres(url) => postgres(url, args).await,
        Place::Redis(url) => redis(url, args).await,
        Place::Unknown(hint) => {
            let known = "sled, sled:PATH, fjall, fjall:PATH, memory, postgres://… or redis://…";
            Err(format!("--store is not understood: {hint}; give {known}").into())
        }
    }
}

/// Opens a store in a directory of this server's.
fn embedded(args: &Args, engine: Engine, path: &Path) -> Result<(AnyStore, Database), Failure> {
    Ok(match engine {
        Engine::Sled => {
            let store = sled(args, path)?;
            (AnyStore::new(store.clone()), Database::Sled(store))
        }
        #[cfg(feature = "fjall")]
        Engine::Fjall => {
            let mut builder = args.settings.fjall.clone().apply(FjallStore::builder());
            if args.existing {
                builder = builder.create(false);
            }
            if let Some(batch) = args.accept_loss_after {
                builder = builder.accept_loss_after(batch);
            }
            if let Some(bytes) = args.memtable_bytes {
                builder = builder.memtable_bytes(bytes);
            }
            let store = builder.open(path)?;
            (AnyStore::new(store.clone()), Database::Fjall(store))
        }
        #[cfg(not(feature = "fjall"))]
        Engine::Fjall => return Err(without("fjall")),
    })
}

fn sled(args: &Args, path: &Path) -> Result<SledStore, OpenError> {
    let mut builder = args.settings.sled.clone().apply(SledStore::builder());
    if args.existing {
        builder = builder.create(false);
    }
    if let Some(batch) = args.accept_loss_after {
        builder = builder.accept_loss_after(batch);
    }
    builder.open(path)
}

/// Returns these records, with a ledger in another store.
fn apart(records: AnyStore, database: SledStore) -> Result<Stores, Failure> {
    let ledger = Ledger::own(Database::Sled(database.clone()), false)?;
    Ok(Stores { records, ledger, database: AnyStore::new(database), directory: None })
}

/// Returns the error of a store for which this program has to be built with a feature.
#[cfg(not(all(feature = "fjall", feature = "postgres", feature = "redis")))]
fn without(feature: &str) -> Failure {
    let build = format!("cargo run -p payment_server --features {feature} -- --store …");
    format!("this server was built without the feature {feature}, which this --store needs: {build}").into()
}

#[cfg(not(feature = "postgres"))]
async fn postgres(_: &str, _: &Args) -> Result<Stores, Failure> {
    Err(without("postgres"))
}

#[cfg(feature = "postgres")]
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

#[cfg(not(feature = "redis"))]
async fn redis(_: &str, _: &Args) -> Result<Stores, Failure> {
    Err(without("redis"))
}

#[cfg(feature = "redis")]
async fn redis(url: &str, args: &Args) -> Result<Stores, Failure> {
    let records = AnyStore::new(shared::open_redis(url, args).await?);
    // Each server has charges of its own here, too.
    apart(records, sled(args, &args.data)?)
}
