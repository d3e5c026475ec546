#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

// PostgresBackend compares and sets rows of one table. The protocol is not here: it is in
// tower-idempotency-shared, for every database alike.
//
// What is where:
// - `url.rs`: a store by its URL, and how a URL is read.
// - `schema.sql`: the table, its indexes and the functions that write it; `view.sql`: the view for people.
// - `schema.rs`: where they are, whether they are there, and `migrate`.
// - `builder.rs`: what can be chosen; `config.rs`: the same from a file; `open.rs`: how it becomes a backend;
//   `rights.rs`: whether the role may do all.
// - `connection/`: the connections that calls share; `hosts.rs`: to which of several hosts; `tls.rs`: whether they are
//   encrypted.
// - `backend.rs`: the calls; `queries.rs`: what they send; `wire/`: writes as parameters, and rows out of answers.
// - `transaction.rs`: the record of a run, for a transaction of the application.
// - `notifications/`: send and receive notifications of which rows were written.
// - `guarantee.rs`: what the database can lose as it is set up; `limits.rs`: whether the table is full.
// - `error.rs`: what an error says of what was done.

mod backend;
mod builder;
#[cfg(feature = "config")]
mod config;
mod connection;
mod error;
mod guarantee;
mod hosts;
mod limits;
mod notifications;
mod open;
mod queries;
mod rights;
mod schema;
mod tls;
mod transaction;
mod url;
mod wire;

/// A store whose records are in PostgreSQL, for several processes.
pub type PostgresStore = tower_idempotency_shared::SharedStore<PostgresBackend>;

pub use backend::PostgresBackend;
pub use builder::PostgresBackendBuilder;
#[cfg(feature = "config")]
pub use config::PostgresConfig;
pub use error::PostgresError;
/// The TLS library, for its [`ClientConfig`](rustls::ClientConfig).
#[cfg(feature = "rustls")]
pub use rustls;
/// The client, for its [`Config`](tokio_postgres::Config).
pub use tokio_postgres;
#[cfg(feature = "config")]
pub use tower_idempotency_shared::SharedConfig;
pub use transaction::TransactionRecord;
#[cfg(feature = "config")]
pub use url::connect_with;
pub use url::{connect, migrate};

// The examples of the guide that use this crate are tested here, because the root does not know it.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/exactly-once.md")]
#[doc = include_str!("../../../docs/running/shared.md")]
mod guide {}
