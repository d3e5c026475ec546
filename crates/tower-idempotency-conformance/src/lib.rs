//! The contracts of [`tower_idempotency`]'s databases and stores as tests, for those who write a backend of their own.
//! There are three:
//!
//! - [`backend`]: what a database has to do that several processes share. Run it on a
//!   [`Backend`](tower_idempotency::store::shared::Backend) of your own.
//! - [`store`]: what the engine relies on, whatever keeps the records. Run it on the
//!   [`SharedStore`](tower_idempotency::store::shared::SharedStore) store over that backend.
//! - [`transaction`]: what a database has to do so that a transaction of the application holds the record of a run. Run
//!   it if your backend is a [`RecordInTransaction`](tower_idempotency::store::shared::RecordInTransaction): the other
//!   two do not look at that.
//!
//! Say how a subject is made, and [`backend_conformance!`](crate::backend_conformance),
//! [`store_conformance!`](crate::store_conformance) and [`transaction_conformance!`](crate::transaction_conformance)
//! make a test of each rule:
//!
//! ```
//! mod backend_contract {
//!     use tower_idempotency_conformance::backend::BackendSubject;
//!     use tower_idempotency_conformance::memory_backend::MemoryBackend;
//!
//!     // In a test of your own this opens your database.
//!     async fn subject() -> BackendSubject<MemoryBackend> {
//!         let backend = MemoryBackend::new();
//!         let (another_process, another_namespace) = (backend.another_process(), backend.namespace("another"));
//!         BackendSubject::new(backend).another_process(another_process).another_namespace(another_namespace)
//!     }
//!
//!     tower_idempotency_conformance::backend_conformance!(subject);
//! }
//!
//! mod store_contract {
//!     use tower_idempotency_conformance::store::StoreSubject;
//!     use tower_idempotency::store::shared::SharedStore;
//!     use tower_idempotency_conformance::memory_backend::MemoryBackend;
//!
//!     async fn subject() -> StoreSubject<SharedStore<MemoryBackend>> {
//!         let backend = MemoryBackend::new();
//!         let another_process = SharedStore::open(backend.another_process()).await.unwrap();
//!         StoreSubject::new(SharedStore::open(backend).await.unwrap()).another_process(another_process)
//!     }
//!
//!     tower_idempotency_conformance::store_conformance!(subject);
//! }
//! ```
//!
//! Or call `all` of one, which checks one rule after the other, or `rule`, which checks one by its name.
//!
//! A rule that does not hold panics. The message names the rule, says what was found, and what to do. A rule that needs
//! something that the subject has not got is left out, or is shown in part, and says so on standard error: run the
//! tests with `-- --nocapture` to see that.

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
