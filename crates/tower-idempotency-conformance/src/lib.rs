#![doc = include_str!("../README.md")]
//!
//! # The three contracts
//! - [`backend`]: what a database has to do that several processes share. Run it on a
//!   [`Backend`](tower_idempotency_shared::Backend) of your own.
//! - [`store`]: what the engine relies on, whatever keeps the records. Run it on the
//!   [`SharedStore`](tower_idempotency_shared::SharedStore) store over that backend.
//! - [`transaction`]: what a database has to do so that a transaction of the application holds the record of a run. Run
//!   it if your backend is a [`RecordInTransaction`](tower_idempotency_shared::RecordInTransaction): the other
//!   two do not look at that.
//!
//! [`backend_conformance!`](crate::backend_conformance), [`store_conformance!`](crate::store_conformance) and
//! [`transaction_conformance!`](crate::transaction_conformance) make a test of each rule:
//!
//! ```
//! mod store_contract {
//!     use tower_idempotency_conformance::memory_backend::MemoryBackend;
//!     use tower_idempotency_conformance::store::StoreSubject;
//!     use tower_idempotency_shared::SharedStore;
//!
//!     async fn subject() -> StoreSubject<SharedStore<MemoryBackend>> {
//!         let backend = MemoryBackend::new();
//!         let process = SharedStore::open(backend.another_process()).await.unwrap();
//!         StoreSubject::new(SharedStore::open(backend).await.unwrap()).another_process(process)
//!     }
//!
//!     tower_idempotency_conformance::store_conformance!(subject);
//! }
//! ```
//!
//! Or call `all` of one, which checks one rule after the other, or `rule`, which checks one by its name.

// What is where:
// - `backend/`, `store/`, `transaction/`: the three contracts.
// - `memory_backend/`: a database in memory that keeps the first, and fails on command.
// - `suite.rs`: what is made of the list of the rules of either.
// - `rule.rs`: what each rule is written with; `fresh.rs`: random ids.

pub mod backend;
mod fresh;
pub mod memory_backend;
mod rule;
pub mod store;
mod suite;
pub mod transaction;
