//! An order, the record of its run and the call that pays for it, in one transaction: with each client of PostgreSQL.
//!
//! The crates give a text of SQL and its parameter, and know no client's types. So no version of a client is forced on
//! anyone: one program may have two of sqlx, as this one does. Each module has one function, to copy from;
//! `docs/exactly-once.md` and the crates' docs quote its lines.

use std::error::Error;

use tower_idempotency::IdempotencyContext;
use tower_idempotency_outbox::{Call, PostgresOutbox};
use tower_idempotency_postgres::PostgresStore;

pub mod with_diesel;
pub mod with_diesel_async;
pub mod with_sea_orm;
pub mod with_sqlx_0_8;
pub mod with_sqlx_0_9;
pub mod with_tokio_postgres;

/// The error of an operation that failed as a whole.
pub type Failure = Box<dyn Error + Send + Sync>;

/// What a handler has: its run, the answer to record, and the call that follows from it.
#[derive(Debug)]
pub struct Order {
    /// The store of the layer.
    pub store: PostgresStore,
    /// The outbox, in the same database.
    pub outbox: PostgresOutbox,
    /// The run.
    pub context: IdempotencyContext,
    /// What the client gets.
    pub answer: String,
    /// What a relay sends once the order is committed.
    pub call: Call,
}
