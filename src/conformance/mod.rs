//! The contract as tests, for whoever puts a database behind this crate (feature `conformance`). It has two halves:
//!
//! - [`backend`]: what a database has to do that several processes share. Run it on a
//!   [`Backend`](crate::store::shared::Backend) of your own.
//! - [`store`]: what the engine relies on, whatever keeps the records. Run it on the
//!   [`Shared`](crate::store::shared::Shared) store over that backend.
//!
//! Say how a subject is made, and [`backend_conformance!`](crate::backend_conformance) and
//! [`store_conformance!`](crate::store_conformance) make a test of each rule:
//!
//! ```
//! mod backend_contract {
//!     use tower_idempotency::conformance::backend::Subject;
//!     use tower_idempotency::store::shared::memory_backend::MemoryBackend;
//!
//!     // In a test of your own this opens your database.
//!     async fn subject() -> Subject<MemoryBackend> {
//!         let backend = MemoryBackend::new();
//!         let (another_process, another_namespace) = (backend.beside(), backend.namespace("another"));
//!         Subject::new(backend).beside(another_process).another_namespace(another_namespace)
//!     }
//!
//!     tower_idempotency::backend_conformance!(subject);
//! }
//!
//! mod store_contract {
//!     use tower_idempotency::conformance::store::Subject;
//!     use tower_idempotency::store::shared::Shared;
//!     use tower_idempotency::store::shared::memory_backend::MemoryBackend;
//!
//!     async fn subject() -> Subject<Shared<MemoryBackend>> {
//!         let backend = MemoryBackend::new();
//!         let another_process = Shared::open(backend.beside()).await.unwrap();
//!         Subject::new(Shared::open(backend).await.unwrap()).beside(another_process)
//!     }
//!
//!     tower_idempotency::store_conformance!(subject);
//! }
//! ```
//!
//! Or call `all` of a half, which checks one rule after the other, or `rule`, which checks one by its name.
//!
//! A rule that does not hold panics. The message names the rule, says what was found, and what to do. What needs
//! something that the subject has not got is left out, and says so on standard error.

// What is where:
// - `backend/`, `store/`: the halves.
// - `suite.rs`: what is made of the list of the rules of either.
// - `rule.rs`: what each rule is written with; `fresh.rs`: ids that nobody else has.

pub mod backend;
mod fresh;
mod rule;
pub mod store;
mod suite;
