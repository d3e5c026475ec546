//! Opens an outbox.

use tokio_postgres_rustls::MakeRustlsConnect;
use tower_idempotency::SledStore;
use tower_idempotency_outbox::deadpool_postgres::{Manager, Pool, tokio_postgres::NoTls};
use tower_idempotency_outbox::{OutboxError, PostgresOutbox, SledOutbox};

use super::{directory, postgres, tls};
use crate::address::{Database, Directory, Engine};
use crate::arguments::StoreOptions;
use crate::failure::Failure;

/// The connections of a command, of which a relay would need two.
const CONNECTIONS: usize = 2;

/// Returns the failure of another store.
pub(crate) fn nowhere_else() -> Failure {
    Failure::usage("an outbox is in PostgreSQL, or in a store of sled")
}

/// Opens an outbox in a directory. None is made.
pub(crate) async fn in_directory(named: &Directory, outbox: &str) -> Result<SledOutbox, Failure> {
    if named.engine == Some(Engine::Fjall) {
        return Err(nowhere_else());
    }
    directory::refuse_other_owner(&named.path)?;
    let opened = tokio::task::block_in_place(|| SledStore::builder().create(false).open(&named.path));
    let store = opened.map_err(directory::not_opened)?;
    SledOutbox::existing(&store, outbox).await.map_err(|error| match error {
        OutboxError::Name(what) => Failure::Usage(format!(
            "the store has no outbox of the name {outbox} that can be read here: the name is {what}; give its tree by \
             --outbox"
        )),
        error => Failure::of(error),
    })
}

/// Opens an outbox in a database. None is made.
pub(crate) fn in_postgres(
    database: &Database,
    outbox: &str,
    options: &StoreOptions,
) -> Result<PostgresOutbox, Failure> {
    let config = postgres::config(database);
    let manager = match postgres::is_encrypted(database) {
        true => Manager::new(config, MakeRustlsConnect::new(tls::config(options.ca.as_deref())?)),
        false => Manager::new(config, NoTls),
    };
    let pool = Pool::builder(manager).max_size(CONNECTIONS).build().map_err(Failure::of)?;
    PostgresOutbox::new(pool, outbox).map_err(Failure::usage)
}
