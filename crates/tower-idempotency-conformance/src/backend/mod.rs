//! The contract of a [`Backend`]: what a database has to do for a store that several processes share.
//!
//! - Each rule gets a subject of its own, and ids of its own. Rows that others leave in the database do no harm.
//! - Nothing is timed. What has to expire expires within milliseconds, and is polled for. No rule waits for [`GRACE`]:
//!   that rows past it are deleted is shown only where the subject has a [clock](BackendSubject::clock) to be moved.
//! - What no suite can see from outside is not here: whether an answered write survives a power cut or a failover, and
//!   whether a put locks rows in the order of their ids when no other put comes at the same moment.
//!
//! Let tokio's clock run: a paused one would end the limits of time before a database answers.
//!
//! [`Backend`]: tower_idempotency_shared::Backend
//! [`GRACE`]: tower_idempotency_shared::GRACE

// What is where:
// - `subject.rs`: what a rule is tried on; `suite.rs`: the list of the rules, and the macro.
// - `rule.rs`: the calls that a rule makes; `sample.rs`: writes to try.
// - `rules/`: the rules.

mod rule;
mod rules;
mod sample;
mod subject;
mod suite;

pub use subject::BackendSubject;
pub use suite::{RULES, all, rule};
