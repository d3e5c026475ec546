//! The contract as tests, for whoever puts a database behind a trait of this crate (feature `conformance`).
//!
//! Say how a [`Subject`](backend::Subject) is made, and [`backend_conformance!`](crate::backend_conformance) makes a
//! test of each rule of a [`Backend`](crate::store::shared::Backend):
//!
//! ```
//! use tower_idempotency::conformance::backend::Subject;
//! use tower_idempotency::store::shared::memory_backend::MemoryBackend;
//!
//! // In a test of your own this opens your database.
//! async fn subject() -> Subject<MemoryBackend> {
//!     let backend = MemoryBackend::new();
//!     let (another_process, another_namespace) = (backend.beside(), backend.namespace("another"));
//!     Subject::new(backend).beside(another_process).another_namespace(another_namespace)
//! }
//!
//! tower_idempotency::backend_conformance!(subject);
//! ```
//!
//! Or call [`all`](backend::all), which checks one rule after the other, or [`rule`](backend::rule), which checks one.
//!
//! A rule that does not hold panics. The message names the rule, says what was found, and what to do. What needs
//! something that the subject has not got is left out, and says so on standard error.

// What is where:
// - `suite.rs`: what is made of a list of rules.
// - `rule.rs`: what each rule is written with; `fresh.rs`: ids that nobody else has.
// - `backend/`: the rules of a database.

pub mod backend;
mod fresh;
mod rule;
mod suite;
