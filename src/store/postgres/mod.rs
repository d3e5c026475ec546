//! PostgreSQL, 13 or later, as the database of a store that several processes share.
//!
//! [`PostgresBackend`] compares and sets rows of one table. The protocol is not here: it is in
//! [`Shared`](super::shared), for every database alike.

// What is where:
// - `schema.sql`: the table, its indexes and the functions that write it.
// - `schema.rs`: where they are, whether they are there, and `migrate`.
// - `builder.rs`: what can be chosen; `open.rs`: how it becomes a backend; `rights.rs`: whether the role may do all.
// - `connect.rs`: one connection; `hosts.rs`: to which of several hosts; `tls.rs`: whether it is encrypted; `pool.rs`:
//   the few that calls share; `place.rs`: what a call holds that has one.
// - `backend.rs`: the calls; `queries.rs`: what they send.
// - `write.rs`: writes as parameters; `row.rs`: rows out of answers; `types.rs`: tokens and times on the wire.
// - `transaction.rs`: the record of a run, for a transaction of the application.
// - `notify.rs`, `listen.rs`: which rows were written, told and heard.
// - `guarantee.rs`: what the database can lose as it is set up; `limits.rs`: whether the table is full.
// - `error.rs`: what an error says of what was done.

mod backend;
mod builder;
mod connect;
mod error;
mod guarantee;
mod hosts;
mod limits;
mod listen;
mod notify;
mod open;
mod place;
mod pool;
mod queries;
mod rights;
mod row;
mod schema;
mod tls;
mod transaction;
mod types;
mod write;

/// A store whose records are in PostgreSQL, for several processes. See [`guide::shared`](mod@crate::guide::shared).
pub type PostgresStore = crate::store::shared::Shared<PostgresBackend>;

pub use backend::PostgresBackend;
pub use builder::PostgresBackendBuilder;
pub use error::PostgresError;
/// The TLS library, for its [`ClientConfig`](rustls::ClientConfig).
#[cfg(feature = "postgres-rustls")]
pub use rustls;
/// The client, for its [`Config`](tokio_postgres::Config).
pub use tokio_postgres;
pub use transaction::TransactionRecord;
