//! Opens a PostgreSQL database.

use tokio_postgres_rustls::MakeRustlsConnect;
use tower_idempotency_postgres::tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tower_idempotency_postgres::tokio_postgres::{Client, Config, NoTls};
use tower_idempotency_postgres::{PostgresBackendBuilder, PostgresStore};

use super::{namespace, tls};
use crate::address::Database;
use crate::arguments::StoreOptions;
use crate::failure::Failure;

/// Connections to a database that are about to be made.
pub(crate) fn prepared(
    database: &Database,
    namespace: Option<&str>,
    options: &StoreOptions,
) -> Result<PostgresBackendBuilder, Failure> {
    let mut builder = database.builder.clone().connections(3);
    if let Some(namespace) = namespace.or(database.namespace.as_deref()) {
        builder = builder.namespace(namespace).map_err(Failure::usage)?;
    }
    if let Some(schema) = &options.schema {
        builder = builder.schema(schema).map_err(Failure::usage)?;
    }
    if options.behind_pooler {
        builder = builder.behind_pooler();
    }
    if is_encrypted(database) {
        builder = builder.tls(tls::config(options.ca.as_deref())?);
    }
    Ok(builder)
}

/// Opens the store as one more server, in a namespace that services use.
pub(super) async fn store(database: &Database, options: &StoreOptions) -> Result<PostgresStore, Failure> {
    let builder = prepared(database, None, options)?;
    let backend = builder.open().await.map_err(Failure::of)?;
    let Connected { client, schema } = connect(database, options).await?;
    namespace::check(&client, &schema, database.namespace.as_deref()).await?;
    drop(client);
    PostgresStore::open(backend).await.map_err(Failure::of)
}

/// Returns whether a connection is encrypted, or not made. In plain it is only to this machine, unless the URL asks for
/// it.
pub(super) fn is_encrypted(database: &Database) -> bool {
    database.builder.config().get_ssl_mode() != SslMode::Disable
        && !(database.builder.is_mode_open() && database.is_local())
}

/// Returns the configuration of a connection to a server that takes writes.
pub(super) fn config(database: &Database) -> Config {
    let mut config = database.builder.config().clone();
    config.application_name("idem").target_session_attrs(TargetSessionAttrs::ReadWrite);
    // The client's default is to go on in plain.
    if is_encrypted(database) && database.builder.is_mode_open() {
        config.ssl_mode(SslMode::Require);
    }
    config
}

/// A connection of the tool's own, for what a store has no call for.
pub(crate) struct Connected {
    pub(crate) client: Client,
    /// The name of the schema, without need of quotes: the backend's builder has taken it.
    pub(crate) schema: String,
}

/// Connects to a server that takes writes.
pub(crate) async fn connect(database: &Database, options: &StoreOptions) -> Result<Connected, Failure> {
    let config = config(database);
    let client = if is_encrypted(database) {
        let tls = MakeRustlsConnect::new(tls::config(options.ca.as_deref())?);
        let (client, connection) = config.connect(tls).await.map_err(Failure::of)?;
        // It ends with the client, and with an error that the client's calls get too.
        tokio::spawn(async move { drop(connection.await) });
        client
    } else {
        let (client, connection) = config.connect(NoTls).await.map_err(Failure::of)?;
        tokio::spawn(async move { drop(connection.await) });
        client
    };
    Ok(Connected { client, schema: options.schema.clone().unwrap_or_else(|| "idempotency".to_owned()) })
}
