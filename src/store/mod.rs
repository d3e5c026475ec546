//! Where records are kept: the contract, and the stores that keep it.
//!
//! | store | feature | survives | for |
//! |---|---|---|---|
//! | [`SledStore`] | `sled` | crashes and power cuts | one machine; the default |
//! | [`MemoryStore`] | `memory` | nothing | tests, and those who accept losing all at a restart |
//! | [`AnyStore`] | | what the store in it survives | choosing at run time |
//! | [`TestStore`](https://docs.rs/tower-idempotency/latest/tower_idempotency/test_util/struct.TestStore.html) | `test-util` | a crash, on command | testing a handler's retries |

// What is where:
// - `contract.rs`: the trait that all stores implement, and what it tells.
// - `error.rs`: what goes wrong.
// - `memory.rs`, `test.rs`: the stores in memory; the second, over the first, fails and crashes on command.
// - `embedded/`: the room of all engines on one machine: one writer, durable before it answers.
// - `sled_engine/`: sled in that room, and the store that applications open.
// - `shared/`: what a database of several processes has to do; `postgres/`: PostgreSQL does it.
// - `erased.rs`: one of them, chosen at run time.

pub(crate) mod contract;
#[cfg(feature = "sled")]
pub(crate) mod embedded;
mod erased;
mod error;
#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "shared")]
pub mod shared;
#[cfg(feature = "sled")]
mod sled_engine;
#[cfg(feature = "test-util")]
pub(crate) mod test;

pub use contract::{Health, InterruptedRun, Store};
pub(crate) use contract::{Page, Records};
#[cfg(feature = "sled")]
pub use embedded::{Abort, TransactionError};
pub use erased::AnyStore;
pub use error::{OpenError, StoreError};
#[cfg(feature = "memory")]
pub use memory::{MemoryStore, MemoryStoreBuilder};
#[cfg(feature = "sled")]
pub(crate) use sled_engine::transaction;
#[cfg(feature = "sled")]
pub use sled_engine::{SledStore, SledStoreBuilder, TransactionTree};
