//! The places where records are kept: the contract of a store, and the stores that keep it.
//!
//! | store | feature | survives | for |
//! |---|---|---|---|
//! | [`SledStore`] | `sled` | crashes and power cuts | one machine; the default |
//! | [`FjallStore`] | `fjall` | crashes and power cuts | one machine; more writes than sled can take |
//! | [`MemoryStore`] | `memory` | nothing | tests, and applications that accept to lose all records at a restart |
//! | [`PostgresStore`] | the crate `tower-idempotency-postgres` | what the database survives | several servers that share a PostgreSQL database |
//! | [`SharedStore`] | the crate `tower-idempotency-shared` | what the database survives | several servers that share a database of your own |
//! | [`AnyStore`] | | what the store inside survives | programs that choose a store at run time |
//! | [`TestStore`] | `test-util` | a crash, on command | tests of a handler's retries |
//!
//! [`FjallStore`]: mod@crate::guide::embedded
//! [`PostgresStore`]: mod@crate::guide::shared
//! [`SharedStore`]: crate::guide::shared#your-own-database
//! [`TestStore`]: crate::guide::testing

// The files:
// - `contract.rs`: the trait that all stores implement, and the types it returns.
// - `listed.rs`: records as lists show them; `page.rs`: the lists, and the pages in which they are read.
// - `error.rs`: the faults of a store; `transaction.rs`: why a transaction with a record was not committed.
// - `memory/`: the store in memory. `test_util/` next to this directory wraps it, and fails and crashes on command.
// - `embedded/`: the room of all embedded engines: one writer, which answers only what is durable.
// - `sled_engine/`, `fjall_engine/`: an embedded engine each, and the store that applications open.
// - `erased.rs`: any of the stores, chosen at run time; `connect.rs`: by a URL; `name.rs`: what a URL of a store is.

#[cfg(feature = "_cache")]
pub(crate) mod cache;
mod connect;
pub(crate) mod contract;
#[cfg(feature = "_embedded")]
pub(crate) mod embedded;
pub(crate) mod erased;
mod error;
#[cfg(feature = "fjall")]
pub(crate) mod fjall_engine;
pub(crate) mod listed;
#[cfg(feature = "memory")]
pub(crate) mod memory;
pub(crate) mod name;
pub(crate) mod page;
#[cfg(feature = "sled")]
pub(crate) mod sled_engine;
mod transaction;

pub use connect::ConnectError;
pub(crate) use contract::distinct;
pub use contract::{Gauges, Health, InterruptedRun, Store};
#[cfg(feature = "_embedded")]
pub use embedded::{Abort, EmbeddedStore, EmbeddedStoreBuilder};
pub use erased::AnyStore;
pub use error::{OpenError, StoreError};
#[doc(hidden)]
pub use error::{in_words, with_causes};
#[cfg(feature = "fjall")]
pub use fjall_engine::{FjallStore, FjallStoreBuilder, TransactionKeyspace};
#[cfg(feature = "memory")]
pub use memory::{MemoryStore, MemoryStoreBuilder};
#[cfg(feature = "sled")]
pub use sled_engine::{SledStore, SledStoreBuilder, TransactionTree};
pub use transaction::{CommitError, TransactionError};
