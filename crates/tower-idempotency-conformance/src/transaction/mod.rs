//! The contract of a [`RecordInTransaction`]: what a database has to do so that effect and record of a run are durable
//! together.
//!
//! - Each rule gets a subject of its own, and ids of its own.
//! - What no suite can see from outside is not here: whether an answered commit survives a power cut or a failover,
//!   and whether a savepoint can undo the record without the effects.
//!
//! Let tokio's clock run: the store over the backend renews its session by it.
//!
//! [`RecordInTransaction`]: tower_idempotency_shared::RecordInTransaction

// What is where:
// - `subject.rs`: what a rule is tried on; `suite.rs`: the list of the rules, and the macro.
// - `run.rs`: a run whose record a transaction writes.
// - `rules/`: the rules.

mod rules;
mod run;
mod subject;
mod suite;

pub use subject::{End, TransactionSubject};
pub use suite::{RULES, all, rule};
