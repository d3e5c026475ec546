//! The contracts of [`tower_idempotency`]'s databases and stores as tests, for those who write a backend of their own.
//! There are two:
//!
//! - [`backend`]: what a database has to do that several processes share. Run it on a
//!   [`Backend`](tower_idempotency::store::shared::Backend) of your own.
//! - [`store`]: what the engine relies on, whatever keeps the records. Run it on the
//!   [`SharedStore`](tower_idempotency::store::shared::SharedStore) store over that backend.
//!
//! Say how a subject is made, and [`backend_conformance!`](crate::backend_conformance) and
//! [`store_conformance!`](crate::store_conformance) make a test of each rule:
//!
//! ```
//! mod backend_contract {
//!     use tower_idempotency_conformance::backend::Subject;
//!     use tower_idempotency_conformance::memory_backend::MemoryBackend;
//!
//!     // In a test of your own this opens your database.
//!     async fn subject() -> Subject<MemoryBackend> {
//!         let backend = MemoryBackend::new();
//!         let (another_process, another_namespace) = (backend.another_process(), backend.namespace("another"));
//!         Subject::new(backend).another_process(another_process).another_namespace(another_namespace)
//!     }
//!
//!     tower_idempotency_conformance::backend_conformance!(subject);
//! }
//!
//! mod store_contract {
//!     use tower_idempotency_conformance::store::Subject;
//!     use tower_idempotency::store::shared::SharedStore;
//!     use tower_idempotency_conformance::memory_backend::MemoryBackend;
//!
//!     async fn subject() -> Subject<SharedStore<MemoryBackend>> {
//!         let backend = MemoryBackend::new();
//!         let another_process = SharedStore::open(backend.another_process()).await.unwrap();
//!         Subject::new(SharedStore::open(backend).await.unwrap()).another_process(another_process)
//!     }
//!
//!     tower_idempotency_conformance::store_conformance!(subject);
//! }
//! ```
//!
//! Or call `all` of either, which checks one rule after the other, or `rule`, which checks one by its name.
//!
//! A rule that does not hold panics. The message names the rule, says what was found, and what to do. What needs
//! something that the subject has not got is left out, and says so on standard error.

// What is where:
// - `backend/`, `store/`: the two contracts.
// - `memory_backend/`: a database in memory that keeps the first, and fails on command.
// - `suite.rs`: what is made of the list of the rules of either.
// - `rule.rs`: what each rule is written with; `fresh.rs`: random ids.

pub mod backend;
mod fresh;
pub mod memory_backend;
mod rule;
pub mod store;
mod suite;
