//! The contract of a [`Store`]: what the engine relies on, whatever keeps the records. The trait is sealed, so these
//! rules are for the stores of [`tower_idempotency`], and for [`SharedStore`] over a database of your own: over a
//! [`Backend`] that keeps [its contract](super::backend).
//!
//! - Each rule gets a subject of its own, and ids of its own. Records that others leave in the database do no harm.
//! - Nothing is timed. What has to expire expires within a second, and is polled for, unless the subject has a
//!   [clock](StoreSubject::clock) to be moved. A store that has just been opened takes other processes for alive for a
//!   third of a lease, and two rules wait for that.
//! - What no suite can see from outside is not here: whether an answer survives a power cut or a failover, and what
//!   becomes of a transition whose answer is lost.
//!
//! Tokio's clock may be paused if the store waits for nothing but timers.
//!
//! [`Backend`]: tower_idempotency_shared::Backend
//! [`SharedStore`]: tower_idempotency_shared::SharedStore
//! [`Store`]: tower_idempotency::store::Store

// What is where:
// - `subject.rs`: what a rule is tried on; `suite.rs`: the list of the rules, and the macro.
// - `rule.rs`: the calls that a rule makes; `sample.rs`: transitions to try.
// - `rules/`: the rules.

mod rule;
mod rules;
pub(crate) mod sample;
mod subject;
mod suite;

pub use subject::StoreSubject;
pub use suite::{RULES, all, rule};
